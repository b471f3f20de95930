"""Exclusions: responses that do not count, by rules that are fixed before the study.

Each rule is applied to all responses of a file, independently of the other rules; their order decides only which of
them is named as the reason. `too_fast`, `not_heard` and `impossible_time` leave out single responses and use the
server's clock where the file has its times; `duplicate_person` leaves out all runs of a person except the first, the
others a whole run (one assignment of one listener). No rule depends on whether a scored response agreed;
`straight_lining` and `one_side` depend on the side chosen.
`unconfirmed` is not chosen: it leaves out what no marketplace has listed, in every analysis of an export that says so.
Conventions: a mask is bool [rows], true where a response is left out; a blank value never leads to an exclusion. Only
`scored` trials enter a table, whatever the rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from embeddings.errors import RootnoteError
from study.preregistration.exclusion_rules import ONE_SIDE_LEAST, SAYS, ExclusionPlan, Thresholds, plan_of

__all__ = [
    "ALWAYS",
    "RULES",
    "Applied",
    "Exclusion",
    "ExclusionPlan",
    "Rule",
    "Thresholds",
    "apply",
    "mask_of",
    "only_scored",
    "parse_rules",
    "plan_of",
    "rules_in_force",
    "runs",
    "sensitivity_plans",
    "why_not",
    "without_unconfirmed",
]  # fmt: skip

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """A rule: its description, the columns it needs, and the rows it leaves out.

    `obstacle` gives any other reason why it cannot be applied to a file; "" if there is none.
    """

    describe: Callable[[Thresholds], str]
    needs: tuple[str, ...]
    mask: Callable[[pd.DataFrame, Thresholds], Mask]
    obstacle: Callable[[pd.DataFrame], str] = lambda frame: ""


@dataclass(frozen=True)
class Exclusion:
    """What one rule left out: rows, and listeners without any remaining row."""

    reason: str
    rows: int
    listeners: int
    rule: str = ""


@dataclass(frozen=True)
class Applied:
    """The remaining rows of every kind, what each rule left out, and why rules could not be applied."""

    kept: pd.DataFrame
    exclusions: tuple[Exclusion, ...]
    not_applied: Mapping[str, str]

    @property
    def scored(self) -> pd.DataFrame:
        return only_scored(self.kept)


def parse_rules(text: str) -> tuple[str, ...]:
    """Rules as named on the command line: separated by commas, or "none".

    Raises:
        RootnoteError: if a rule is unknown or repeated; suggests the most similar rule.
    """
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
            suggestion = f"did you mean '{near[0]}'? " if near else ""
            raise RootnoteError(f"there is no exclusion rule '{name}'; {suggestion}The rules are {', '.join(RULES)}.")
    if len(set(names)) != len(names):
        raise RootnoteError("an exclusion rule is listed twice; list each rule once.")
    return tuple(names)


def apply(frame: pd.DataFrame, plan: ExclusionPlan) -> Applied:
    """Apply the plan's rules; a rule whose columns are missing is skipped and listed in `not_applied`.

    The rule `unconfirmed` is in no plan: it comes first, wherever the file has its column.
    """
    names = rules_in_force(frame, plan)
    masks = {name: found for name in names if (found := mask_of(frame, name, plan.thresholds)) is not None}
    not_applied = {name: why_not(frame, name) for name in plan.rules if name not in masks}
    remaining = _scored(frame)
    exclusions = []
    if "kind" in frame:
        everyone = np.ones(len(frame), np.bool_)
        exclusions.append(_count(frame, everyone, remaining, "catch and repeat trials", ""))
    for name, mask in masks.items():
        left = remaining & ~mask
        exclusions.append(_count(frame, remaining, left, _rule_of(name).describe(plan.thresholds), name))
        remaining = left
    out = np.logical_or.reduce([np.zeros(len(frame), np.bool_), *masks.values()])
    return Applied(frame[~out].reset_index(drop=True), tuple(exclusions), not_applied)


def _count(frame: pd.DataFrame, before: Mask, after: Mask, reason: str, rule: str) -> Exclusion:
    lost = _listeners(frame, before) - _listeners(frame, after)
    return Exclusion(reason, int(before.sum() - after.sum()), lost, rule)


def _listeners(frame: pd.DataFrame, rows: Mask) -> int:
    return len(np.unique(_codes(frame["listener"])[rows]))


def only_scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The scored trials; all rows if the file has no column `kind`."""
    return frame[_scored(frame)].reset_index(drop=True)


def _scored(frame: pd.DataFrame) -> Mask:
    return np.asarray(frame["kind"] == "scored", np.bool_) if "kind" in frame else np.ones(len(frame), np.bool_)


def mask_of(frame: pd.DataFrame, name: str, thresholds: Thresholds) -> Mask | None:
    """The rows that a rule leaves out, or None if it cannot be applied (see `why_not`)."""
    return None if why_not(frame, name) else _rule_of(name).mask(frame, thresholds)


def why_not(frame: pd.DataFrame, name: str) -> str:
    """Why a rule cannot be applied to these rows; "" if it can."""
    missing = [column for column in _rule_of(name).needs if column not in frame]
    if missing:
        return f"the file lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    return _rule_of(name).obstacle(frame)


def rules_in_force(frame: pd.DataFrame, plan: ExclusionPlan) -> tuple[str, ...]:
    """The rules that are applied to these rows: those that apply to every export, then the plan's."""
    always = tuple(name for name, rule in ALWAYS.items() if all(column in frame for column in rule.needs))
    return (*always, *plan.rules)


def without_unconfirmed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to which no rule applies that every export must keep to."""
    return apply(frame, ExclusionPlan(rules=())).kept


def _rule_of(name: str) -> Rule:
    return ALWAYS[name] if name in ALWAYS else RULES[name]


def sensitivity_plans(plan: ExclusionPlan) -> list[tuple[str, tuple[str, ...]]]:
    """The sets of rules that the sensitivity analysis compares, by name: none, the plan's, each alone, all."""
    steps: list[tuple[str, tuple[str, ...]]] = [("none", ()), ("the plan's", plan.rules)]
    steps += [(name, (name,)) for name in (*plan.rules, *(name for name in RULES if name not in plan.rules))]
    return [*steps, ("every rule", tuple(RULES))]


# ------------------------------------------------------------------ the rules


def _codes(column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes, np.int64)
    return np.asarray(pd.factorize(column)[0], np.int64)


def runs(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The run of each row, numbered from 0; a run is a study, listener and assignment, as far as the file has these."""
    code = np.zeros(len(frame), np.int64)
    for name in ("study", "listener", "assignment"):
        if name in frame:
            own = _codes(frame[name])
            code = np.unique(code * (int(own.max(initial=0)) + 2) + own + 1, return_inverse=True)[1].astype(np.int64)
    return code


def _whole_runs(frame: pd.DataFrame, bad: npt.NDArray[np.int64]) -> Mask:
    """All rows of these runs."""
    return np.asarray(np.isin(runs(frame), bad), np.bool_)


def _failed_prescreen(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["passed_prescreen"] == 0, np.bool_)


def _incomplete(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["completed"] == 0, np.bool_)


def _duplicate_person(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    """All runs of a listener except the one that began first."""
    run, listener = runs(frame), _codes(frame["listener"])
    if len(np.unique(run)) == len(np.unique(listener)):
        return np.zeros(len(frame), np.bool_)
    when = frame["answered_at"].astype(str).to_numpy() if "answered_at" in frame else np.full(len(frame), "")
    if (when == "").any():
        when = np.full(len(frame), "")  # without a time for every response, the order of the file decides
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
    """By the server's clock; by the browser's where the server's is not known."""
    fast = np.asarray(frame["response_ms"] < thresholds.fastest_ms, np.bool_)
    if "elapsed_s" not in frame:
        return fast
    elapsed = frame["elapsed_s"]
    # 1000 × 1.001 is less than 1001 in binary numbers.
    return np.where(elapsed.notna(), (1000 * elapsed).round(6) < thresholds.fastest_ms, fast)


def _not_heard(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    """The time did not suffice by the server's clock, or the browser says that a clip was not heard."""
    unheard = np.asarray((frame[["plays_x", "plays_a", "plays_b"]] < 1).any(axis=1), np.bool_)
    return unheard | _doubts(frame, "hearing")


def _impossible_time(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return _doubts(frame, "")


def _doubts(frame: pd.DataFrame, which: str) -> Mask:
    """The rows in which the server's clock contradicts the browser, in `which` respect or (if empty) in any."""
    if "doubts" not in frame:
        return np.zeros(len(frame), np.bool_)
    text = frame["doubts"].astype(object)
    known = text.where(text.notna(), "").astype(str)
    return np.asarray(known.str.contains(which, regex=False) if which else known != "", np.bool_)


def _straight_lining(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    """Runs in which the same side was chosen in `longest_run` or more successive trials."""
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


def _rule(name: str, needs: tuple[str, ...], mask: Callable[[pd.DataFrame, Thresholds], Mask], **more: Any) -> Rule:
    return Rule(SAYS[name], needs, mask, **more)


def _unconfirmed(frame: pd.DataFrame, thresholds: Thresholds) -> Mask:
    return np.asarray(frame["verification"] == "unconfirmed", np.bool_)


# Whatever a plan says: nobody knows whether these runs are of real people.
ALWAYS: dict[str, Rule] = {
    "unconfirmed": Rule(lambda thresholds: "run that the marketplace never listed", ("verification",), _unconfirmed),
}

RULES: dict[str, Rule] = {
    "failed_prescreen": _rule("failed_prescreen", ("passed_prescreen",), _failed_prescreen),
    "incomplete": _rule("incomplete", ("completed",), _incomplete),
    "duplicate_person": _rule("duplicate_person", ("assignment",), _duplicate_person),
    "catch_missed": _rule("catch_missed", ("kind",), _catch_missed, obstacle=_no_catch_trials),
    "too_fast": _rule("too_fast", ("response_ms",), _too_fast),
    "not_heard": _rule("not_heard", ("plays_x", "plays_a", "plays_b"), _not_heard),
    "impossible_time": _rule("impossible_time", ("elapsed_s",), _impossible_time),
    "straight_lining": _rule("straight_lining", ("choice", "position"), _straight_lining, obstacle=_positions_unknown),
    "one_side": _rule("one_side", ("choice",), _one_side),
}
