"""The columns of the study's tables are defined once, and every table uses this definition."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from embeddings.provenance import read_table
from study.columns import DESIGN_COLUMNS, RESPONSE_COLUMNS, ResponseColumn, arrow_schema, columns_read
from study.trials import PlannedTrial, Triplet, read_trials, read_triplets, schedule_table, trial_lists, triplets_table

VERSION_0_1 = Path(__file__).parent / "version_0_1"
TRIPLET = Triplet(0, "one", 1, 1, 4, 2, 3, 0.9, 0.1)
TRIAL = PlannedTrial("one", 0, 1, "scored", 0, 1, 1, 4, 2, 3, 0.9, 0.1, "A")


def test_a_column_must_say_how_it_is_published() -> None:
    with pytest.raises(TypeError, match="publish"):
        ResponseColumn("string", "Mood", source="response", analysis="used")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nothing says how the column is published"):
        ResponseColumn("string", "Mood", source="response", analysis="used", publish=None)  # type: ignore[arg-type]


def test_the_analysis_needs_what_its_documentation_says() -> None:
    assert columns_read("needed") == ("embedder", "listener", "prompt", "bin_high", "bin_low", "agreed")


def test_design_tables_are_read_as_they_were_written() -> None:
    assert read_triplets(triplets_table([TRIPLET])) == [TRIPLET]
    assert read_trials(schedule_table([TRIAL])) == [TRIAL]
    described = {field.name for kind in (Triplet, PlannedTrial) for field in fields(kind)}
    assert DESIGN_COLUMNS.keys() == described - RESPONSE_COLUMNS.keys()


def test_a_design_table_has_the_types_of_the_columns() -> None:
    schema = arrow_schema(["kind", "list", "agreed", "similarity_low"])
    assert [str(field.type) for field in schema] == ["string", "int64", "int8", "double"]


def test_tables_of_version_0_1_are_read_and_written_unchanged() -> None:
    """The files were built with version 0.1.0."""
    table, provenance = read_table(VERSION_0_1 / "triplets.parquet", "triplets", "")
    triplets = read_triplets(table)
    assert len(triplets) == 36 and triplets_table(triplets).equals(table)
    assert provenance.fingerprint.startswith("76b558f5bd10")
    table, provenance = read_table(VERSION_0_1 / "schedule.parquet", "schedule", "")
    trials = read_trials(table)
    assert len(trial_lists(trials)) == 6 and schedule_table(trials).equals(table)
