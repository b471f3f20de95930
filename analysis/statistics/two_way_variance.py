"""The precision of a rate whose answers share listeners and prompts, for many studies of one layout at once.

An answer is its bin pair's rate plus an effect of the listener, one of the prompt and a rest. The correlations of two
answers of one listener (rho_L) and on one prompt (rho_P) come from analysis-of-variance equations: for each grouping,
the sum over groups of (sum of residuals)² / size equals its expectation (Searle, Casella and McCulloch, Variance
Components, 1992, chapter 5); residuals are centred by bin pair, and the expectations take the centring and unequal
sizes into account. The variance of a weighted rate is then v (Σw² + rho_P (Σ w_prompt² − Σw²) + rho_L (Σ w_listener² −
Σw²)), where v is the variance of one answer.
Four rules for small samples, chosen by simulation (docs/decisions/0020-primary-test.md):
- An answer on a prompt with many answers weighs less, 1 / (1 + (size − 1) rho_P) with rho_P at least 0.15, so that one
  prompt cannot dominate; in a balanced design all weights are equal.
- The degrees of freedom of t are the effective number of groups, 1 / Σ w_group², minus one (Kish, Survey Sampling,
  1965), of listeners or of prompts, whichever is smaller.
- Correlations are drawn towards 0.05 when few answers differ from the rest, so nothing jumps when all agree.
- The interval is never shorter than Wilson's (JASA 22, 1927) of as many independent answers.
Conventions: arrays have shape (studies, answers); weights sum to one; one study is an array with one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Ints = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Tail = Literal["two-sided", "greater", "less"]
LEVEL = 0.05
Z = float(stats.norm.ppf(1 - LEVEL / 2))
USUAL_CORRELATION = 0.05
LEAST_FOR_WEIGHTS = 0.15
# As many answers that differ from the rest count half as much as the usual correlation.
HALF_TRUSTED = 6.0
# Below this share of unevenness (0: all prompts have as many answers), the least correlation is for weights only.
UNEVEN = 0.3


class Grouping:
    """Answers grouped by code (shape (n,)): sums by group, shape (studies, groups)."""

    def __init__(self, codes: Ints) -> None:
        found, self.of = np.unique(codes, return_inverse=True)
        self.count = len(found)
        self._sorted = bool((np.diff(self.of) >= 0).all())
        self._order = np.argsort(self.of, kind="stable")
        self._starts = np.searchsorted(self.of[self._order], np.arange(self.count))

    def sums(self, values: Floats) -> Floats:
        if self.count == values.shape[1] and self._sorted:
            return values
        ordered = values if self._sorted else values[:, self._order]
        return np.asarray(np.add.reduceat(ordered, self._starts, axis=1))


@dataclass(frozen=True)
class PairedAnswers:
    """The layout of one cell: listeners, prompts, listener-and-prompt combinations, and bin pairs of its answers."""

    listener: Grouping
    prompt: Grouping
    both: Grouping
    pair: Grouping
    size: int


def lay_out(listener: Ints, prompt: Ints, pair: Ints | None = None) -> PairedAnswers:
    """The layout of answers with these codes, each shape (n,); without `pair` all are of one bin pair."""
    both = np.unique(listener, return_inverse=True)[1] * (int(prompt.max()) + 1) + prompt
    pairs = np.zeros(len(listener), np.intp) if pair is None else pair
    return PairedAnswers(Grouping(listener), Grouping(prompt), Grouping(both), Grouping(pairs), len(listener))


@dataclass(frozen=True)
class Precision:
    """By study: the weighted rate, its number of independent answers, degrees of freedom, and both correlations.

    `unevenness` is 0 where all prompts have as many answers and near 1 where one has nearly all. A correlation is NaN
    where no two answers share the group. The weighted rate is not the pooled one if prompts have unequal numbers of
    answers; then the interval is extended to the pooled rate, and nothing is significant between the two.
    """

    rate: Floats
    pooled: Floats
    worth: Floats
    df: Floats
    rho_listener: Floats
    rho_prompt: Floats
    unevenness: Floats

    def interval(self, level: float = LEVEL) -> tuple[Floats, Floats]:
        """Wilson's interval with Student's quantile, within [0, 1]."""
        low, high = wilson(self.rate, self.worth, stats.t.ppf(1 - level / 2, self.df))
        return np.minimum(low, self.pooled), np.maximum(high, self.pooled)

    def p_value(self, against: float, tail: Tail = "two-sided") -> Floats:
        """The score test that the rate is `against`; two-sided, it rejects where the interval excludes `against`."""
        t = (self.rate - against) / np.sqrt(against * (1 - against) / self.worth)
        tails = {"greater": stats.t.sf(t, self.df), "less": stats.t.cdf(t, self.df)}
        p = tails[tail] if tail in tails else 2 * stats.t.sf(np.abs(t), self.df)
        between = (self.pooled - against) * (self.rate - against) < 0
        return np.where(between, np.maximum(p, 0.5), p)


def wilson(rate: npt.ArrayLike, n: npt.ArrayLike, quantile: npt.ArrayLike = Z) -> tuple[Floats, Floats]:
    """Wilson's interval (JASA 22, 1927) of rates from `n` answers each, any shape; both ends within [0, 1].

    Args:
        quantile: of the standard normal or Student's distribution; default: for 95 %.
    """
    rate, n, q = (np.asarray(value, np.float64) for value in (rate, n, quantile))
    middle = (rate + q**2 / (2 * n)) / (1 + q**2 / n)
    half = q / (1 + q**2 / n) * np.sqrt(np.maximum(rate * (1 - rate), 0) / n + (q / (2 * n)) ** 2)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


@dataclass(frozen=True)
class _Sizes:
    """One grouping: numbers of answers by group, (studies or 1, groups), also for each bin pair; 1 / total, or 0."""

    group: Grouping
    total: Floats
    by_pair: list[Floats]
    inverse: Floats

    @classmethod
    def of(cls, group: Grouping, there: Floats, masks: list[Floats]) -> _Sizes:
        total = group.sums(there)
        inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
        by_pair = [group.sums(mask) for mask in masks] if len(masks) > 1 else [total]
        return cls(group, total, by_pair, inverse)


def precision(agreed: npt.NDArray[np.float64], layout: PairedAnswers, present: Bools | None = None) -> Precision:
    """The precision of the rate in each study.

    Args:
        agreed: 0 or 1, shape (studies, answers).
        present: which answers there are, the same shape; None: all. Every study needs one.
    """
    there = np.ones((1, layout.size)) if present is None else present.astype(np.float64)
    y = agreed * there
    n = there.sum(axis=1)
    pairs = range(layout.pair.count)
    in_pair = layout.pair.sums(there)
    means = np.divide(layout.pair.sums(y), in_pair, out=np.zeros((len(y), len(pairs))), where=in_pair > 0)
    residual = (y - means[:, layout.pair.of]) * there
    spread = (in_pair * means * (1 - means)).sum(axis=1) / n
    differing = (in_pair * np.minimum(means, 1 - means)).sum(axis=1)
    masks = [there * (layout.pair.of == q) for q in pairs] if len(pairs) > 1 else [there]
    groups = (layout.listener, layout.prompt)
    sizes = [_Sizes.of(group, there, masks) for group in groups]
    rho_l, rho_p = _correlations(residual, spread, layout.both, sizes, there, in_pair)
    identified = [size.total.max() > 1 and group.count > 1 for size, group in zip(sizes, groups, strict=True)]
    trust = differing / (differing + HALF_TRUSTED)
    used = [
        np.clip(trust * rho + (1 - trust) * USUAL_CORRELATION, -1, 1) if known else np.zeros_like(rho)
        for rho, known in zip((rho_l, rho_p), identified, strict=True)
    ]
    of_prompt = sizes[1].total
    uneven = 1 - n**2 / ((of_prompt > 0).sum(axis=1) * (of_prompt**2).sum(axis=1))
    for_weights = np.maximum(used[1], LEAST_FOR_WEIGHTS) if identified[1] else np.zeros_like(used[1])
    by_prompt = 1 / (1 + np.maximum(of_prompt - 1, 0) * for_weights[:, None])
    weights = by_prompt[:, layout.prompt.of] * there
    weights = weights / weights.sum(axis=1, keepdims=True)
    rate = (weights * y).sum(axis=1)
    squared = (weights**2).sum(axis=1)
    shares = [(group.sums(weights) ** 2).sum(axis=1) for group in groups]
    least = np.where(uneven > UNEVEN, LEAST_FOR_WEIGHTS * uneven, -1.0) if identified[1] else -1.0
    factor = squared + used[0] * (shares[0] - squared) + np.maximum(used[1], least) * (shares[1] - squared)
    clusters = [1 / share for share, group in zip(shares, groups, strict=True) if group.count > 1]
    df = np.maximum(np.min(clusters, axis=0) - 1, 1.0) if clusters else np.maximum(n - 1, 1.0) + 0 * rate
    factor = np.maximum(factor, squared * (Z / stats.t.ppf(1 - LEVEL / 2, df)) ** 2)
    # Over several bin pairs, answers vary less within pairs than around the common rate.
    within = (rate * (1 - rate) + 0.5 / n) / (spread + 0.5 / n) if len(pairs) > 1 else 1.0
    shown = [rho if known else np.full_like(rho, np.nan) for rho, known in zip((rho_l, rho_p), identified, strict=True)]
    return Precision(rate, y.sum(axis=1) / n, within / factor, df, shown[0], shown[1], uneven + 0 * rate)


def _correlations(
    residual: Floats, spread: Floats, both: Grouping, sizes: list[_Sizes], there: Floats, in_pair: Floats
) -> tuple[Floats, Floats]:
    """rho_L and rho_P: the solution of two linear equations, in units of the variance of one answer."""
    n = there.sum(axis=1)
    per_pair = np.divide(1.0, in_pair, out=np.zeros_like(in_pair), where=in_pair > 0)
    found = [(size.group.sums(residual) ** 2 * size.inverse).sum(axis=1) for size in sizes]
    centred = [sum(per_pair[:, q, None] * one**2 for q, one in enumerate(size.by_pair)) for size in sizes]
    total = [(size.total - mean).sum(axis=1) for size, mean in zip(sizes, centred, strict=True)]
    noise = [((size.total - mean) * size.inverse).sum(axis=1) for size, mean in zip(sizes, centred, strict=True)]
    own = [
        (size.total - 2 * mean).sum(axis=1) + _of_means(size, size, per_pair) - alone
        for size, mean, alone in zip(sizes, centred, noise, strict=True)
    ]
    cross = [_cross(sizes[i], sizes[1 - i], both, there, per_pair) - noise[i] for i in (0, 1)]
    free = n - (in_pair > 0).sum(axis=1)
    determinant = own[0] * own[1] - cross[0] * cross[1]
    solvable = (own[0] > 1e-9) & (own[1] > 1e-9) & (determinant > 1e-9 * np.abs(own[0] * own[1]))
    safe = np.where(solvable, determinant, 1.0)
    rho = [np.zeros(len(residual)), np.zeros(len(residual))]
    for _ in range(3):
        # Residuals vary less than answers, because the mean of each pair is estimated.
        scale = free + sum(np.clip(r, 0, 1) * (t - free) for r, t in zip(rho, total, strict=True))
        variance = np.maximum(spread * n / np.maximum(scale, 0.5 * n), 1e-12)
        excess = [value / variance - alone for value, alone in zip(found, noise, strict=True)]
        rho = [
            np.where(
                solvable,
                (excess[i] * own[1 - i] - excess[1 - i] * cross[i]) / safe,
                np.where(own[i] > 1e-9, excess[i] / np.maximum(own[i], 1e-9), 0.0),
            )
            for i in (0, 1)
        ]
    return rho[0], rho[1]


def _of_means(one: _Sizes, two: _Sizes, per_pair: Floats) -> Floats:
    """The part of an expectation that two estimated means have in common."""
    found = np.zeros(len(per_pair))
    for q, (a, b) in enumerate(zip(one.by_pair, two.by_pair, strict=True)):
        for r, (c, d) in enumerate(zip(one.by_pair, two.by_pair, strict=True)):
            weighted = (a * c * one.inverse).sum(axis=1) * (b * d).sum(axis=1)
            found = found + weighted * per_pair[:, q] * per_pair[:, r]
    return found


def _cross(one: _Sizes, two: _Sizes, both: Grouping, there: Floats, per_pair: Floats) -> Floats:
    """The expected sum of one grouping's squares per unit of variance between the groups of the other."""
    inverse = one.inverse[:, one.group.of]
    shared = both.sums(there)[:, both.of]
    for q, (a, b) in enumerate(zip(one.by_pair, two.by_pair, strict=True)):
        shared = shared - 2 * per_pair[:, q, None] * a[:, one.group.of] * b[:, two.group.of]
    return np.asarray((there * inverse * shared).sum(axis=1)) + _of_means(one, two, per_pair)
