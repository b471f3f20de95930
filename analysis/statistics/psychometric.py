"""The psychometric curve: how often listeners agree with the measure, as a function of the difference in similarity.

P(agreed | d) = 0.5 + (0.5 - lapse) * (1 - exp(-(d / scale) ** shape)), with d the similarity of one clip to the prompt
minus that of the other: a Weibull function with the guessing rate fixed at 0.5 (two alternatives) and a
lapse rate of at most 0.2 (Wichmann and Hill, Perception & Psychophysics 63, 2001); for d below 0 it is mirrored about
0.5. Fitted by maximum likelihood (Fisher scoring, damped); bands and intervals are percentiles of a bootstrap that
draws listeners and prompts with replacement, all resamples fitted at once.
Conventions: d is a difference of cosines; "z" is d divided by the standard deviation of the embedder's similarities, so
that embedders can be compared; the threshold is the d at which 75 % agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.responses.load import numbered
from analysis.statistics.agreement import exact_binomial

Floats = npt.NDArray[np.float64]
MOST_LAPSE = 0.2
THRESHOLD = 0.75
FINEST = 2000  # the most distinct differences that are not merged
COARSER = 200  # in the bootstrap
MOST_FOR_FIT = 200  # simulated data sets for the goodness of fit
SHAPES = (0.2, 10.0)
FLAT = "Agreement does not rise above chance with the difference: the curve is flat and has no threshold."


@dataclass(frozen=True)
class Point:
    """Answers with about the same difference: its mean, counts, and Wilson's interval."""

    difference: float
    agreed: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The curve of one embedder, on the axis of similarity; `spread` turns it into z.

    `rate`, `low` and `high` are the curve and its 95 % band at the differences `at`, which span the observed ones.
    `threshold` is None if the curve never reaches it. `fit_p` is of the goodness of fit, None if there are too few
    points. `notes` say what the data do not determine.
    """

    embedder: str
    scale: float
    shape: float
    lapse: float
    threshold: float | None
    threshold_low: float | None
    threshold_high: float | None
    shape_low: float
    shape_high: float
    lapse_low: float
    lapse_high: float
    spread: float
    spread_from: str
    n: int
    deviance: float
    fit_p: float | None
    at: tuple[float, ...]
    rate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    points: tuple[Point, ...]
    resamples: int
    notes: tuple[str, ...]


def psychometric(frame: pd.DataFrame, spreads: Mapping[str, float], resamples: int = 500, seed: int = 0) -> list[Curve]:
    """The curve of every embedder in `frame` that has similarities, in alphabetical order.

    Columns: embedder, listener, prompt, agreed, similarity_high, similarity_low. `spreads` holds the standard deviation
    of an embedder's similarities if it is known (from the bins); otherwise that of the responses' clips is used.
    """
    if not {"similarity_high", "similarity_low"} <= set(frame):
        return []
    known = frame[frame["similarity_high"].notna() & frame["similarity_low"].notna()]
    names = sorted(map(str, known["embedder"].unique()), key=lambda name: (name.casefold(), name))
    return [_curve(name, known[known["embedder"] == name], spreads.get(name), resamples, seed) for name in names]


def _curve(name: str, frame: pd.DataFrame, spread: float | None, resamples: int, seed: int) -> Curve:
    difference = (frame["similarity_high"] - frame["similarity_low"]).to_numpy(float)
    agreed = frame["agreed"].to_numpy(float)
    notes = []
    source = "the fitted Gaussian of the bins"
    if spread is None:
        both = np.concatenate([frame["similarity_high"], frame["similarity_low"]])
        spread, source = float(np.std(both)) or 1.0, "the clips of the responses"
    where, index = _gather(difference, FINEST)
    k, n = (np.bincount(index, weight).astype(np.float64) for weight in (agreed, np.ones(len(agreed))))
    found = fit(where, k[None], n[None])
    scale, shape, lapse = (float(value) for value in found[0])
    ends = _limits(where)
    flat = float(rate(where[-1:], found)[0, 0]) < 0.51
    notes += [FLAT] if flat else _boundary_notes(scale, shape, lapse, ends)
    at = np.linspace(float(where.min()), float(where.max()), 81)
    boot = _bootstrap(frame, difference, agreed, resamples, seed, found)
    curves = rate(at, boot)
    threshold = np.inf if flat else _threshold(found)[0]
    if np.isfinite(threshold) and threshold > where.max():
        notes.append("The threshold is beyond the differences in the data: it is extrapolated.")
    reached = _threshold(boot)
    low, high = (
        float(x) for x in np.quantile(np.where(np.isfinite(reached), reached, np.inf), [0.025, 0.975], method="nearest")
    )
    if np.isfinite(threshold) and not np.isfinite(high):
        notes.append(
            "In some resamples the curve never reaches 75 %, so the interval of the threshold has no upper end."
        )
    return Curve(
        embedder=name,
        scale=scale,
        shape=shape,
        lapse=lapse,
        threshold=float(threshold) if np.isfinite(threshold) else None,
        threshold_low=low if np.isfinite(threshold) and np.isfinite(low) else None,
        threshold_high=high if np.isfinite(threshold) and np.isfinite(high) else None,
        shape_low=float(np.quantile(boot[:, 1], 0.025)),
        shape_high=float(np.quantile(boot[:, 1], 0.975)),
        lapse_low=float(np.quantile(boot[:, 2], 0.025)),
        lapse_high=float(np.quantile(boot[:, 2], 0.975)),
        spread=spread,
        spread_from=source,
        n=len(frame),
        deviance=_deviance(where, k, n, found),
        fit_p=_goodness_of_fit(difference, agreed, found, min(resamples, MOST_FOR_FIT), seed),
        at=tuple(at.tolist()),
        rate=tuple(rate(at, found)[0].tolist()),
        low=tuple(np.quantile(curves, 0.025, axis=0).tolist()),
        high=tuple(np.quantile(curves, 0.975, axis=0).tolist()),
        points=_points(difference, agreed),
        resamples=resamples,
        notes=tuple(notes),
    )


def rate(difference: Floats, parameters: Floats) -> Floats:
    """P(agreed) at `difference` (d,) under each of `parameters` (b, 3: scale, shape, lapse): shape (b, d)."""
    scale, shape, lapse = (column[:, None] for column in parameters.T)
    growth = -np.expm1(-((np.abs(difference)[None] / scale) ** shape))
    found: Floats = 0.5 + (0.5 - lapse) * np.sign(difference)[None] * growth
    return found


def _gather(difference: Floats, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Distinct differences, or the centres of `most` bins of equal width, and the index of each answer's."""
    distinct, index = np.unique(difference, return_inverse=True)
    if len(distinct) <= most:
        return distinct, index
    edges = np.linspace(distinct[0], distinct[-1], most + 1)
    cell = np.clip(np.searchsorted(edges, difference, side="right") - 1, 0, most - 1)
    used, index = np.unique(cell, return_inverse=True)
    return (edges[used] + edges[used + 1]) / 2, index


def _limits(where: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest log scale, log shape, and logit of lapse rate / `MOST_LAPSE`."""
    span = float(np.abs(where).max()) or 1.0
    return np.array([np.log(span / 1000), np.log(SHAPES[0]), -9.0]), np.array(
        [np.log(span * 100), np.log(SHAPES[1]), 9.0]
    )


def fit(where: Floats, k: Floats, n: Floats, start: Floats | None = None) -> Floats:
    """Maximum likelihood for every row of counts: (b, 3) scale, shape and lapse from k, n of shape (b, d) at d (d,)."""
    low, high = _limits(where)
    span = float(np.abs(where).max()) or 1.0
    if start is None:
        starts = [(span * share, shape, 0.02) for share in (0.05, 0.2, 0.6, 2.0) for shape in (0.7, 1.5, 3.0)]
    else:
        starts = [tuple(start[0])]
    tried = [_climb(where, k, n, _inward(np.tile(np.array(one), (len(k), 1))), low, high) for one in starts]
    values = np.stack([value for _, value in tried])
    best = np.stack([theta for theta, _ in tried])[values.argmax(axis=0), np.arange(len(k))]
    return _outward(best)


def _inward(parameters: Floats) -> Floats:
    lapse = np.clip(parameters[:, 2] / MOST_LAPSE, 1e-4, 1 - 1e-4)
    return np.column_stack([np.log(parameters[:, 0]), np.log(parameters[:, 1]), np.log(lapse / (1 - lapse))])


def _outward(theta: Floats) -> Floats:
    return np.column_stack([np.exp(theta[:, 0]), np.exp(theta[:, 1]), MOST_LAPSE / (1 + np.exp(-theta[:, 2]))])


def _climb(where: Floats, k: Floats, n: Floats, theta: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Fisher scoring with damping (Levenberg and Marquardt), all rows at once; converged rows are left unchanged."""
    theta = theta.copy()
    value = _likelihood(where, k, n, theta)
    damping = np.full(len(k), 1e-2)
    going = np.arange(len(k))
    for _ in range(150):
        slope, information = _slopes(where, k[going], n[going], theta[going])
        scale = np.einsum("bii->bi", information) + 1e-9
        damped = information + damping[going, None, None] * np.eye(3) * scale[:, None, :]
        step = np.linalg.solve(damped, slope[:, :, None])[:, :, 0]
        new = np.clip(theta[going] + np.clip(step, -2, 2), low, high)
        reached = _likelihood(where, k[going], n[going], new)
        better = reached >= value[going]
        gain = np.where(better, reached - value[going], np.inf)
        theta[going[better]], value[going[better]] = new[better], reached[better]
        damping[going] = np.clip(np.where(better, damping[going] / 4, damping[going] * 6), 1e-8, 1e8)
        going = going[(gain >= 1e-9) & (damping[going] < 1e8)]
        if not len(going):
            break
    return theta, value


def _likelihood(where: Floats, k: Floats, n: Floats, theta: Floats) -> Floats:
    chance = np.clip(rate(where, _outward(theta)), 1e-12, 1 - 1e-12)
    found: Floats = (k * np.log(chance) + (n - k) * np.log1p(-chance)).sum(axis=1)
    return found


def _slopes(where: Floats, k: Floats, n: Floats, theta: Floats) -> tuple[Floats, Floats]:
    """Gradient (b, 3) and expected information (b, 3, 3) in log scale, log shape and logit lapse."""
    parameters = _outward(theta)
    scale, shape, lapse = (column[:, None] for column in parameters.T)
    ratio = np.abs(where)[None] / scale
    logs = np.log(np.maximum(ratio, 1e-300))
    power = ratio**shape
    fall = np.exp(-power)
    sign = np.sign(where)[None]
    common = (0.5 - lapse) * sign * fall * power
    by = np.stack(
        [-common * shape, common * shape * logs, -sign * (1 - fall) * lapse * (1 - lapse / MOST_LAPSE)], axis=2
    )
    chance = np.clip(0.5 + (0.5 - lapse) * sign * (1 - fall), 1e-12, 1 - 1e-12)
    weight = 1 / (chance * (1 - chance))
    slope = np.einsum("bd,bdi->bi", (k - n * chance) * weight, by)
    return slope, (by * (n * weight)[:, :, None]).transpose(0, 2, 1) @ by


def _threshold(parameters: Floats) -> Floats:
    """The difference at which 75 % agree; infinite if the lapse rate is too high."""
    scale, shape, lapse = parameters.T
    share = (THRESHOLD - 0.5) / (0.5 - lapse)
    found: Floats = np.where(share < 1, scale * (-np.log1p(-np.minimum(share, 1 - 1e-15))) ** (1 / shape), np.inf)
    return found


def _bootstrap(
    frame: pd.DataFrame, difference: Floats, agreed: Floats, resamples: int, seed: int, start: Floats
) -> Floats:
    """Parameters (resamples, 3) with listeners and prompts drawn with replacement."""
    rng = np.random.default_rng(seed)
    where, index = _gather(difference, COARSER)
    listener, prompt = numbered(frame["listener"]), numbered(frame["prompt"])
    listeners, prompts = int(listener.max()) + 1, int(prompt.max()) + 1
    k, n = np.empty((resamples, len(where))), np.empty((resamples, len(where)))
    for i in range(resamples):
        by_listener = np.bincount(rng.integers(0, listeners, listeners), minlength=listeners)
        by_prompt = np.bincount(rng.integers(0, prompts, prompts), minlength=prompts)
        weight = (by_listener[listener] * by_prompt[prompt]).astype(float)
        n[i] = np.bincount(index, weight, len(where))
        k[i] = np.bincount(index, weight * agreed, len(where))
    # A draw without any answer is replaced by the data; this happens only with a handful of listeners.
    empty = n.sum(axis=1) == 0
    n[empty], k[empty] = np.bincount(index, minlength=len(where)), np.bincount(index, agreed, len(where))
    return fit(where, k, n, start)


def _deviance(where: Floats, k: Floats, n: Floats, parameters: Floats) -> float:
    """Twice the gain in log likelihood of a model with a free rate for every distinct difference."""
    share = np.clip(k / n, 1e-12, 1 - 1e-12)
    free = float((k * np.log(share) + (n - k) * np.log1p(-share)).sum())
    return max(0.0, 2 * (free - float(_likelihood(where, k[None], n[None], _inward(parameters))[0])))


def _goodness_of_fit(difference: Floats, agreed: Floats, found: Floats, draws: int, seed: int) -> float | None:
    """The share of data sets simulated from the curve that lie at least as far from their own curve.

    The distance is Pearson's, over the points of the figure (Wichmann and Hill 2001 use the deviance). Answers are
    simulated as independent, so a small value may also come from differences between listeners or prompts.
    """
    where, index = _gather(difference, COARSER)
    k, n = np.bincount(index, agreed), np.bincount(index).astype(np.float64)
    share = np.cumsum(n) / n.sum()
    cell = np.minimum((share * 12).astype(int), 11)
    if len(np.unique(cell)) < 5:
        return None
    simulated = np.random.default_rng([seed, 3]).binomial(n.astype(int), rate(where, found)[0], (draws, len(where)))
    counts = np.vstack([k, simulated]).astype(np.float64)
    chance = rate(where, fit(where, counts, np.tile(n, (draws + 1, 1)), found))
    grouped = [np.stack([values[:, cell == c].sum(axis=1) for c in np.unique(cell)], axis=1) for values in (
        counts - n * chance, n * chance * (1 - chance))]  # fmt: skip
    distance = (grouped[0] ** 2 / np.maximum(grouped[1], 1e-9)).sum(axis=1)
    return float((1 + (distance[1:] >= distance[0]).sum()) / (draws + 1))


def _points(difference: Floats, agreed: Floats) -> tuple[Point, ...]:
    """At most twelve points with about equal numbers of answers; equal differences are in one point."""
    edges = np.unique(np.quantile(difference, np.linspace(0, 1, min(12, max(2, len(agreed) // 20)) + 1)))
    cell = np.clip(np.searchsorted(edges, difference, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for number in np.unique(cell):
        own = cell == number
        test = exact_binomial(int(agreed[own].sum()), int(own.sum()))
        found.append(Point(float(difference[own].mean()), test.agreed, test.n, test.wilson_low, test.wilson_high))
    return tuple(found)


def _boundary_notes(scale: float, shape: float, lapse: float, ends: tuple[Floats, Floats]) -> list[str]:
    found = []
    if np.log(scale) <= ends[0][0] + 1e-3:
        found.append(
            "Agreement is as high at the smallest differences as at the largest, so where it starts to rise is unknown."
        )
    if shape <= SHAPES[0] * 1.001 or shape >= SHAPES[1] * 0.999:
        found.append(f"The answers do not determine the slope; it was limited to {shape:.3g}.")
    if lapse >= MOST_LAPSE * 0.998:
        found.append(
            f"The lapse rate was limited to {MOST_LAPSE:g}: some answers disagree even at the largest difference."
        )
    return found
