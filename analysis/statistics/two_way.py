"""Dependence: the precision of pooled agreement when answers share listeners and prompts.

The variance of a rate is clustered on both groupings (Cameron, Gelbach and Miller, Journal of Business and Economic
Statistics 29, 2011): the variance clustered on listeners, plus that clustered on prompts, minus that of single answers,
each multiplied by its G / (G - 1). It gives the effective number of answers, p (1 - p) / variance, and from that
Wilson's interval with a t quantile of G - 1 degrees of freedom, where G is the number of listeners or prompts,
whichever is smaller. The test uses the same with the variance at chance. The interval is never shorter than Wilson's
for as many independent answers. docs/decisions/0005-dependence.md explains the choice.
Conventions: the estimated rate is that of other listeners and other prompts from the same populations; rates are in
[0, 1]; listeners and prompts are identified by their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse, stats

from analysis.responses.load import numbered
from analysis.statistics.agreement import CHANCE, Alternative, exact_binomial
from analysis.statistics.multiple_testing import holm
from study.design.bin_pairs import BIN_PAIRS, BINS

Ints = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
LEVEL = 0.05
Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Dependence:
    """One pooled rate, and its precision for other listeners and prompts.

    `n_effective` is the number of independent answers with the same information; `icc_listener` and `icc_prompt` are
    the correlations of two answers by one listener (on different prompts) and on one prompt (by different listeners),
    None if no two answers share one. `fallback` says in words if the data required another method.
    """

    label: str
    agreed: int
    n: int
    listeners: int
    prompts: int
    rate: float
    ci_low: float
    ci_high: float
    p: float
    df: int
    n_effective: float
    icc_listener: float | None
    icc_prompt: float | None
    pooled_p: float
    alternative: Alternative = "two-sided"
    p_holm: float | None = None
    pooled_p_holm: float | None = None
    fallback: str = ""

    @property
    def design_effect(self) -> float:
        return self.n / self.n_effective

    @property
    def survives(self) -> bool | None:
        """Whether a significant pooled result is significant here too; None if the pooled result is not significant."""
        pooled = self.pooled_p if self.pooled_p_holm is None else self.pooled_p_holm
        own = self.p if self.p_holm is None else self.p_holm
        return None if pooled >= LEVEL else own < LEVEL


def dependence(frame: pd.DataFrame, label: str = "all", alternative: Alternative = "two-sided") -> Dependence:
    """Agreement in `frame` (columns agreed, listener, prompt), with listeners and prompts as random.

    Raises:
        ValueError: if `frame` is empty.
    """
    if frame.empty:
        raise ValueError("dependence needs at least one response")
    return _of(*_coded(frame), label, alternative)


def dependence_table(frame: pd.DataFrame, alternative: Alternative = "two-sided") -> dict[str, tuple[Dependence, ...]]:
    """By embedder: every bin pair with responses (Holm's correction over these), every row and all trials."""
    found = {}
    for name in sorted(map(str, frame["embedder"].unique()), key=lambda name: (name.casefold(), name)):
        own = frame[frame["embedder"] == name]
        y, listener, prompt = _coded(own)
        high, low = own["bin_high"].to_numpy(), own["bin_low"].to_numpy()
        pairs = {f"{h}–{w}": (high == h) & (low == w) for h, w in BIN_PAIRS}
        totals = {f"{h}, total": high == h for h in BINS[:-1]} | {"all": np.ones(len(own), bool)}
        cells = [_of(y[m], listener[m], prompt[m], label, alternative) for label, m in pairs.items() if m.any()]
        corrected, pooled = holm([cell.p for cell in cells]), holm([cell.pooled_p for cell in cells])
        cells = [replace(cell, p_holm=p, pooled_p_holm=q) for cell, p, q in zip(cells, corrected, pooled, strict=True)]
        cells += [_of(y[m], listener[m], prompt[m], label, alternative) for label, m in totals.items() if m.any()]
        found[name] = tuple(cells)
    return found


def _coded(frame: pd.DataFrame) -> tuple[Floats, Ints, Ints]:
    return (
        frame["agreed"].to_numpy(float),
        numbered(frame["listener"]),
        numbered(frame["prompt"]),
    )


def _of(y: Floats, listener: Ints, prompt: Ints, label: str, alternative: Alternative) -> Dependence:
    n, agreed = len(y), int(y.sum())
    listeners, prompts = len(np.unique(listener)), len(np.unique(prompt))
    pooled = exact_binomial(agreed, n, alternative=alternative)
    plain = Dependence(
        label, agreed, n, listeners, prompts, pooled.rate, pooled.ci_low, pooled.ci_high, pooled.p, n - 1, float(n),
        None, None, pooled.p, alternative,
    )  # fmt: skip
    if min(listeners, prompts) == 1:
        return _with_one(plain, y, listener, prompt)
    if agreed in (0, n):
        return _unanimous(plain, min(listeners, prompts))
    variance = two_way_variance(y, listener, prompt)
    iccs = [correlation(y, listener, prompt, variance), correlation(y, prompt, listener, variance)]
    return _from_variance(plain, variance, min(listeners, prompts) - 1, iccs)


def _from_variance(plain: Dependence, variance: float, df: int, iccs: list[float | None]) -> Dependence:
    quantile = float(stats.t.ppf(0.975, df))
    worth = plain.rate * (1 - plain.rate) / variance
    # Never shorter than Wilson's for independent answers: a smaller variance would be due to chance.
    effective = min(worth, plain.n * (quantile / Z) ** 2)
    low, high = wilson_t(plain.rate, effective, df)
    t = (plain.rate - CHANCE) / np.sqrt(CHANCE * (1 - CHANCE) / effective)
    tails = {"greater": stats.t.sf(t, df), "less": stats.t.cdf(t, df), "two-sided": 2 * stats.t.sf(abs(t), df)}
    return replace(
        plain, ci_low=low, ci_high=high, p=float(tails[plain.alternative]), df=df,
        n_effective=float(min(worth, plain.n)), icc_listener=iccs[0], icc_prompt=iccs[1],
    )  # fmt: skip


def _unanimous(plain: Dependence, groups: int) -> Dependence:
    """All or none agreed: nothing varies, so each listener or prompt (whichever are fewer) counts as one answer."""
    all_or_none = exact_binomial(groups if plain.agreed else 0, groups, alternative=plain.alternative)
    note = (
        f"All {plain.n} answers are the same, so their dependence cannot be estimated; the interval is the exact one "
        f"for {groups} answers, one per listener or per prompt (whichever are fewer)."
    )
    return replace(
        plain, ci_low=all_or_none.ci_low, ci_high=all_or_none.ci_high, p=all_or_none.p, df=groups - 1,
        n_effective=float(groups), fallback=note,
    )  # fmt: skip


def _with_one(plain: Dependence, y: Floats, listener: Ints, prompt: Ints) -> Dependence:
    """There is one listener or one prompt: the result generalises only over the other."""
    alone = "listener" if plain.listeners == 1 else "prompt"
    groups = prompt if alone == "listener" else listener
    other, count = ("prompts", plain.prompts) if alone == "listener" else ("listeners", plain.listeners)
    if count == 1:
        return replace(
            plain, fallback="There is one listener and one prompt, so the result does not generalise to others."
        )
    note = f"There is only one {alone}: the interval is about other {other}, not about other {alone}s."
    if plain.agreed in (0, plain.n):
        cautious = _unanimous(plain, count)
        return replace(cautious, fallback=f"{note} {cautious.fallback}")
    variance = _clustered(y - y.mean(), groups)
    return replace(_from_variance(plain, variance, count - 1, [None, None]), fallback=note)


def two_way_variance(y: Floats, listener: Ints, prompt: Ints) -> float:
    """Variance of the mean of `y` with errors that share listeners and prompts (each code, shape (n,))."""
    residual = y - y.mean()
    by_listener, by_prompt = _clustered(residual, listener), _clustered(residual, prompt)
    single = _clustered(residual, np.arange(len(y)))
    # In small samples the difference can be zero or negative, which is impossible in a population.
    return max(by_listener + by_prompt - single, single / 4)


def difference_influence(y: Floats, first: npt.NDArray[np.bool_]) -> Floats:
    """The influence of each answer on the mean of `y` where `first` is true minus the mean elsewhere, shape (n,).

    The variance of the difference is the variance of their mean (`two_way_variance`).
    """
    one, two = y[first].mean(), y[~first].mean()
    influence: Floats = len(y) * np.where(first, (y - one) / first.sum(), -(y - two) / (~first).sum())
    return influence


def _clustered(residual: Floats, groups: Ints) -> float:
    sums = np.bincount(groups, residual)
    count = np.count_nonzero(np.bincount(groups))
    return float((sums**2).sum() / len(residual) ** 2 * count / (count - 1))


def correlation(y: Floats, groups: Ints, others: Ints, variance: float) -> float | None:
    """Correlation of two answers of one group that differ in the other grouping; None if there is no such pair.

    `variance` is the variance of the mean of `y`, which corrects the products of residuals.
    """
    residual = y - y.mean()
    size = int(others.max()) + 1
    within = groups.astype(np.int64) * size + others
    _, cells = np.unique(within, return_inverse=True)
    pairs = float((np.bincount(groups).astype(float) ** 2).sum() - (np.bincount(cells).astype(float) ** 2).sum())
    if pairs <= 0:
        return None
    products = (np.bincount(groups, residual) ** 2).sum() - (np.bincount(cells, residual) ** 2).sum()
    spread = float(y.mean() * (1 - y.mean()))
    return float(np.clip((products / pairs + variance) / spread, -1, 1))


def wilson_t(rate: float, effective: float, df: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate from `effective` answers, with Student's quantile of `df` degrees of freedom."""
    low, high = wilson(rate, effective, float(stats.t.ppf(0.975, df)))
    return float(low), float(high)


def wilson(rate: ArrayLike, n: ArrayLike, quantile: float = Z) -> tuple[Floats, Floats]:
    """Wilson's interval (JASA 22, 1927) of rates from `n` answers each, any shape; both ends within [0, 1].

    Args:
        quantile: of the standard normal or Student's distribution; default: for 95 %.
    """
    rate, n = np.asarray(rate, np.float64), np.asarray(n, np.float64)
    middle = (rate + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * np.sqrt(rate * (1 - rate) / n + (quantile / (2 * n)) ** 2)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def two_way_bootstrap(frame: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> Mapping[str, tuple[float, float]]:
    """Percentile 95 % intervals of the rate, resampling listeners, prompts, and both at once.

    "both" draws listeners and prompts with replacement and weights each answer by the product (Owen, Annals of Applied
    Statistics 1, 2007). It counts the noise of single answers up to three times, so it is too wide if nothing else
    varies; it is only a check.
    """
    y, listener, prompt = _coded(frame)
    shape = (int(listener.max()) + 1, int(prompt.max()) + 1)
    agreed = sparse.csr_matrix((y, (listener, prompt)), shape)
    total = sparse.csr_matrix((np.ones(len(y)), (listener, prompt)), shape)
    rng = np.random.default_rng(seed)
    rates: dict[str, list[Floats]] = {"listeners": [], "prompts": [], "both": []}
    # In batches, to limit the memory for the weights.
    step = max(1, min(resamples, 4_000_000 // max(shape)))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        by_listener = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), count).astype(float)
        by_prompt = rng.multinomial(shape[1], np.full(shape[1], 1 / shape[1]), count).astype(float)
        over, under = by_listener @ agreed, by_listener @ total
        rates["listeners"].append(over.sum(axis=1) / under.sum(axis=1))
        rates["prompts"].append(by_prompt @ agreed.sum(axis=0).A1 / (by_prompt @ total.sum(axis=0).A1))
        weights = (under * by_prompt).sum(axis=1)
        # A draw may have no answer if few listeners and prompts occur together.
        rates["both"].append(((over * by_prompt).sum(axis=1) / np.where(weights > 0, weights, np.nan))[weights > 0])
    return {name: _percentiles(np.concatenate(found)) for name, found in rates.items()}


def _percentiles(rates: Floats) -> tuple[float, float]:
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def item_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Agreement per embedder and prompt: columns embedder, prompt, agreed, n, listeners, rate, low, high (Wilson)."""
    grouped = frame.groupby(["embedder", "prompt"], observed=True)
    rows = grouped.agg(agreed=("agreed", "sum"), n=("agreed", "count"), listeners=("listener", "nunique")).reset_index()
    rate = rows["agreed"] / rows["n"]
    low, high = wilson(rate, rows["n"])
    rows = rows.assign(rate=rate, low=low, high=high)
    return rows.sort_values(["embedder", "rate", "prompt"]).reset_index(drop=True)


def describe_dependence(cell: Dependence) -> str:
    """One sentence: does the pooled result remain significant with listeners and prompts as random effects?"""
    side = "more" if cell.rate > CHANCE else "less"
    corrected = "" if cell.p_holm is None else " after Holm’s correction"
    if cell.survives is None:
        nothing = {"greater": "no more agreement than chance", "less": "no less agreement than chance"}
        return f"The pooled test finds {nothing.get(cell.alternative, 'no difference from chance')}{corrected}."
    found = f"The pooled test finds {side} agreement than chance{corrected}"
    if cell.survives:
        return f"{found}; this remains significant with listeners and prompts as random effects."
    return (
        f"{found}; this does not remain significant with listeners and prompts as random effects, so it is evidence "
        "about these listeners and prompts only."
    )
