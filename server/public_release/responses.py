"""The published responses: new names for people and clips, and times no finer than the exclusion rules need.

study.columns says how each column is published; a column without an entry there is refused.

Listeners, assignments, trials and clips (prompts are clips) get random names. They are made for one release and not
stored. Rows are sorted by these names, so their order says nothing about time. The choices are unchanged: anyone who
has the study's own responses can find each listener in the release.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, assert_never

import pyarrow as pa

from embeddings.errors import RootnoteError
from server.db.models import AssignmentState
from study.columns import (
    RESPONSE_COLUMNS,
    AsIs,
    Capped,
    CoarseTime,
    Renamed,
    ResponseColumn,
    Withheld,
    arrow_type,
)


class Names:
    """Random names, each made on first use."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._names, self._taken = prefix, dict[Hashable, str](), set[str]()

    def __getitem__(self, true: Hashable) -> str:
        if true not in self._names:
            self._names[true] = self._new()
        return self._names[true]

    def __contains__(self, true: Hashable) -> bool:
        return true in self._names

    def _new(self) -> str:
        while (name := f"{self._prefix}{secrets.token_hex(6)}") in self._taken:
            pass
        self._taken.add(name)
        return name


class Masks:
    """The new names of one release."""

    def __init__(self) -> None:
        self.listeners, self.assignments, self.trials, self.clips = (Names(letter) for letter in "LATC")


def published_columns() -> dict[str, ResponseColumn]:
    """The columns of `responses` that a release contains."""
    return {name: column for name, column in RESPONSE_COLUMNS.items() if not isinstance(column.publish, Withheld)}


def published_type(name: str) -> pa.DataType:
    """The Arrow type of a published column; random names are text."""
    return pa.string() if isinstance(RESPONSE_COLUMNS[name].publish, Renamed) else arrow_type(name)


def require_described(file: str, columns: Iterable[str], described: Iterable[str], registry: str) -> None:
    """Refuse columns that have no publication rule.

    Raises:
        RootnoteError: naming the first such column and the entry to add.
    """
    if unknown := sorted({*columns} - {*described}):
        raise RootnoteError(
            f"{file} has the column '{unknown[0]}', and nothing says how it is published; add an entry with its "
            f"`publish` to {registry} in study/columns.py."
        )


def publishable(
    rows: Iterable[Mapping[str, Any]], states: Mapping[str, str], rules: Iterable[str]
) -> list[Mapping[str, Any]]:
    """The responses to publish: those of listeners who withdrew only if the exclusion rules count them."""
    if "incomplete" not in rules:
        return list(rows)
    return [row for row in rows if states[row["assignment"]] != AssignmentState.WITHDRAWN]


def mask(rows: Sequence[Mapping[str, Any]], masks: Masks, fastest_ms: float) -> list[dict[str, Any]]:
    """The rows as they are published, sorted by new name and position.

    Raises:
        RootnoteError: if a column is not described in study.columns.
    """
    require_described("responses.csv", set().union(*rows), RESPONSE_COLUMNS, "RESPONSE_COLUMNS")
    masked = [
        {
            name: _publish(row[name], column.publish, row, masks, fastest_ms)
            for name, column in RESPONSE_COLUMNS.items()
            if not isinstance(column.publish, Withheld)
        }
        for row in rows
    ]
    return sorted(masked, key=lambda row: (row["assignment"], row["position"]))


def _publish(
    value: Any,
    rule: AsIs | Renamed | Capped | CoarseTime,
    row: Mapping[str, Any],
    masks: Masks,
    fastest_ms: float,
) -> Any:
    """A value as it is published."""
    match rule:
        case Renamed(what):
            return _new_name(what, value, row, masks)
        case AsIs():
            return value
        case Capped(most):
            return None if value is None else min(value, most)
        case CoarseTime():
            return None if value is None else coarse_time(value, fastest_ms, rule)
    assert_never(rule)


def _new_name(what: str, value: Hashable, row: Mapping[str, Any], masks: Masks) -> str:
    if what == "trial":
        return masks.trials[row["assignment"], row["position"]]
    return {"listener": masks.listeners, "assignment": masks.assignments, "clip": masks.clips}[what][value]


def coarse_time(true: float, fastest_ms: float, rule: CoarseTime) -> float:
    """A time in its column's unit, coarser."""
    coarse = coarse_ms(round(true * rule.per_unit), fastest_ms, rule)
    return coarse if rule.per_unit == 1 else coarse / rule.per_unit


def coarse_ms(true: int, fastest_ms: float, rule: CoarseTime) -> int:
    """A time in the rule's steps, at most its longest, on the same side of `fastest_ms` as before."""
    line = math.ceil(fastest_ms)
    coarse = true // rule.step_ms * rule.step_ms
    if coarse < line <= true:
        return line
    return min(coarse, max(rule.longest_ms, line))
