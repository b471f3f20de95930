"""A logistic regression with crossed normal effects of listeners and prompts, by Laplace's approximation.

For given deviations, Newton's method finds the mode of all effects; listeners are eliminated first, because their block
is diagonal. An outer search finds the deviations that maximise the approximate marginal likelihood. A weak normal prior
on the bin pairs keeps the effect of a pair finite if all answers agreed.
Conventions: effects and deviations are on the logit scale, in the order (pairs, prompts, listeners).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, optimize
from scipy.special import expit, log_expit

from study.design.bin_pairs import BIN_PAIRS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
PRIOR_SD = 5.0
SMALLEST, LARGEST = 1e-3, 5.0


@dataclass(frozen=True)
class CellCounts:
    """Counts of answers: `y` of `n` agreed in each cell of a bin pair, a listener and a prompt (indices)."""

    y: Floats
    n: Floats
    pair: Ints
    listener: Ints
    prompt: Ints
    names: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.names), int(self.listener.max()) + 1, int(self.prompt.max()) + 1


def collect(frame: pd.DataFrame) -> CellCounts:
    """Count the answers of each listener on each prompt and pair."""
    label = frame["bin_high"].to_numpy() * 10 + frame["bin_low"].to_numpy()
    present = [pair for pair in BIN_PAIRS if (label == pair[0] * 10 + pair[1]).any()]
    codes = {high * 10 + low: i for i, (high, low) in enumerate(present)}
    pair = np.searchsorted(sorted(codes), label).astype(np.intp)
    listener = pd.factorize(frame["listener"])[0].astype(np.intp)
    prompt = pd.factorize(frame["prompt"])[0].astype(np.intp)
    k, size = len(present), int(prompt.max()) + 1
    cells, inverse = np.unique((listener * size + prompt) * k + pair, return_inverse=True)
    return CellCounts(
        y=np.bincount(inverse, frame["agreed"].to_numpy(float)).astype(np.float64),
        n=np.bincount(inverse).astype(np.float64),
        pair=cells % k,
        listener=cells // k // size,
        prompt=cells // k % size,
        names=tuple(f"{high}–{low}" for high, low in present),
    )


@dataclass(frozen=True)
class LaplaceFit:
    """Effects of the pairs with their covariance, and the two deviations; `converged`: whether both searches did."""

    effects: Floats
    covariance: Floats
    sd_listener: float
    sd_prompt: float
    converged: bool


def fit_laplace(data: CellCounts) -> LaplaceFit:
    """Maximise the Laplace approximation over both standard deviations; one that cannot be estimated is 0."""
    _, listeners, prompts = data.sizes
    if prompts > listeners:
        # Eliminate the more numerous effects.
        turned = fit_laplace(replace(data, listener=data.prompt, prompt=data.listener))
        return replace(turned, sd_listener=turned.sd_prompt, sd_prompt=turned.sd_listener)
    free = [listeners > 1, prompts > 1]
    state: dict[str, Floats] = {}

    def sds(logs: Floats) -> tuple[float, float]:
        found = iter(np.exp(logs))
        one, two = (float(next(found)) if use else SMALLEST for use in free)
        return one, two

    def loss(logs: Floats) -> float:
        if np.any(logs < np.log(SMALLEST)) or np.any(logs > np.log(LARGEST)):
            return 1e12
        mode = _mode(data, *sds(logs), state.get("at"))
        state["at"] = mode.at
        return -mode.log_marginal

    logs = np.full(sum(free), np.log(0.5))
    ended = True
    if sum(free):
        result = optimize.minimize(loss, logs, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-3})
        logs, ended = result.x, bool(result.success)
    one, two = sds(logs)
    mode = _mode(data, one, two, state.get("at"))
    k = len(data.names)
    covariance = np.linalg.inv(mode.schur)[:k, :k].astype(np.float64)
    return LaplaceFit(mode.at[:k], covariance, one, two, ended and mode.converged)


@dataclass(frozen=True)
class _Mode:
    at: Floats
    schur: Floats
    log_marginal: float
    converged: bool


def _mode(data: CellCounts, sd_listener: float, sd_prompt: float, start: Floats | None) -> _Mode:
    """The mode of all effects, ordered (pairs, prompts, listeners), by damped Newton steps."""
    k, listeners, prompts = data.sizes
    precision = np.concatenate(
        [np.full(k, PRIOR_SD**-2), np.full(prompts, sd_prompt**-2), np.full(listeners, sd_listener**-2)]
    )
    at = np.zeros(k + prompts + listeners) if start is None else start
    value = _log_posterior(data, at, precision)
    converged = False
    for _ in range(100):
        diagonal, cross, schur, slope = _curvature(data, at, precision)
        rest = linalg.cho_solve(
            (np.linalg.cholesky(schur), True), slope[: k + prompts] - cross.T @ (slope[k + prompts :] / diagonal)
        )
        step = np.concatenate([rest, (slope[k + prompts :] - cross @ rest) / diagonal])
        size = 1.0
        while size > 1e-6 and (new := _log_posterior(data, at + size * step, precision)) < value - 1e-12:
            size /= 2
        at, gained, value = at + size * step, new - value, new
        if abs(gained) < 1e-7:
            converged = True
            break
    diagonal, _, schur, _ = _curvature(data, at, precision)
    determinant = float(np.log(diagonal).sum() + np.linalg.slogdet(schur)[1])
    return _Mode(at, schur, value + 0.5 * float(np.log(precision).sum()) - 0.5 * determinant, converged)


def _linear(data: CellCounts, at: Floats) -> Floats:
    k, _, prompts = data.sizes
    found: Floats = at[data.pair] + at[k + data.prompt] + at[k + prompts + data.listener]
    return found


def _log_posterior(data: CellCounts, at: Floats, precision: Floats) -> float:
    eta = _linear(data, at)
    likelihood = data.y @ log_expit(eta) + (data.n - data.y) @ log_expit(-eta)
    return float(likelihood - 0.5 * (precision * at) @ at)


def _curvature(data: CellCounts, at: Floats, precision: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The negative Hessian in blocks, listeners eliminated, and the gradient.

    Shapes: diagonal (listeners,), cross (listeners, pairs + prompts), schur (pairs + prompts,) squared.
    """
    k, listeners, prompts = data.sizes
    width = k + prompts
    chance = expit(_linear(data, at))
    weight = data.n * chance * (1 - chance)
    residual = data.y - data.n * chance
    column = k + data.prompt
    slope = (
        np.concatenate(
            [
                np.bincount(data.pair, residual, k),
                np.bincount(data.prompt, residual, prompts),
                np.bincount(data.listener, residual, listeners),
            ]
        )
        - precision * at
    )
    diagonal = np.bincount(data.listener, weight, listeners) + precision[width:]
    cross: Floats = np.bincount(data.listener * width + data.pair, weight, listeners * width).astype(np.float64)
    cross += np.bincount(data.listener * width + column, weight, listeners * width)
    cross = cross.reshape(listeners, width)
    block = np.bincount(data.pair * width + column, weight, width * width).reshape(width, width)
    block = (
        block
        + block.T
        + np.diag(
            np.concatenate([np.bincount(data.pair, weight, k), np.bincount(data.prompt, weight, prompts)])
            + precision[:width]
        )
    )
    return diagonal, cross, block - cross.T @ (cross / diagonal[:, None]), slope
