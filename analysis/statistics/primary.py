"""The primary test: the same function for a report and for thousands of simulated studies.

For each bin pair a test gives evidence: a rate, an interval, and a p-value against any rate. From it follow Holm's
correction over the bin pairs, and two further tests with the smallest effect of interest d (Lakens, Scheel and Isager,
Advances in Methods and Practices in Psychological Science 1, 2018): the minimum-effect test rejects "the rate is at
most 0.5 + d", the equivalence test rejects "the rate is outside 0.5 - d to 0.5 + d" (the larger of two one-sided
p-values). Both are corrected by Holm's method as well.
Conventions: arrays have shape (studies, answers) or (studies, pairs); pairs are in the order of BIN_PAIRS; a pair
without answers has NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.responses.load import numbered
from analysis.statistics.agreement import CHANCE, Alternative, Table1
from analysis.statistics.multiple_testing import holm_adjusted
from analysis.statistics.two_way import pair_codes
from analysis.statistics.two_way_variance import LEVEL, lay_out, precision
from study.design.bin_pairs import BIN_PAIRS
from study.preregistration.planned_test import PlannedTest

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


class PairEvidence(Protocol):
    """What a test says of one bin pair, by study: shape (studies,)."""

    @property
    def rate(self) -> Floats: ...

    def interval(self) -> tuple[Floats, Floats]: ...

    def p_value(self, against: float, tail: Alternative) -> Floats: ...


@dataclass(frozen=True)
class AnswerLayout:
    """Codes of the listener, prompt, bin pair (place in BIN_PAIRS) and triplet of each answer, shape (n,)."""

    listener: Ints
    prompt: Ints
    pair: Ints
    triplet: Ints


def layout_of_frame(frame: pd.DataFrame) -> AnswerLayout:
    """The layout of one embedder's responses."""
    listener, prompt, pair = numbered(frame["listener"]), numbered(frame["prompt"]), pair_codes(frame)
    triplet = prompt * len(BIN_PAIRS) + pair
    for name in ("clip_high", "clip_low"):
        if {"clip_high", "clip_low"} <= set(frame.columns):
            clip = pd.factorize(frame[name].astype(str))[0].astype(np.intp)
            triplet = np.unique(triplet * (int(clip.max()) + 1) + clip, return_inverse=True)[1]
    return AnswerLayout(listener, prompt, pair, np.asarray(triplet, np.intp))


@dataclass(frozen=True)
class PrimaryResult:
    """By study and bin pair: the rate with its interval, p-values as tested and after Holm's correction.

    `p_minimum` and `p_equivalence` are after Holm's correction.
    """

    rate: Floats
    low: Floats
    high: Floats
    p: Floats
    p_holm: Floats
    p_minimum: Floats
    p_equivalence: Floats


def examine(agreed: Floats, layout: AnswerLayout, test: PlannedTest, present: Bools | None = None) -> PrimaryResult:
    """Apply the primary test to every study.

    Args:
        agreed: 0 or 1, shape (studies, answers).
        present: which answers there are, the same shape; None: all.
    """
    evidence = TESTS[test.primary](agreed, layout, present)
    missing = np.full(len(agreed), np.nan)
    tail = next(name for name in get_args(Alternative) if name == test.alternative)

    def collect(of: Callable[[PairEvidence], Floats]) -> Floats:
        return np.stack([missing if one is None else of(one) for one in evidence], axis=1)

    counted = ~_empty(layout, present, len(agreed))
    least, most = CHANCE - test.smallest_effect, CHANCE + test.smallest_effect
    p, minimum, equivalence, rate, low, high = (
        np.where(counted, found, np.nan)
        for found in (
            collect(lambda one: one.p_value(CHANCE, tail)),
            collect(lambda one: one.p_value(most, "greater")),
            collect(lambda one: np.maximum(one.p_value(least, "greater"), one.p_value(most, "less"))),
            collect(lambda one: one.rate),
            collect(lambda one: one.interval()[0]),
            collect(lambda one: one.interval()[1]),
        )
    )
    return PrimaryResult(rate, low, high, p, holm_adjusted(p), holm_adjusted(minimum), holm_adjusted(equivalence))


def _empty(layout: AnswerLayout, present: Bools | None, studies: int) -> Bools:
    there = np.ones((studies, len(layout.pair)), bool) if present is None else present
    return np.stack([~there[:, layout.pair == code].any(axis=1) for code in range(len(BIN_PAIRS))], axis=1)


def _by_pair(
    agreed: Floats, layout: AnswerLayout, present: Bools | None, of: Callable[[Floats, Bools, Bools], PairEvidence]
) -> list[PairEvidence | None]:
    """The evidence of every pair; `of` gets its answers, which are there, and which answers of all are the pair's."""
    found: list[PairEvidence | None] = []
    for code in range(len(BIN_PAIRS)):
        own = layout.pair == code
        if not own.any():
            found.append(None)
            continue
        there = np.ones((len(agreed), int(own.sum())), bool) if present is None else present[:, own].copy()
        # A study without answers for the pair is set to NaN afterwards.
        there[~there.any(axis=1)] = True
        found.append(of(agreed[:, own], there, own))
    return found


def two_way(agreed: Floats, layout: AnswerLayout, present: Bools | None) -> list[PairEvidence | None]:
    """Listeners and prompts as random (analysis.statistics.two_way_variance)."""

    def of(y: Floats, there: Bools, own: Bools) -> PairEvidence:
        cells = lay_out(layout.listener[own], layout.prompt[own])
        return precision(y, cells, None if there.all() else there)

    return _by_pair(agreed, layout, present, of)


@dataclass(frozen=True)
class ExactEvidence:
    """Counts of pooled answers: the exact binomial test and Clopper and Pearson's interval."""

    agreed: Floats
    n: Floats

    @property
    def rate(self) -> Floats:
        return self.agreed / self.n

    def interval(self) -> tuple[Floats, Floats]:
        k, n = self.agreed, self.n
        low = np.where(k > 0, stats.beta.ppf(LEVEL / 2, np.maximum(k, 1), n - k + 1), 0.0)
        high = np.where(k < n, stats.beta.ppf(1 - LEVEL / 2, k + 1, np.maximum(n - k, 1)), 1.0)
        return low, high

    def p_value(self, against: float, tail: Alternative) -> Floats:
        """Two-sided: twice the smaller tail, which at 0.5 is the sum of all outcomes at most as likely."""
        above, below = stats.binom.sf(self.agreed - 1, self.n, against), stats.binom.cdf(self.agreed, self.n, against)
        if tail == "greater":
            return np.asarray(above)
        return np.asarray(below) if tail == "less" else np.minimum(1.0, 2 * np.minimum(above, below))


def exact(agreed: Floats, layout: AnswerLayout, present: Bools | None) -> list[PairEvidence | None]:
    """The exact binomial test of pooled answers, as in the paper."""

    def of(y: Floats, there: Bools, own: Bools) -> PairEvidence:
        counts = np.stack([(y * there).sum(axis=1), there.sum(axis=1)]).astype(int)
        # Many studies have the same counts.
        distinct, inverse = np.unique(counts, axis=1, return_inverse=True)
        return _Looked(ExactEvidence(distinct[0].astype(float), distinct[1].astype(float)), inverse.ravel())

    return _by_pair(agreed, layout, present, of)


@dataclass(frozen=True)
class _Looked:
    """Evidence computed once for each distinct study."""

    distinct: PairEvidence
    of: Ints

    @property
    def rate(self) -> Floats:
        return self.distinct.rate[self.of]

    def interval(self) -> tuple[Floats, Floats]:
        low, high = self.distinct.interval()
        return low[self.of], high[self.of]

    def p_value(self, against: float, tail: Alternative) -> Floats:
        return self.distinct.p_value(against, tail)[self.of]


@dataclass(frozen=True)
class MixedEvidence:
    """The logit of the marginal rate with its standard error and the degrees of freedom of t."""

    logit: Floats
    error: Floats
    df: Floats

    @property
    def rate(self) -> Floats:
        return 1 / (1 + np.exp(-self.logit))

    def interval(self) -> tuple[Floats, Floats]:
        reach = stats.t.ppf(1 - LEVEL / 2, self.df) * self.error
        return 1 / (1 + np.exp(reach - self.logit)), 1 / (1 + np.exp(-reach - self.logit))

    def p_value(self, against: float, tail: Alternative) -> Floats:
        t = (self.logit - np.log(against / (1 - against))) / self.error
        if tail == "greater":
            return np.asarray(stats.t.sf(t, self.df))
        return np.asarray(stats.t.cdf(t, self.df) if tail == "less" else 2 * stats.t.sf(np.abs(t), self.df))


def mixed(agreed: Floats, layout: AnswerLayout, present: Bools | None) -> list[PairEvidence | None]:
    """The logistic mixed model, one fit per study (analysis.statistics.glmm)."""
    from threadpoolctl import threadpool_limits

    from analysis.statistics.glmm import degrees_of_freedom, fit_codes, marginal_logits

    logit, error = (np.zeros((len(agreed), len(BIN_PAIRS))) for _ in range(2))
    error += 1.0
    df = np.ones(len(agreed))
    with threadpool_limits(1, user_api="blas"):
        for study, y in enumerate(agreed):
            rows = np.ones(len(y), bool) if present is None else present[study]
            pairs, data, found = fit_codes(
                y[rows], layout.listener[rows], layout.prompt[rows], layout.pair[rows], layout.triplet[rows]
            )
            logit[study, pairs], error[study, pairs] = marginal_logits(data, found)
            df[study] = degrees_of_freedom(data)
    return [
        MixedEvidence(logit[:, code], error[:, code], df) if (layout.pair == code).any() else None
        for code in range(len(BIN_PAIRS))
    ]


TESTS: dict[str, Callable[[Floats, AnswerLayout, Bools | None], list[PairEvidence | None]]] = {
    "two_way_holm": two_way,
    "exact_holm": exact,
    "mixed_holm": mixed,
}


@dataclass(frozen=True)
class PairVerdict:
    """The primary test's result of one bin pair of one study; p-values but `p` are after Holm's correction."""

    rate: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    p_minimum: float
    p_equivalence: float

    @property
    def significant(self) -> bool:
        return self.p_holm < LEVEL

    @property
    def verdict(self) -> str:
        """One of: of interest, above, below, equivalent, undecided."""
        if self.significant and self.rate > CHANCE:
            return "of interest" if self.p_minimum < LEVEL else "above"
        if self.significant:
            return "below"
        return "equivalent" if self.p_equivalence < LEVEL else "undecided"


def verdicts(frame: pd.DataFrame, test: PlannedTest) -> dict[str, dict[tuple[int, int], PairVerdict]]:
    """By embedder and bin pair with responses: the primary test of these responses."""
    found = {}
    for name in sorted(map(str, frame["embedder"].unique()), key=lambda name: (name.casefold(), name)):
        own = frame[frame["embedder"] == name]
        result = examine(own["agreed"].to_numpy(float)[None, :], layout_of_frame(own), test)
        found[name] = {
            pair: PairVerdict(*(float(values[0, place]) for values in vars(result).values()))
            for place, pair in enumerate(BIN_PAIRS)
            if not np.isnan(result.p[0, place])
        }
    return found


def with_verdicts(tables: Table1, found: Mapping[str, Mapping[tuple[int, int], PairVerdict]], primary: str) -> Table1:
    """The tables with the primary test's corrected p-values, which decide stars and filled points."""
    return {
        name: replace(
            table,
            primary=primary,
            pairs={
                pair: replace(cell, p_primary=found[name][pair].p_holm) if pair in found.get(name, {}) else cell
                for pair, cell in table.pairs.items()
            },
        )
        for name, table in tables.items()
    }
