"""Rows: responses under new names, with times that tell no more than the rules of exclusion need.

Listeners, assignments, trials and clips (prompts are clips) get random names that are made anew each time and kept
nowhere. Rows are ordered by these names, so their order tells nothing. Answers themselves are as they were: whoever
has the study's own responses can find each listener in them again.

Left out: when an answer was given, and all telemetry but the number of plays. Coarser: `response_ms` is rounded down
to tenths of a second, and up again where that would cross the rule `too_fast`; long times and many plays are cut.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from server.db.models import AssignmentState
from server.export.responses import COLUMN_TYPES

LEFT_OUT = (
    "answered_at", "seconds_x", "seconds_a", "seconds_b", "play_order", "focus_losses", "sample_rate",
    "output_latency_ms", "agent_class",
)  # fmt: skip
CLIPS = ("prompt", "clip_high", "clip_low")
TYPES: dict[str, pa.DataType] = {
    name: pa.string() if name in CLIPS else kind for name, kind in COLUMN_TYPES.items() if name not in LEFT_OUT
}
STEP_MS = 100
LONGEST_MS = 300_000
MOST_PLAYS = 5


class Names:
    """Random names for what has one, each made when it is first asked for."""

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
    """The new names of one bundle."""

    def __init__(self) -> None:
        self.listeners, self.assignments, self.trials, self.clips = (Names(letter) for letter in "LATC")


def publishable(
    rows: Iterable[Mapping[str, Any]], states: Mapping[str, str], rules: Iterable[str]
) -> list[Mapping[str, Any]]:
    """The responses that are published: not those of listeners who withdrew, unless the rules count them."""
    if "incomplete" not in rules:
        return list(rows)
    return [row for row in rows if states[row["assignment"]] != AssignmentState.WITHDRAWN]


def mask(rows: Iterable[Mapping[str, Any]], masks: Masks, fastest_ms: float) -> list[dict[str, Any]]:
    """The rows as they are published, ordered by new name and position."""
    masked = [
        {name: row[name] for name in TYPES}
        | {
            "listener": masks.listeners[row["listener"]],
            "assignment": masks.assignments[row["assignment"]],
            "trial": masks.trials[row["assignment"], row["position"]],
            **{name: masks.clips[row[name]] for name in CLIPS},
            **{name: min(row[name], MOST_PLAYS) for name in ("plays_x", "plays_a", "plays_b")},
            "response_ms": coarse_ms(row["response_ms"], fastest_ms),
        }
        for row in rows
    ]
    return sorted(masked, key=lambda row: (row["assignment"], row["position"]))


def coarse_ms(true: int, fastest_ms: float) -> int:
    """A time in tenths of a second, at most five minutes, on the same side of `fastest_ms` as before."""
    line = math.ceil(fastest_ms)
    coarse = true // STEP_MS * STEP_MS
    if coarse < line <= true:
        return line
    return min(coarse, max(LONGEST_MS, line))
