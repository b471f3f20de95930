"""Exclusions: which responses do not count, by rules that are fixed before the study.

A rule looks at all answers of a file and says which it leaves out; it looks at no other rule, so their order decides
only to which of them a response is put down. `too_fast` and `not_heard` leave out single responses, `duplicate_person`
all runs of a person but the first, the others a whole run (one listener's one assignment). No rule looks at whether a
scored answer agreed; `straight_lining` and `one_side` do look at the side chosen.
Conventions: a mask is bool [rows], true where a response is left out; where a value is blank, nothing is held against
the listener. Only `scored` trials enter a table, whatever the rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from embeddings.artefacts import RootnoteError
from study.config import StudyConfig

Mask = npt.NDArray[np.bool_]
CLIPS_OF_A_TRIAL = 3
TOLERANCE = 0.9  # as the server's: browsers' clocks are coarse
ONE_SIDE_LEAST = 6  # of fewer answers it says nothing that all are on one side


@dataclass(frozen=True)
class Thresholds:
    """The numbers in the rules."""

    catch_misses_allowed: int = 0
    fastest_ms: float = 1000 * TOLERANCE * CLIPS_OF_A_TRIAL * 3.0
    longest_run: int = 8


@dataclass(frozen=True)
class ExclusionPlan:
    """The rules that hold, in the order in which a response is put down to them."""

    rules: tuple[str, ...] = ("failed_prescreen", "incomplete")
    thresholds: Thresholds = field(default_factory=Thresholds)

    def as_data(self) -> dict[str, Any]:
        return {"rules": {name: RULES[name].says(self.thresholds) for name in self.rules}, **vars(self.thresholds)}


@dataclass(frozen=True)
class Rule:
    """What a rule says, the columns it needs, what else keeps it from being applied, and which rows it leaves out."""

    says: Callable[[Thresholds], str]
    needs: tuple[str, ...]
    mask: Callable[[pd.DataFrame, Thresholds], Mask]
    hindered: Callable[[pd.DataFrame], str] = lambda frame: ""


@dataclass(frozen=True)
class Exclusion:
    """What was left out and why: rows, and listeners of whom no row remained."""

    reason: str
    rows: int
    listeners: int
    rule: str = ""


@dataclass(frozen=True)
class Applied:
    """The rows that remain (of every kind), what each rule left out, and the rules that could not be applied."""

    kept: pd.DataFrame
    exclusions: tuple[Exclusion, ...]
    not_applied: Mapping[str, str]

    @property
    def scored(self) -> pd.DataFrame:
        return only_scored(self.kept)


def plan_of(config: StudyConfig) -> ExclusionPlan:
    """The rules of a study.toml."""
    settings = config.exclusions
    fastest = settings.fastest_seconds
    if fastest == "auto":
        fastest = TOLERANCE * CLIPS_OF_A_TRIAL * config.corpus.clip_seconds
    thresholds = Thresholds(settings.catch_misses_allowed, round(1000 * fastest, 3), settings.longest_run)
    return ExclusionPlan(tuple(settings.rules), thresholds)


def parse_rules(text: str) -> tuple[str, ...]:
    """Rules as named on the command line: separated by commas, or "none".

    Raises:
        RootnoteError: where one is not known or named twice, with the nearest that is.
    """
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
            meant = f"did you mean '{near[0]}'? " if near else ""
            raise RootnoteError(f"there is no exclusion rule '{name}'; {meant}The rules are {', '.join(RULES)}.")
    if len(set(names)) != len(names):
        raise RootnoteError("an exclusion rule is named twice.")
    return tuple(names)


def apply(frame: pd.DataFrame, plan: ExclusionPlan) -> Applied:
    """Leave out what the plan's rules say; a rule whose columns are absent is not applied, and named."""
    masks = {name: found for name in plan.rules if (found := mask_of(frame, name, plan.thresholds)) is not None}
    not_applied = {name: why_not(frame, name) for name in plan.rules if name not in masks}
    remaining = _scored(frame)
    exclusions = []
    if "kind" in frame:
        everyone = np.ones(len(frame), np.bool_)
        exclusions.append(_count(frame, everyone, remaining, "catch and repeat trials", ""))
    for name, mask in masks.items():
        left = remaining & ~mask
        exclusions.append(_count(frame, remaining, left, RULES[name].says(plan.thresholds), name))
        remaining = left
    out = np.logical_or.reduce([np.zeros(len(frame), np.bool_), *masks.values()])
    return Applied(frame[~out].reset_index(drop=True), tuple(exclusions), not_applied)


def _count(frame: pd.DataFrame, before: Mask, after: Mask, reason: str, rule: str) -> Exclusion:
    lost = _listeners(frame, before) - _listeners(frame, after)
    return Exclusion(reason, int(before.sum() - after.sum()), lost, rule)


def _listeners(frame: pd.DataFrame, rows: Mask) -> int:
    return len(np.unique(_codes(frame["listener"])[rows]))


def only_scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The scored trials; all rows where the file knows no kinds."""
    return frame[_scored(frame)].reset_index(drop=True)


def _scored(frame: pd.DataFrame) -> Mask:
    return np.asarray(frame["kind"] == "scored", np.bool_) if "kind" in frame else np.ones(len(frame), np.bool_)


def mask_of(frame: pd.DataFrame, name: str, thresholds: Thresholds) -> Mask | None:
    """The rows that a rule leaves out, or None where it cannot be applied (`why_not` says why)."""
    return None if why_not(frame, name) else RULES[name].mask(frame, thresholds)


def why_not(frame: pd.DataFrame, name: str) -> str:
    """What keeps a rule from being applied to these rows; empty where nothing does."""
    missing = [column for column in RULES[name].needs if column not in frame]
    if missing:
        return f"the file lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    return RULES[name].hindered(frame)


def ladder_plans(plan: ExclusionPlan) -> list[tuple[str, tuple[str, ...]]]:
    """The sets of rules that the ladder compares, by name: none, the plan's, each, all there are."""
    steps: list[tuple[str, tuple[str, ...]]] = [("none", ()), ("the plan's", plan.rules)]
    steps += [(name, (name,)) for name in (*plan.rules, *(name for name in RULES if name not in plan.rules))]
    return [*steps, ("every rule", tuple(RULES))]


# ------------------------------------------------------------------ the rules


def _codes(column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes, np.int64)
    return np.asarray(pd.factorize(column)[0], np.int64)


def runs(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The run that each row belongs to, as a number from 0: study, listener and assignment, where these are known."""
    code = np.zeros(len(frame), np.int64)
    for name in ("study", "listener", "assignment"):
        if name in frame:
            own = _codes(frame[name])
            code = np.unique(code * (int(own.max(initial=0)) + 2) + own + 1, return_inverse=True)[1].astype(np.int64)
    return code


def _whole_runs(frame: pd.DataFrame, bad: npt.NDArray[np.int64]) -> Mask:
    """All rows of the runs that are named."""
    return np.asarray(np.isin(runs(frame), bad), np.bool_)


def _failed_prescreen(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["passed_prescreen"] == 0, np.bool_)


def _incomplete(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["completed"] == 0, np.bool_)


def _duplicate_person(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    """All runs of a listener but the one that began first."""
    run = runs(frame)
    when = frame["answered_at"].astype(str).to_numpy() if "answered_at" in frame else np.full(len(frame), "")
    if (when == "").any():
        when = np.full(len(frame), "")  # the order of the file, where not every answer has a time
    listener = _codes(frame["listener"])
    order = np.lexsort((np.arange(len(frame)), when, listener))
    first = order[np.concatenate(([True], listener[order][1:] != listener[order][:-1]))]
    first_run = np.zeros(int(listener.max()) + 1, np.int64)
    first_run[listener[first]] = run[first]
    return np.asarray(run != first_run[listener], np.bool_)


def _catch_missed(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    missed = np.asarray((frame["kind"] == "catch") & (frame["agreed"] == 0), np.bool_)
    count = np.bincount(runs(frame)[missed], minlength=1)
    return _whole_runs(frame, np.flatnonzero(count > thresholds.catch_misses_allowed))


def _no_catch_trials(frame: pd.DataFrame) -> str:
    return "" if (frame["kind"] == "catch").any() else "there are no catch trials"


def _too_fast(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["response_ms"] < thresholds.fastest_ms, np.bool_)


def _not_heard(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray((frame[["plays_x", "plays_a", "plays_b"]] < 1).any(axis=1), np.bool_)


def _straight_lining(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    """Runs in which the same side was chosen in so many successive trials."""
    run, side = runs(frame), _codes(frame["choice"])
    order = np.lexsort((_positions(frame), run))
    run, side = run[order], side[order]
    begins = np.concatenate(([True], (run[1:] != run[:-1]) | (side[1:] != side[:-1])))
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(run)))
    return _whole_runs(frame, np.unique(run[starts[lengths >= thresholds.longest_run]]))


def _positions(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    column = frame["position"]
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = pd.to_numeric(column.cat.categories.to_series(), errors="coerce").to_numpy(np.float64)
        return np.where(column.cat.codes < 0, np.nan, known[column.cat.codes])
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def _positions_unknown(frame: pd.DataFrame) -> str:
    return "" if np.isfinite(_positions(frame)).all() else "position is not a number in every row"


def _one_side(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    run = runs(frame)
    answers = np.bincount(run)
    chose_a = np.bincount(run, np.asarray(frame["choice"] == "A", np.float64))
    return _whole_runs(frame, np.flatnonzero((answers >= ONE_SIDE_LEAST) & ((chose_a == 0) | (chose_a == answers))))


def _missed_in_words(thresholds: Thresholds) -> str:
    allowed = thresholds.catch_misses_allowed
    return "missed a catch trial" if not allowed else f"missed more than {allowed} catch trial{'s' * (allowed > 1)}"


RULES: dict[str, Rule] = {
    "failed_prescreen": Rule(
        lambda t: "listener did not pass the prescreen", ("passed_prescreen",), _failed_prescreen
    ),
    "incomplete": Rule(lambda t: "listener did not complete the study", ("completed",), _incomplete),
    "duplicate_person": Rule(
        lambda t: "later run of a person who had taken part before", ("assignment",), _duplicate_person
    ),
    "catch_missed": Rule(lambda t: f"listener {_missed_in_words(t)}", ("kind",), _catch_missed, _no_catch_trials),
    "too_fast": Rule(lambda t: f"answered in less than {t.fastest_ms / 1000:g} s", ("response_ms",), _too_fast),
    "not_heard": Rule(
        lambda t: "a clip was never heard to its end", ("plays_x", "plays_a", "plays_b"), _not_heard
    ),
    "straight_lining": Rule(
        lambda t: f"listener chose the same side {t.longest_run} times running",
        ("choice", "position"),
        _straight_lining,
        _positions_unknown,
    ),
    "one_side": Rule(
        lambda t: f"listener chose one side only, in {ONE_SIDE_LEAST} answers or more", ("choice",), _one_side
    ),
}  # fmt: skip


def names(rules: Sequence[str]) -> str:
    """Rules as a list in words."""
    return ", ".join(rules) if rules else "none"
