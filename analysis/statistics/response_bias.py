"""Biases: effects of side, position and response time on the answers, and of the prescreen on agreement.

Conventions: rates have Clopper and Pearson's 95 % interval; p-values allow for listeners: a side and the prescreen are
tested with listeners and prompts as random, order and times within listeners; times are in seconds; a part is None if
the file lacks the data for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.statistics.agreement import BinomialTest, exact_binomial
from analysis.statistics.comparison import two_way_difference
from analysis.statistics.two_way import dependence, difference_influence, two_way_variance
from study.design.bin_pairs import BIN_PAIRS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SideBias:
    """How often side A is chosen if the more similar clip is on both sides equally often, and its p against one half.

    `agreed_a` and `agreed_b` are the rates of agreement with the more similar clip on side A and on side B. They are
    None if the file does not have the side; then the share is that of all answers.
    """

    n: int
    rate: float
    ci_low: float
    ci_high: float
    p: float
    agreed_a: float | None = None
    agreed_b: float | None = None


@dataclass(frozen=True)
class OrderBias:
    """Agreement by position: the first and second half of the positions, p of their difference, and of a trend."""

    first: BinomialTest
    second: BinomialTest
    p: float
    trend_p: float
    positions: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class ResponseTimes:
    """Seconds from the display of the page to the answer: quantiles at 5, 25, 50, 75 and 95 %, medians, a test."""

    quantiles: tuple[float, ...]
    agreed_median: float | None
    other_median: float | None
    p: float | None
    by_pair: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class PrescreenEffect:
    """Agreement of listeners who passed the prescreen, and of those who failed but continued."""

    passed: BinomialTest
    failed: BinomialTest
    p: float


def side_bias(frame: pd.DataFrame) -> SideBias | None:
    """The share of side A, tested against one half with listeners and prompts as random.

    If sides are not balanced, agreement alone looks like a preference for the side that has the more similar clip more
    often. So the share is the mean of the shares with that clip on side A and on side B; the bias is half of the
    difference of agreement between the two, with the two-way variance of its linear approximation.
    """
    if "choice" not in frame:
        return None
    chosen = (frame["choice"] == "A").to_numpy().astype(int)
    plain = dependence(frame[["listener", "prompt"]].assign(agreed=chosen), "side A")
    raw = SideBias(plain.n, plain.rate, plain.ci_low, plain.ci_high, plain.p)
    if "high_side" not in frame:
        return raw
    agreed, on_a = frame["agreed"].to_numpy(float), (frame["high_side"] == "A").to_numpy()
    few = min(frame["listener"].nunique(), frame["prompt"].nunique())
    if on_a.all() or not on_a.any() or few < 2 or agreed.min() == agreed.max():
        return raw
    one, two = float(agreed[on_a].mean()), float(agreed[~on_a].mean())
    codes = [pd.factorize(frame[name])[0].astype(np.intp) for name in ("listener", "prompt")]
    error = math.sqrt(two_way_variance(difference_influence(agreed, on_a), *codes)) / 2
    share, reach = 0.5 + (one - two) / 2, float(stats.t.ppf(0.975, few - 1)) * error
    p = float(2 * stats.t.sf(abs(one - two) / 2 / error, few - 1)) if error else 1.0
    return SideBias(len(agreed), share, max(0.0, share - reach), min(1.0, share + reach), p, one, two)


def order_bias(frame: pd.DataFrame) -> OrderBias | None:
    """Agreement in the first and second half, and a trend over positions; both tests are within listeners."""
    if "position" not in frame:
        return None
    position = pd.to_numeric(frame["position"].astype(str), errors="coerce").to_numpy(float)
    agreed = frame["agreed"].to_numpy(float)[np.isfinite(position)]
    position = position[np.isfinite(position)]
    if len(np.unique(position)) < 2:
        return None
    late = position > (position.min() + position.max()) / 2
    halves = [exact_binomial(int(agreed[part].sum()), int(part.sum())) for part in (~late, late)]
    numbers, index = np.unique(position, return_inverse=True)
    k, n = (np.bincount(index, weight).astype(np.float64) for weight in (agreed, np.ones(len(agreed))))
    listener, residual = pd.factorize(frame["listener"])[0].astype(np.intp), _without_pairs(frame, agreed)
    return OrderBias(
        first=halves[0],
        second=halves[1],
        p=within_listeners(late.astype(np.float64), residual, listener),
        trend_p=within_listeners(position.astype(np.float64), residual, listener),
        positions=tuple((int(where), int(a), int(b)) for where, a, b in zip(numbers, k, n, strict=True)),
    )


def _without_pairs(frame: pd.DataFrame, agreed: Floats) -> Floats:
    """Agreement minus the mean of the answer's bin pair (and embedder)."""
    keys = [name for name in ("embedder", "bin_high", "bin_low") if name in frame]
    means = frame.assign(_agreed=agreed).groupby(keys, observed=True)["_agreed"].transform("mean")
    return np.asarray(agreed - means.to_numpy(float))


def within_listeners(score: Floats, value: Floats, listener: Ints) -> float:
    """Two-sided p that `value` does not change with `score` within listeners (each shape (n,)).

    Each listener gives one number, the sum of products of both, centred on the listener's own mean score; their mean is
    tested against 0 with Student's t. So answers of one listener count as one observation. 1 if nothing varies.
    """
    count = np.bincount(listener)
    centred = score - (np.bincount(listener, score) / np.maximum(count, 1))[listener]
    sums = np.bincount(listener, centred * value)[count > 1]
    sums = sums[np.bincount(listener, centred**2)[count > 1] > 0]
    error = float(sums.std(ddof=1) / np.sqrt(len(sums))) if len(sums) > 1 else 0.0
    if error == 0:
        return 1.0
    return float(2 * stats.t.sf(abs(float(sums.mean())) / error, len(sums) - 1))


def response_times(frame: pd.DataFrame) -> ResponseTimes | None:
    """Quantiles and medians; p that agreeing and other answers take equally long, within listeners (log times)."""
    if "response_ms" not in frame:
        return None
    known = frame[frame["response_ms"].notna() & (frame["response_ms"] > 0)]
    if known.empty:
        return None
    seconds = known["response_ms"].to_numpy(float) / 1000
    agreed = known["agreed"].to_numpy() == 1
    both = agreed.any() and not agreed.all()
    listener = pd.factorize(known["listener"])[0].astype(np.intp)
    high, low = known["bin_high"].to_numpy(), known["bin_low"].to_numpy()
    cells = [(f"{h}–{w}", seconds[(high == h) & (low == w)]) for h, w in BIN_PAIRS]
    return ResponseTimes(
        quantiles=tuple(float(q) for q in np.quantile(seconds, [0.05, 0.25, 0.5, 0.75, 0.95])),
        agreed_median=float(np.median(seconds[agreed])) if agreed.any() else None,
        other_median=float(np.median(seconds[~agreed])) if not agreed.all() else None,
        p=within_listeners(np.log(seconds), _without_pairs(known, agreed.astype(np.float64)), listener)
        if both
        else None,
        by_pair=tuple((label, float(np.median(own))) for label, own in cells if len(own)),
    )


def prescreen_effect(everything: pd.DataFrame) -> PrescreenEffect | None:
    """Agreement in scored trials by prescreen result, with listeners and prompts as random; None if nobody continued
    after failing it."""
    if "passed_prescreen" not in everything:
        return None
    rows = everything[everything["kind"] == "scored"] if "kind" in everything else everything
    passed = rows["passed_prescreen"].to_numpy() == 1
    if passed.all() or not passed.any():
        return None
    agreed = rows["agreed"].to_numpy(float)
    one, two = (exact_binomial(int(agreed[part].sum()), int(part.sum())) for part in (passed, ~passed))
    listener, prompt = (pd.factorize(rows[name])[0].astype(np.intp) for name in ("listener", "prompt"))
    found = two_way_difference(agreed, passed, listener, prompt)
    return PrescreenEffect(one, two, 1.0 if found is None else found.p)
