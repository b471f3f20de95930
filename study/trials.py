"""Triplets and planned trials, and the tables that hold them: triplets.parquet and schedule.parquet.

Conventions: clips are corpus rows; the types of the columns are those of study.columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from study.columns import arrow_schema

ROLES = ("x", "high", "low")


@dataclass(frozen=True)
class Triplet:
    """A prompt with one clip from each of two bins.

    Ranks count from 1 among the prompt's neighbours, and are -1 outside them; `track_*` is -1 if it is unknown.
    """

    triplet: int
    embedder: str
    prompt: int
    bin_high: int
    bin_low: int
    clip_high: int
    clip_low: int
    similarity_high: float
    similarity_low: float
    rank_high: int = -1
    rank_low: int = -1
    track_prompt: int = -1
    track_high: int = -1
    track_low: int = -1


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a TrialList; positions count from 1."""

    embedder: str
    list: int
    position: int
    kind: Literal["scored", "catch", "repeat"]
    triplet: int
    prompt: int
    bin_high: int
    bin_low: int
    clip_high: int
    clip_low: int
    similarity_high: float
    similarity_low: float
    high_side: Literal["A", "B"]

    def stimulus_key(self, role: str) -> str:
        """The stimulus of `role` ("x", "high" or "low"); a catch trial's copy of X is another rendering."""
        if role == "high":
            return f"{self.clip_high}/catch" if self.kind == "catch" else str(self.clip_high)
        return str({"x": self.prompt, "low": self.clip_low}[role])


def triplets_table(triplets: Iterable[Triplet]) -> pa.Table:
    """The table of triplets.parquet."""
    return _table(Triplet, triplets)


def read_triplets(table: pa.Table) -> list[Triplet]:
    """The triplets in a table that `triplets_table` made."""
    return [Triplet(**row) for row in table.to_pylist()]


def schedule_table(trials: Iterable[PlannedTrial]) -> pa.Table:
    """The table of schedule.parquet."""
    return _table(PlannedTrial, trials)


def read_trials(table: pa.Table) -> list[PlannedTrial]:
    """The trials in a table that `schedule_table` made."""
    return [PlannedTrial(**row) for row in table.to_pylist()]


def trial_lists(trials: Sequence[PlannedTrial]) -> dict[int, list[PlannedTrial]]:
    """The trials of each list, in the order of their positions."""
    lists: dict[int, list[PlannedTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.position):
        lists.setdefault(trial.list, []).append(trial)
    return lists


def _table(kind: type[Any], rows: Iterable[Any]) -> pa.Table:
    schema = arrow_schema(field.name for field in fields(kind))
    return pa.Table.from_pylist([vars(row) for row in rows], schema=schema)
