"""Maximum likelihood of the mixed model: the search, the standard errors, and what is done without a maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.special import expit

from analysis.statistics.glmm_data import CellCounts
from analysis.statistics.glmm_laplace import LaplaceLikelihood
from analysis.statistics.glmm_quadrature import QuadratureLikelihood

Floats = npt.NDArray[np.float64]
# A deviation that reaches this has no maximum below it: the groups separate the answers.
LARGEST = 8.0
PRIOR_OF_DEVIATIONS = 2.5
BOUNDARY = 0.02
STEP = 1e-4


class Likelihood(Protocol):
    """A log-likelihood with its gradient at (effects of the pairs, deviations)."""

    def value_and_gradient(self, parameters: Floats) -> tuple[float, Floats]: ...


@dataclass(frozen=True)
class MixedFit:
    """Effects of the pairs and deviations (by name of the grouping), with the covariance of (effects, deviations).

    `penalised` names pairs whose answers are all the same; `bounded` names groupings that separate the answers.
    `method`: "Laplace" or "quadrature"; `log_likelihood` is without penalties.
    """

    effects: Floats
    deviations: dict[str, float]
    covariance: Floats
    log_likelihood: float
    converged: bool
    penalised: tuple[str, ...]
    bounded: tuple[str, ...]
    method: str


def fit(data: CellCounts) -> MixedFit:
    """Fit by maximum likelihood; penalised where the likelihood has no maximum.

    A pair whose answers are all the same has an infinite maximum: its effect gets the penalty of half an answer more on
    each side (log-F(1, 1), Greenland and Mansournia, Statistics in Medicine 34, 2015). If a grouping separates the
    answers, deviations get a half-normal prior (standard deviation 2.5).
    """
    agreed, n = (np.bincount(data.pair, values, len(data.names)) for values in (data.y, data.n))
    same = (agreed == 0) | (agreed == n)
    single = len(data.factors) < 2
    likelihood: Likelihood = QuadratureLikelihood(data) if single else LaplaceLikelihood(data)
    start = np.log((agreed + 0.5) / (n - agreed + 0.5)) * 1.15
    found = _search(likelihood, data, start, same, False)
    at_limit = found[len(data.names) :] > 0.98 * LARGEST
    bounded = tuple(factor.name for factor, hit in zip(data.factors, at_limit, strict=True) if hit)
    if bounded:
        found = _search(likelihood, data, start, same, True)
    covariance, positive = _covariance(likelihood, found, same, bool(bounded))
    slope = _objective(likelihood, found, same, bool(bounded))[1]
    free = np.abs(found) > 1e-6
    free[: len(data.names)] = True
    k = len(data.names)
    return MixedFit(
        found[:k],
        {factor.name: float(value) for factor, value in zip(data.factors, found[k:], strict=True)},
        covariance,
        likelihood.value_and_gradient(found)[0],
        positive and bool(np.abs(slope[free]).max() < 0.05),
        tuple(name for name, one in zip(data.names, same, strict=True) if one),
        bounded,
        "quadrature" if single else "Laplace",
    )


def _objective(
    likelihood: Likelihood, parameters: Floats, same: npt.NDArray[np.bool_], bounded: bool
) -> tuple[float, Floats]:
    """The penalised log-likelihood and its gradient."""
    value, slope = likelihood.value_and_gradient(parameters)
    slope = slope.copy()
    k = len(same)
    effects = parameters[:k][same]
    value += float((0.5 * effects - np.logaddexp(0, effects)).sum())
    slope[:k][same] += 0.5 - expit(effects)
    if bounded:
        value -= float((parameters[k:] ** 2).sum()) / (2 * PRIOR_OF_DEVIATIONS**2)
        slope[k:] -= parameters[k:] / PRIOR_OF_DEVIATIONS**2
    return value, slope


def _search(
    likelihood: Likelihood, data: CellCounts, start: Floats, same: npt.NDArray[np.bool_], bounded: bool
) -> Floats:
    """The highest point; a deviation that ends at 0 gets a second start, as 0 is always stationary."""
    k, factors = len(start), len(data.factors)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        value, slope = _objective(likelihood, parameters, same, bounded)
        return -value, -slope

    def climb(first: Floats) -> tuple[Floats, float]:
        found = optimize.minimize(
            loss, first, jac=True, method="L-BFGS-B", bounds=[(-30, 30)] * k + [(0, LARGEST)] * factors,
            options={"maxiter": 300, "ftol": 1e-11, "gtol": 1e-4, "maxcor": 20},
        )  # fmt: skip
        return np.asarray(found.x), -float(found.fun)

    best, value = climb(np.concatenate([start, np.full(factors, 0.5)]))
    small = np.flatnonzero(best[k:] < BOUNDARY)
    for index in small:
        again = best.copy()
        again[k + index] = 0.5
        other, higher = climb(again)
        if higher > value + 1e-6:
            best, value = other, higher
    return best


def _covariance(likelihood: Likelihood, at: Floats, same: npt.NDArray[np.bool_], bounded: bool) -> tuple[Floats, bool]:
    """The inverse of the negative Hessian, by central differences of the gradient; and whether it is positive."""
    size = len(at)
    hessian = np.empty((size, size))
    for i in range(size):
        step = np.zeros(size)
        step[i] = STEP
        ahead, behind = (_objective(likelihood, at + sign * step, same, bounded)[1] for sign in (1, -1))
        hessian[i] = (behind - ahead) / (2 * STEP)
    hessian = (hessian + hessian.T) / 2
    values, vectors = np.linalg.eigh(hessian)
    positive = bool(values.min() > 1e-8)
    # A direction without information gets a large but finite variance.
    return np.asarray(
        (vectors / np.maximum(values, 1e-3)) @ vectors.T if not positive else np.linalg.inv(hessian)
    ), positive
