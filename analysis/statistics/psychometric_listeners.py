"""A hierarchical psychometric curve: every listener has a scale of their own.

The curve of analysis.statistics.psychometric with scale exp(μ + τ z), where z is standard normal across listeners;
shape and lapse rate are shared. The likelihood integrates over z on an even grid of `NODES` points (the trapezoidal
rule, whose error falls exponentially for such integrands) and is maximised over μ, log shape, logit lapse and log τ.
A curve fitted to all answers together is an average over listeners and therefore flatter than that of any one listener
if listeners differ; the curve here for z = 0 is the typical listener's.
Intervals: standard errors are from the information matrix, or, where larger, from the variance of the scores summed by
listener and by prompt (Cameron, Gelbach and Miller, JBES 29, 2011), with Student's t.
Conventions: as in analysis.statistics.psychometric; `spread` is τ, so exp(1.96 τ) is the ratio of a high threshold to
the typical one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit, logit, logsumexp

from analysis.responses.load import numbered
from analysis.statistics.psychometric import FLAT, MOST_LAPSE, SHAPES, THRESHOLD, Curve

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
NODES = 81
MOST_ANSWERS = 15_000
SPREADS = (0.01, 3.0)
_Z = np.linspace(-5, 5, NODES)
_LOG_WEIGHTS = stats.norm.logpdf(_Z) + np.log(_Z[1] - _Z[0])


@dataclass(frozen=True)
class ListenerCurve:
    """The typical listener's curve of one embedder, and how much listeners differ.

    `rate`, `low` and `high` are at the differences of the pooled curve. `threshold` is the typical listener's, None if
    75 % are never reached; 95 % of listeners have thresholds from `listeners_low` to `listeners_high`. Intervals are
    None where the answers do not determine them; `notes` say why.
    """

    embedder: str
    scale: float
    shape: float
    lapse: float
    spread: float
    spread_low: float | None
    spread_high: float | None
    threshold: float | None
    threshold_low: float | None
    threshold_high: float | None
    listeners_low: float | None
    listeners_high: float | None
    rate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    listeners: int
    n: int
    log_likelihood: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CurveAnswers:
    """Answers as arrays of shape (n,): difference in similarity, 1 or 0, listener and prompt (numbers from 0)."""

    difference: Floats
    agreed: Floats
    listener: Ints
    prompt: Ints


def listener_curves(frame: pd.DataFrame, pooled: Sequence[Curve], seed: int = 0) -> list[ListenerCurve]:
    """The hierarchical curve for each pooled one that rises and has two listeners or more.

    Columns: embedder, listener, prompt, agreed, similarity_high, similarity_low.
    """
    found = []
    for curve in pooled:
        own = frame[(frame["embedder"] == curve.embedder) & frame["similarity_high"].notna()]
        own = own[own["similarity_low"].notna()]
        if FLAT not in curve.notes and own["listener"].nunique() > 1:
            found.append(_curve(own, curve, seed))
    return found


def _curve(frame: pd.DataFrame, pooled: Curve, seed: int) -> ListenerCurve:
    notes = []
    if len(frame) > MOST_ANSWERS:
        everyone = np.array(sorted(frame["listener"].unique(), key=str), dtype=object)
        most = max(2, int(MOST_ANSWERS / len(frame) * len(everyone)))
        drawn = np.random.default_rng([seed, 7]).choice(everyone, most, replace=False)
        frame = frame[frame["listener"].isin(list(drawn))]
        notes.append(f"It uses the answers of {most:,} of {len(everyone):,} listeners, drawn at random.")
    data = CurveAnswers(
        difference=(frame["similarity_high"] - frame["similarity_low"]).to_numpy(np.float64),
        agreed=frame["agreed"].to_numpy(np.float64),
        listener=np.asarray(numbered(frame["listener"]), np.intp),
        prompt=np.asarray(numbered(frame["prompt"]), np.intp),
    )
    start = _inward(pooled.scale, pooled.shape, pooled.lapse, 0.3)
    theta, value, free = maximise(data, start)
    covariance = _covariance(data, theta, free)
    sizes = (int(data.listener.max()) + 1, int(data.prompt.max()) + 1)
    reach = float(stats.t.ppf(0.975, max(min(size for size in sizes if size > 1) - 1, 1)))
    at = np.array(pooled.at)
    logits, logit_errors = _with_errors(lambda one: logit(_clip(typical_rate(at, one))), theta, covariance)
    scale, shape, lapse, spread = _outward(theta)
    threshold = _log_threshold(theta)
    low = high = ends = None
    if np.isfinite(threshold) and covariance is not None:
        error = float(_with_errors(lambda one: np.array([_log_threshold(one)]), theta, covariance)[1][0])
        low, high = float(np.exp(threshold - reach * error)), float(np.exp(threshold + reach * error))
    if np.isfinite(threshold) and spread > SPREADS[0] * 1.01:
        ends = [float(np.exp(threshold + sign * stats.norm.ppf(0.975) * spread)) for sign in (-1, 1)]
    spread_low = spread_high = None
    if spread <= SPREADS[0] * 1.01:
        notes.append("The likelihood is highest if listeners do not differ in scale.")
    elif covariance is not None and free[3]:
        error = float(np.sqrt(covariance[3, 3]))
        spread_low, spread_high = (float(spread * np.exp(sign * reach * error)) for sign in (-1, 1))
    notes += _boundary_notes(theta, free, covariance is None)
    return ListenerCurve(
        embedder=pooled.embedder,
        scale=scale,
        shape=shape,
        lapse=lapse,
        spread=spread,
        spread_low=spread_low,
        spread_high=spread_high,
        threshold=float(np.exp(threshold)) if np.isfinite(threshold) else None,
        threshold_low=_finite(low),
        threshold_high=_finite(high),
        listeners_low=_finite(ends[0]) if ends else None,
        listeners_high=_finite(ends[1]) if ends else None,
        rate=tuple(map(float, expit(logits))),
        low=tuple(map(float, expit(logits - reach * logit_errors))),
        high=tuple(map(float, expit(logits + reach * logit_errors))),
        listeners=sizes[0],
        n=len(frame),
        log_likelihood=value,
        notes=tuple(notes),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _clip(values: Floats) -> Floats:
    return np.clip(values, 1e-9, 1 - 1e-9)


def _inward(scale: float, shape: float, lapse: float, spread: float) -> Floats:
    share = np.clip(lapse / MOST_LAPSE, 1e-3, 1 - 1e-3)
    return np.array([np.log(scale), np.log(shape), logit(share), np.log(spread)])


def _outward(theta: Floats) -> tuple[float, float, float, float]:
    scale, shape, spread = np.exp(theta[[0, 1, 3]])
    return float(scale), float(shape), float(MOST_LAPSE * expit(theta[2])), float(spread)


def typical_rate(at: Floats, theta: Floats) -> Floats:
    """The curve for z = 0 at differences `at` (d,)."""
    scale, shape, lapse, _ = _outward(theta)
    return 0.5 - (0.5 - lapse) * np.sign(at) * np.expm1(-((np.abs(at) / scale) ** shape))


def _log_threshold(theta: Floats) -> float:
    """Log of the difference at which 75 % of a typical listener's answers agree; infinite if it is never reached."""
    scale, shape, lapse, _ = _outward(theta)
    share = (THRESHOLD - 0.5) / (0.5 - lapse)
    return float(np.log(scale) + np.log(-np.log1p(-share)) / shape) if share < 1 else np.inf


def scores(data: CurveAnswers, theta: Floats) -> tuple[float, Floats]:
    """The log-likelihood and the expected score of every answer, shape (n, 4); their sum is the gradient."""
    _, shape, lapse, spread = _outward(theta)
    size = np.log(np.maximum(np.abs(data.difference), 1e-12))
    distance = np.clip(shape * (size[:, None] - theta[0] - spread * _Z), -700, 6)
    power = np.exp(distance)
    fall = np.exp(-power)
    sign = np.sign(data.difference)[:, None]
    chance = np.clip(0.5 + (0.5 - lapse) * sign * (1 - fall), 1e-12, 1 - 1e-12)
    agreed = data.agreed[:, None]
    density = np.where(agreed == 1, np.log(chance), np.log1p(-chance))
    count = int(data.listener.max()) + 1
    joint = np.zeros((count, NODES))
    np.add.at(joint, data.listener, density)
    joint += _LOG_WEIGHTS
    by_listener = logsumexp(joint, axis=1)
    posterior = np.exp(joint - by_listener[:, None])[data.listener]
    weight = posterior * (agreed - chance) / (chance * (1 - chance))
    rise = weight * (0.5 - lapse) * sign * fall * power
    found = np.stack(
        [
            -shape * rise.sum(axis=1),
            (rise * distance).sum(axis=1),
            -(weight * sign * (1 - fall)).sum(axis=1) * lapse * (1 - lapse / MOST_LAPSE),
            -shape * spread * (rise * _Z).sum(axis=1),
        ],
        axis=1,
    )
    return float(by_listener.sum()), found


def maximise(data: CurveAnswers, start: Floats) -> tuple[Floats, float, npt.NDArray[np.bool_]]:
    """Maximum likelihood: the parameters, the log-likelihood, and which parameters are not at a limit."""
    span = float(np.abs(data.difference).max()) or 1.0
    low = np.array([np.log(span / 1000), np.log(SHAPES[0]), -7.0, np.log(SPREADS[0])])
    high = np.array([np.log(span * 100), np.log(SHAPES[1]), 7.0, np.log(SPREADS[1])])

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, by_answer = scores(data, theta)
        return -value, -by_answer.sum(axis=0)

    def climb(spread: float) -> Any:
        first = np.clip(np.append(start[:3], spread), low + 1e-6, high - 1e-6)
        return minimize(loss, first, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)))

    best = climb(float(start[3]))
    if best.x[3] < low[3] + 1e-3:  # no difference between listeners: also from a large one
        best = min(best, climb(0.0), key=lambda one: float(one.fun))
    theta = np.asarray(best.x, np.float64)
    return theta, -float(best.fun), (theta > low + 1e-3) & (theta < high - 1e-3)


def _covariance(data: CurveAnswers, theta: Floats, free: npt.NDArray[np.bool_]) -> Floats | None:
    """Of the free parameters, 0 for the others, shape (4, 4); None if the information matrix is not positive."""
    information = np.zeros((4, 4))
    for place in np.flatnonzero(free):
        step = np.zeros(4)
        step[place] = 1e-4
        up, down = (scores(data, theta + sign * step)[1].sum(axis=0) for sign in (1, -1))
        information[place] = -(up - down) / 2e-4
    own = np.ix_(free, free)
    symmetric = (information + information.T)[own] / 2
    if not free.any() or np.linalg.eigvalsh(symmetric).min() <= 1e-6:
        return None
    inverse = np.linalg.inv(symmetric)
    by_answer = scores(data, theta)[1][:, free]
    meat = sum(_summed(by_answer, codes) for codes in (data.listener, data.prompt))
    both = np.unique(data.listener * (int(data.prompt.max()) + 1) + data.prompt, return_inverse=True)[1]
    robust = inverse @ (meat - _summed(by_answer, both)) @ inverse
    # Each standard error is the larger of the two; correlations are the model's.
    ratio = np.sqrt(np.maximum(np.diag(robust) / np.diag(inverse), 1.0))
    found = np.zeros((4, 4))
    found[own] = inverse * np.outer(ratio, ratio)
    return found


def _summed(by_answer: Floats, codes: Ints) -> Floats:
    """The sum of the outer products of the groups' sums of scores."""
    sums = np.stack([np.bincount(codes, column) for column in by_answer.T], axis=1)
    return np.asarray(sums.T @ sums, np.float64)


def _with_errors(function: Any, theta: Floats, covariance: Floats | None) -> tuple[Floats, Floats]:
    """Values of a function of the parameters and their standard errors (delta method); NaN without a covariance."""
    value = np.asarray(function(theta), np.float64)
    if covariance is None:
        return value, np.full(len(value), np.nan)
    slope = np.stack(
        [(function(theta + step) - function(theta - step)) / 2e-4 for step in 1e-4 * np.eye(len(theta))], axis=1
    )
    return value, np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", slope, covariance, slope), 0))


def _boundary_notes(theta: Floats, free: npt.NDArray[np.bool_], unknown: bool) -> list[str]:
    if unknown:
        return ["The answers do not determine its intervals."]
    held = [name for name, is_free in zip(("scale", "slope"), free[:2], strict=True) if not is_free]
    found = [f"The answers do not determine the {name}; it is at its limit." for name in held]
    if not free[2]:
        found.append(
            f"The lapse rate is at its limit, {'0' if theta[2] < 0 else f'{MOST_LAPSE:g}'}; intervals hold it there."
        )
    return found
