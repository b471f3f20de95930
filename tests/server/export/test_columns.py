"""A new column of `responses` is one entry in study.columns, and is never published without a decision."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis.responses.load import read_responses
from embeddings.errors import RootnoteError
from server.db import database
from server.db.models import Response
from server.export import responses
from server.export.computed import ResponseContext
from server.public_release.dictionary import dictionary
from server.public_release.responses import Masks, mask, published_columns
from server.public_release.runs import require_listener_columns
from study.columns import RESPONSE_COLUMNS, AsIs, Capped, Number, ResponseColumn, ResponsePublish, Withheld
from study.trial_plan import read_plan
from study.trials import PlannedTrial
from tests.server.conftest import Site


def test_every_column_has_a_source() -> None:
    trial = {field.name for field in fields(PlannedTrial)}
    for name, column in RESPONSE_COLUMNS.items():
        module, _, function = column.source.partition(":")
        found = {"trial": name in trial, "response": hasattr(Response, name)}
        assert found[module] if not function else hasattr(import_module(module), function), name
        assert column.meaning[0].isupper() and not column.meaning.endswith(".")


def test_every_stored_value_of_a_response_is_a_column() -> None:
    stored = {column.name for column in Response.__table__.columns} - {"id", "assignment_id", "late", "seal"}
    assert stored <= RESPONSE_COLUMNS.keys(), "add these to study/columns.py"


def seven(row: ResponseContext) -> int:
    return 7


def describe(publish: ResponsePublish) -> ResponseColumn:
    return ResponseColumn(
        "int64", "Number of yawns", source=f"{__name__}:seven", analysis="used", publish=publish, check=Number(least=0)
    )


@pytest.fixture
def yawns(monkeypatch: pytest.MonkeyPatch) -> Callable[[ResponsePublish], None]:
    """Add the column `yawns`, whose value is always 7, published as given."""

    def add(publish: ResponsePublish) -> None:
        monkeypatch.setitem(RESPONSE_COLUMNS.built_in, "yawns", describe(publish))

    return add


def rows_of(site: Site) -> list[dict[str, Any]]:
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        return list(responses.response_rows(session, site.study, read_plan(site.study)))


def test_one_entry_reaches_export_release_dictionary_and_analysis(
    site: Site, tmp_path: Path, yawns: Callable[[ResponsePublish], None]
) -> None:
    yawns(Capped(5))
    site.walker().take_part()
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        responses.export(session, site.study, read_plan(site.study), tmp_path)
    with (tmp_path / "responses.csv").open(newline="", encoding="utf-8") as file:
        assert {row["yawns"] for row in csv.DictReader(file)} == {"7"}
    assert str(pq.read_schema(tmp_path / "responses.parquet").field("yawns").type) == "int64"
    assert set(read_responses(tmp_path / "responses.csv").frame["yawns"]) == {7.0}
    assert {row["yawns"] for row in mask(rows_of(site), Masks(), 0)} == {5}
    [entry] = [
        one
        for one in dictionary([], {"responses.csv": [*published_columns()]})["responses.csv"]
        if one["name"] == "yawns"
    ]
    assert (entry["type"], entry["values"]) == ("whole number", "0 to 5")
    assert entry["meaning"].startswith("Number of yawns; larger numbers")


@pytest.mark.parametrize(("publish", "expected"), [(AsIs(), 7), (Withheld("nobody needs it"), None)])
def test_a_column_is_published_as_its_entry_says(
    site: Site, yawns: Callable[[ResponsePublish], None], publish: ResponsePublish, expected: int | None
) -> None:
    yawns(publish)
    site.walker().take_part()
    assert {row.get("yawns") for row in mask(rows_of(site), Masks(), 0)} == {expected}


def test_a_column_without_an_entry_is_never_published(site: Site) -> None:
    site.walker().take_part()
    rows = [row | {"yawns": 7} for row in rows_of(site)]
    with pytest.raises(RootnoteError, match=r"responses\.csv has the column 'yawns'.*RESPONSE_COLUMNS"):
        mask(rows, Masks(), 0)
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        people = responses.listener_rows(session, site.study)
    require_listener_columns(site.study.config, people)
    with pytest.raises(RootnoteError, match=r"listeners\.csv has the column 'shoe_size'.*LISTENER_COLUMNS"):
        require_listener_columns(site.study.config, [person | {"shoe_size": 40} for person in people])
