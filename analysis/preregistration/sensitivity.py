"""The ladder of exclusions: Table 1 with none of the rules, with each alone, with the plan's and with all of them.

A result that stands on every rung does not hang on who was left out.
Conventions: a rung is a set of rules; counts are of scored trials; what is dropped is counted against no rule at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.responses.exclusions import RULES, ExclusionPlan, Mask, mask_of, only_scored, sensitivity_plans, why_not
from analysis.responses.load import Responses
from analysis.statistics.agreement import Alternative, Table1, table1

NONE, PLAN, ALL = "none", "the plan's", "every rule"


@dataclass(frozen=True)
class Specification:
    """Table 1 under one set of rules; `hindered` says why a rule could not be applied (then there are no tables)."""

    name: str
    says: str
    in_plan: bool
    tables: Table1
    responses: int
    listeners: int
    responses_dropped: int
    listeners_dropped: int
    hindered: str = ""


def sensitivity_analysis(read: Responses, alternative: Alternative = "two-sided") -> list[Specification]:
    """Every rung for a file of responses. A rule that cannot be applied is a rung without tables."""
    return sensitivity_analysis_of_frame(read.everything, read.plan, alternative)


def sensitivity_analysis_of_frame(
    frame: pd.DataFrame, plan: ExclusionPlan, alternative: Alternative = "two-sided"
) -> list[Specification]:
    """Every rung for checked responses of all kinds (columns as analysis.responses.load gives them)."""
    masks = {name: found for name in RULES if (found := mask_of(frame, name, plan.thresholds)) is not None}
    scored = only_scored(frame)
    total, people = len(scored), int(scored["listener"].nunique())
    rungs = []
    for name, rules in sensitivity_plans(plan):
        says = _says(name, plan)
        in_plan = name in (PLAN, *plan.rules)
        if name in RULES and name not in masks:
            rungs.append(Specification(name, says, in_plan, {}, total, people, 0, 0, why_not(frame, name)))
            continue
        left = scored if name == NONE else only_scored(frame[~_any(frame, [masks[r] for r in rules if r in masks])])
        listeners = int(left["listener"].nunique())
        tables = table1(left, alternative) if len(left) else {}
        rungs.append(
            Specification(name, says, in_plan, tables, len(left), listeners, total - len(left), people - listeners)
        )
    return rungs


def _any(frame: pd.DataFrame, masks: list[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce([np.zeros(len(frame), np.bool_), *masks]), np.bool_)


def _says(name: str, plan: ExclusionPlan) -> str:
    if name in RULES:
        return RULES[name].describe(plan.thresholds)
    return {NONE: "nothing left out", PLAN: "used in every other table", ALL: "whether planned or not"}[name]


def to_frame(rungs: list[Specification]) -> pd.DataFrame:
    """The ladder as a table: a row per rung, embedder and bin pair that has responses."""
    rows = [
        {
            "rules": rung.name,
            "says": rung.says,
            "in_plan": rung.in_plan,
            "responses_dropped": rung.responses_dropped,
            "listeners_dropped": rung.listeners_dropped,
            "embedder": embedder,
            "bin_high": high,
            "bin_low": low,
            "agreed": cell.agreed,
            "n": cell.n,
            "rate": cell.rate,
            "ci_low": cell.test.ci_low if cell.test else None,
            "ci_high": cell.test.ci_high if cell.test else None,
            "p": cell.test.p if cell.test else None,
            "p_holm": cell.p_holm,
        }
        for rung in rungs
        for embedder, table in rung.tables.items()
        for (high, low), cell in table.pairs.items()
        if cell.n
    ]
    return pd.DataFrame(rows)


def as_data(rungs: list[Specification]) -> list[Mapping[str, object]]:
    """The ladder as plain data; `hindered` is empty where the rule was applied."""
    return [
        {
            "rules": rung.name,
            "says": rung.says,
            "in_plan": rung.in_plan,
            "hindered": rung.hindered,
            "responses": rung.responses,
            "listeners": rung.listeners,
            "responses_dropped": rung.responses_dropped,
            "listeners_dropped": rung.listeners_dropped,
            "pairs": {
                embedder: {
                    f"{high}-{low}": {"agreed": cell.agreed, "n": cell.n, "rate": cell.rate, "p_holm": cell.p_holm}
                    for (high, low), cell in table.pairs.items()
                }
                for embedder, table in rung.tables.items()
            },
        }
        for rung in rungs
    ]


def in_words(rungs: list[Specification], alpha: float = 0.05) -> str:
    """Whether any bin pair changes sides of significance from rung to rung."""
    standing = [rung for rung in rungs if rung.tables]
    pairs = {(name, pair) for rung in standing for name, table in rung.tables.items() for pair in table.pairs}
    moved = []
    for name, pair in sorted(pairs):
        cells = [rung.tables[name].pairs[pair] for rung in standing if name in rung.tables]
        told = {(cell.p_holm < alpha, (cell.rate or 0) > 0.5) for cell in cells if cell.p_holm is not None}
        if len({direction if certain else None for certain, direction in told}) > 1:
            moved.append(f"{name} {pair[0]}–{pair[1]}")
    if not moved:
        return (
            "No bin pair gains or loses its significance on any rung: the conclusions do not hang on who is left out."
        )
    return (
        f"On some rungs significance changes for {', '.join(moved)}: there the conclusion hangs on who is left out, or "
        "on how many answers remain."
    )
