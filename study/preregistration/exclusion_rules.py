"""Exclusions: the rules that a study fixes in advance, as numbers and as text.

Frozen plans contain the sentences in `SAYS`: a changed sentence would count as a changed plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from study.config import StudyConfig

CLIPS_OF_A_TRIAL = 3
TOLERANCE = 0.9  # as in the server: browsers' clocks are coarse
ONE_SIDE_LEAST = 6  # with fewer answers, one side only means nothing


@dataclass(frozen=True)
class Thresholds:
    """The numbers in the rules."""

    catch_misses_allowed: int = 0
    fastest_ms: float = 1000 * TOLERANCE * CLIPS_OF_A_TRIAL * 3.0
    longest_run: int = 8


@dataclass(frozen=True)
class ExclusionPlan:
    """The rules in force, in the order in which they are applied."""

    rules: tuple[str, ...] = ("failed_prescreen", "incomplete")
    thresholds: Thresholds = field(default_factory=Thresholds)

    def as_data(self) -> dict[str, Any]:
        return {"rules": {name: SAYS[name](self.thresholds) for name in self.rules}, **vars(self.thresholds)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ExclusionPlan:
        numbers = Thresholds(int(data["catch_misses_allowed"]), float(data["fastest_ms"]), int(data["longest_run"]))
        return cls(tuple(data["rules"]), numbers)


def _missed_in_words(thresholds: Thresholds) -> str:
    allowed = thresholds.catch_misses_allowed
    return "missed a catch trial" if not allowed else f"missed more than {allowed} catch trial{'s' * (allowed > 1)}"


SAYS: dict[str, Callable[[Thresholds], str]] = {
    "failed_prescreen": lambda t: "listener did not pass the prescreen",
    "incomplete": lambda t: "listener did not complete the study",
    "duplicate_person": lambda t: "later run of a person who had taken part before",
    "catch_missed": lambda t: f"listener {_missed_in_words(t)}",
    "too_fast": lambda t: f"answered in less than {t.fastest_ms / 1000:g} s",
    "not_heard": lambda t: "a clip was never heard to its end",
    "impossible_time": lambda t: "times reported by the browser contradict the server's clock",
    "straight_lining": lambda t: f"listener chose the same side {t.longest_run} times running",
    "one_side": lambda t: f"listener chose one side only, in {ONE_SIDE_LEAST} answers or more",
}


def plan_of(config: StudyConfig) -> ExclusionPlan:
    """The rules of a study.toml."""
    settings = config.exclusions
    fastest = settings.fastest_seconds
    if fastest == "auto":
        fastest = TOLERANCE * CLIPS_OF_A_TRIAL * config.corpus.clip_seconds
    thresholds = Thresholds(settings.catch_misses_allowed, round(1000 * fastest, 3), settings.longest_run)
    return ExclusionPlan(tuple(settings.rules), thresholds)
