"""Sensitivity to exclusions: Table 1 with no exclusion rule, with each rule alone, with the plan's and with all.

A result that is the same under every specification does not depend on who was excluded.
Conventions: a specification is a set of rules; counts are of scored trials; "dropped" is relative to no rule at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.responses.exclusions import RULES, ExclusionPlan, Mask, mask_of, only_scored, sensitivity_plans, why_not
from analysis.responses.load import Responses
from analysis.statistics.agreement import Alternative, Table1, table1
from analysis.statistics.primary import verdicts, with_verdicts
from study.preregistration.planned_test import DEFAULT_TEST, PlannedTest

NONE, PLAN, ALL = "none", "the plan's", "every rule"


@dataclass(frozen=True)
class Specification:
    """Table 1 under one set of exclusion rules.

    `not_applicable` says why a rule could not be applied, and is empty if it was; then there are no tables.
    """

    name: str
    description: str
    in_plan: bool
    tables: Table1
    responses: int
    listeners: int
    responses_dropped: int
    listeners_dropped: int
    not_applicable: str = ""


def sensitivity_analysis(
    read: Responses, alternative: Alternative = "two-sided", test: PlannedTest = DEFAULT_TEST
) -> list[Specification]:
    """Table 1 under every specification. A rule that cannot be applied gives a specification without tables."""
    return sensitivity_analysis_of_frame(read.everything, read.plan, alternative, test)


def sensitivity_analysis_of_frame(
    frame: pd.DataFrame,
    plan: ExclusionPlan,
    alternative: Alternative = "two-sided",
    test: PlannedTest = DEFAULT_TEST,
) -> list[Specification]:
    """The same for checked responses of all kinds (columns as analysis.responses.load gives them)."""
    masks = {name: found for name in RULES if (found := mask_of(frame, name, plan.thresholds)) is not None}
    scored = only_scored(frame)
    total, people = len(scored), int(scored["listener"].nunique())
    specifications = []
    known: dict[bytes, Table1] = {}
    for name, rules in sensitivity_plans(plan):
        description = _describe(name, plan)
        in_plan = name in (PLAN, *plan.rules)
        if name in RULES and name not in masks:
            specifications.append(
                Specification(name, description, in_plan, {}, total, people, 0, 0, why_not(frame, name))
            )
            continue
        left = scored if name == NONE else only_scored(frame[~_any(frame, [masks[r] for r in rules if r in masks])])
        listeners = int(left["listener"].nunique())
        # Many rules exclude the same rows, or none.
        key = left.index.to_numpy().tobytes()
        if key not in known:
            known[key] = tested_tables(left, alternative, test) if len(left) else {}
        tables = known[key]
        specifications.append(
            Specification(
                name, description, in_plan, tables, len(left), listeners, total - len(left), people - listeners
            )
        )
    return specifications


def tested_tables(frame: pd.DataFrame, alternative: Alternative, test: PlannedTest) -> Table1:
    """Table 1 of scored trials, with the primary test's p-values."""
    return with_verdicts(table1(frame, alternative), verdicts(frame, test), test.primary)


def _any(frame: pd.DataFrame, masks: list[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce([np.zeros(len(frame), np.bool_), *masks]), np.bool_)


def _describe(name: str, plan: ExclusionPlan) -> str:
    if name in RULES:
        return RULES[name].describe(plan.thresholds)
    return {NONE: "nothing excluded", PLAN: "used in every other table", ALL: "planned or not"}[name]


def to_frame(specifications: Sequence[Specification]) -> pd.DataFrame:
    """One row per specification, embedder and bin pair that has responses (ladder.csv)."""
    rows = [
        {
            "rules": one.name,
            "says": one.description,
            "in_plan": one.in_plan,
            "responses_dropped": one.responses_dropped,
            "listeners_dropped": one.listeners_dropped,
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
            "p_primary": cell.p_decisive,
        }
        for one in specifications
        for embedder, table in one.tables.items()
        for (high, low), cell in table.pairs.items()
        if cell.n
    ]
    return pd.DataFrame(rows)


def as_data(specifications: Sequence[Specification]) -> list[Mapping[str, object]]:
    """The specifications as plain data; `hindered` is empty if the rule was applied."""
    return [
        {
            "rules": one.name,
            "says": one.description,
            "in_plan": one.in_plan,
            "hindered": one.not_applicable,
            "responses": one.responses,
            "listeners": one.listeners,
            "responses_dropped": one.responses_dropped,
            "listeners_dropped": one.listeners_dropped,
            "pairs": {
                embedder: {
                    f"{high}-{low}": {
                        "agreed": cell.agreed,
                        "n": cell.n,
                        "rate": cell.rate,
                        "p_holm": cell.p_holm,
                        "p_primary": cell.p_decisive,
                    }
                    for (high, low), cell in table.pairs.items()
                }
                for embedder, table in one.tables.items()
            },
        }
        for one in specifications
    ]


def in_words(specifications: Sequence[Specification], alpha: float = 0.05) -> str:
    """Whether any bin pair gains or loses significance, or changes direction, between specifications."""
    applied = [one for one in specifications if one.tables]
    pairs = {(name, pair) for one in applied for name, table in one.tables.items() for pair in table.pairs}
    changed = []
    for name, pair in sorted(pairs):
        cells = [one.tables[name].pairs[pair] for one in applied if name in one.tables]
        results = {
            ((cell.rate or 0) > 0.5) if cell.p_decisive < alpha else None
            for cell in cells
            if cell.p_decisive is not None
        }
        if len(results) > 1:
            changed.append(f"{name} {pair[0]}–{pair[1]}")
    if not changed:
        return (
            "No bin pair gains or loses significance under any set of rules: the conclusions do not depend on the "
            "exclusions."
        )
    return (
        f"Under some sets of rules, significance changes for {', '.join(changed)}: there, the conclusion depends on "
        "who is excluded, or on how many answers remain."
    )
