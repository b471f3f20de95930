"""Dependence: the precision of agreement when answers share listeners and prompts.

Intervals and tests are about other listeners and other prompts from the same populations. How the precision is
estimated: analysis.statistics.two_way_variance; why: docs/decisions/0020-primary-test.md.
Conventions: rates are in [0, 1]; listeners and prompts are identified by their text; a total that has the same answers
as a bin pair is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from analysis.responses.load import numbered
from analysis.statistics.agreement import CHANCE, Alternative, exact_binomial
from analysis.statistics.multiple_testing import holm
from analysis.statistics.two_way_variance import LEVEL, Floats, Ints, Precision, lay_out, precision, wilson
from study.design.bin_pairs import BIN_PAIRS, BINS


@dataclass(frozen=True)
class Dependence:
    """One rate, and its precision for other listeners and prompts.

    `rate` is pooled; `estimate`, at the centre of the interval, weighs an answer on a prompt with many answers less,
    and is the same in a balanced design. `n_effective` is the number of independent answers with the same information.
    `icc_listener` and `icc_prompt` are the correlations of two answers by one listener and on one prompt, None if no
    two answers share one or all answers are the same. `uneven` says how unequal the prompts' numbers of answers are (0
    to 1). `fallback` says in words if the data required another method.
    """

    label: str
    agreed: int
    n: int
    listeners: int
    prompts: int
    rate: float
    estimate: float
    ci_low: float
    ci_high: float
    p: float
    df: float
    n_effective: float
    icc_listener: float | None
    icc_prompt: float | None
    uneven: float
    pooled_p: float
    alternative: Alternative = "two-sided"
    p_holm: float | None = None
    pooled_p_holm: float | None = None
    fallback: str = ""

    @property
    def design_effect(self) -> float:
        return self.n / self.n_effective


def dependence(frame: pd.DataFrame, label: str = "all", alternative: Alternative = "two-sided") -> Dependence:
    """Agreement in `frame` (columns agreed, listener, prompt), with listeners and prompts as random.

    If there are columns bin_high and bin_low, residuals are centred by bin pair.

    Raises:
        ValueError: if `frame` is empty.
    """
    if frame.empty:
        raise ValueError("dependence needs at least one response")
    pair = pair_codes(frame) if {"bin_high", "bin_low"} <= set(frame.columns) else np.zeros(len(frame), np.intp)
    return _of(*_coded(frame), pair, label, alternative)


def dependence_table(frame: pd.DataFrame, alternative: Alternative = "two-sided") -> dict[str, tuple[Dependence, ...]]:
    """By embedder: every bin pair with responses (Holm's correction over these), totals of several pairs, and all.

    Totals are descriptive: they are not corrected, and a total with the answers of a single pair is left out.
    """
    found = {}
    for name in sorted(map(str, frame["embedder"].unique()), key=lambda name: (name.casefold(), name)):
        own = frame[frame["embedder"] == name]
        y, listener, prompt = _coded(own)
        pair = pair_codes(own)
        present = [code for code in range(len(BIN_PAIRS)) if (pair == code).any()]
        masks = {f"{h}–{w}": pair == code for code, (h, w) in enumerate(BIN_PAIRS) if code in present}
        cells = [_of(y[m], listener[m], prompt[m], pair[m], label, alternative) for label, m in masks.items()]
        corrected, pooled = holm([cell.p for cell in cells]), holm([cell.pooled_p for cell in cells])
        cells = [replace(cell, p_holm=p, pooled_p_holm=q) for cell, p, q in zip(cells, corrected, pooled, strict=True)]
        rows = {f"{h}, total": [c for c in present if BIN_PAIRS[c][0] == h] for h in BINS[:-1]}
        everything = {"all": present} if len(present) > 1 or not cells else {}
        for label, codes in {**rows, **everything}.items():
            if len(codes) > 1 and not (label != "all" and len(codes) == len(present)):
                m = np.isin(pair, codes)
                cells.append(_of(y[m], listener[m], prompt[m], pair[m], label, alternative))
        found[name] = tuple(cells)
    return found


def pair_codes(frame: pd.DataFrame) -> Ints:
    """The place of each answer's bin pair in BIN_PAIRS."""
    code = np.full(1000, 0, np.intp)
    for place, (high, low) in enumerate(BIN_PAIRS):
        code[high * 10 + low] = place
    return np.asarray(code[frame["bin_high"].to_numpy(np.intp) * 10 + frame["bin_low"].to_numpy(np.intp)])


def _coded(frame: pd.DataFrame) -> tuple[Floats, Ints, Ints]:
    return (
        frame["agreed"].to_numpy(float),
        numbered(frame["listener"]),
        numbered(frame["prompt"]),
    )


def _of(y: Floats, listener: Ints, prompt: Ints, pair: Ints, label: str, alternative: Alternative) -> Dependence:
    n, agreed = len(y), int(y.sum())
    listeners, prompts = len(np.unique(listener)), len(np.unique(prompt))
    pooled = exact_binomial(agreed, n, alternative=alternative)
    plain = Dependence(
        label, agreed, n, listeners, prompts, pooled.rate, pooled.rate, pooled.ci_low, pooled.ci_high, pooled.p, n - 1,
        float(n), None, None, 0.0, pooled.p, alternative,
    )  # fmt: skip
    found = precision(y[None, :], lay_out(listener, prompt, pair))
    return replace(_with_precision(plain, found), fallback=_fallback(plain))


def _with_precision(plain: Dependence, found: Precision) -> Dependence:
    low, high = found.interval()
    p = float(found.p_value(CHANCE, plain.alternative)[0])
    estimate = float(found.rate[0])
    unknown = plain.agreed in (0, plain.n)
    correlations = [None if unknown or np.isnan(rho[0]) else float(np.clip(rho[0], -1, 1)) for rho in (
        found.rho_listener, found.rho_prompt)]  # fmt: skip
    return replace(
        plain, estimate=estimate, ci_low=float(low[0]), ci_high=float(high[0]), p=p,
        df=float(found.df[0]), n_effective=float(min(found.worth[0], plain.n)), icc_listener=correlations[0],
        icc_prompt=correlations[1], uneven=float(found.unevenness[0]),
    )  # fmt: skip


def _fallback(cell: Dependence) -> str:
    notes = []
    if cell.listeners == 1 and cell.prompts == 1:
        notes.append("There is one listener and one prompt, so the result does not generalise to others.")
    elif min(cell.listeners, cell.prompts) == 1:
        alone, other = ("listener", "prompts") if cell.listeners == 1 else ("prompt", "listeners")
        notes.append(f"There is only one {alone}: the interval is about other {other}, not about other {alone}s.")
    if cell.agreed in (0, cell.n) and cell.n > 1:
        notes.append(
            "All answers are the same, so their dependence cannot be estimated; the interval assumes the usual one (a "
            "correlation of 0.05 between two answers of a listener, and of two on a prompt)."
        )
    return " ".join(notes)


def two_way_variance(y: Floats, listener: Ints, prompt: Ints) -> float:
    """Variance of the mean of `y` with errors that share listeners and prompts (each code, shape (n,)).

    Clustered on both (Cameron, Gelbach and Miller, Journal of Business and Economic Statistics 29, 2011), for values
    that are not 0 or 1, such as the influence of each answer on a difference of two rates.
    """
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
    return float((sums**2).sum() / len(residual) ** 2 * count / max(count - 1, 1))


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


def is_significant(p: float | None) -> bool:
    """Whether a p-value, corrected where the analysis corrects it, is below 5 %."""
    return p is not None and p < LEVEL
