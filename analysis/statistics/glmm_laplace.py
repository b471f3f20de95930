"""A logistic regression with crossed normal effects of listeners, prompts and triplets, by maximum likelihood.

The likelihood is Laplace's approximation, maximised over the effects of the bin pairs and the standard deviations
together (Bates, Mächler, Bolker and Walker, Journal of Statistical Software 67, 2015: nAGQ = 1 of R's lme4). Random
effects are written as deviation × standard normal, so a deviation of 0 is an ordinary value. The most numerous grouping
is eliminated first, because its block of the Hessian is diagonal. The gradient is exact (implicit differentiation of
the mode); standard errors come from the Hessian over effects and deviations.
Conventions: effects and deviations are on the logit scale; parameters are ordered (pairs, deviations of the groupings).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.special import expit, log_expit

from analysis.statistics.glmm_data import CellCounts, Factor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
STEPS = 50


@dataclass(frozen=True)
class _Hessian:
    """The Hessian of the random effects, (most numerous grouping, the rest): a diagonal, the cross part, the Schur
    complement's Cholesky factor."""

    diagonal: Floats
    cross: Floats
    schur: tuple[Floats, bool]

    def solve(self, first: Floats, rest: Floats) -> tuple[Floats, Floats]:
        found = linalg.cho_solve(self.schur, rest - self.cross.T @ (first / self.diagonal), check_finite=False)
        return (first - self.cross @ found) / self.diagonal, np.asarray(found)

    def log_determinant(self) -> float:
        return float(np.log(self.diagonal).sum() + 2 * np.log(np.diag(self.schur[0])).sum())


class LaplaceLikelihood:
    """The log-likelihood of cell counts and its gradient, at (effects of the pairs, deviation of each factor)."""

    def __init__(self, data: CellCounts) -> None:
        self.data = data
        self.pairs = len(data.names)
        order = sorted(range(len(data.factors)), key=lambda i: -data.factors[i].size)
        self.first, self.others = order[0], order[1:]
        self.offsets = np.concatenate([[0], np.cumsum([data.factors[i].size for i in self.others])]).astype(int)
        self.width = int(self.offsets[-1])
        self.columns = [data.factors[i].codes + off for i, off in zip(self.others, self.offsets, strict=False)]
        self.mode = (np.zeros(data.factors[self.first].size), np.zeros(self.width))

    @property
    def _lead(self) -> Factor:
        return self.data.factors[self.first]

    def _linear(self, effects: Floats, sds: Floats, at: tuple[Floats, Floats]) -> Floats:
        eta = effects[self.data.pair] + sds[self.first] * at[0][self._lead.codes]
        for i, column in zip(self.others, self.columns, strict=True):
            eta = eta + sds[i] * at[1][column]
        return np.asarray(eta)

    def _project(self, sds: Floats, values: Floats) -> tuple[Floats, Floats]:
        """The transposed design of the random effects times one value per cell."""
        rest = np.zeros(self.width)
        for i, column in zip(self.others, self.columns, strict=True):
            rest += sds[i] * np.bincount(column, values, self.width)
        return sds[self.first] * np.bincount(self._lead.codes, values, self._lead.size), rest

    def _hessian(self, sds: Floats, weight: Floats) -> _Hessian:
        lead, width = self._lead, self.width
        diagonal = 1 + sds[self.first] ** 2 * np.bincount(lead.codes, weight, lead.size)
        cross = np.zeros(lead.size * width)
        block = np.zeros(width * width)
        for i, one in zip(self.others, self.columns, strict=True):
            scaled = sds[i] * weight
            cross += sds[self.first] * np.bincount(lead.codes * width + one, scaled, lead.size * width)
            for j, two in zip(self.others, self.columns, strict=True):
                block += sds[j] * np.bincount(one * width + two, scaled, width * width)
        by_lead: Floats = cross.reshape(lead.size, width)
        schur = np.eye(width) + block.reshape(width, width) - by_lead.T @ (by_lead / diagonal[:, None])
        return _Hessian(diagonal, by_lead, linalg.cho_factor(schur, lower=True, check_finite=False))

    def _find_mode(self, effects: Floats, sds: Floats) -> tuple[float, Floats, _Hessian]:
        """The highest joint log-density of answers and random effects, the fitted rates and the Hessian there."""
        data = self.data

        def density(at: tuple[Floats, Floats], eta: Floats) -> float:
            likelihood = data.y @ log_expit(eta) + (data.n - data.y) @ log_expit(-eta)
            return float(likelihood - 0.5 * (at[0] @ at[0] + at[1] @ at[1]))

        at = self.mode
        eta = self._linear(effects, sds, at)
        value = density(at, eta)
        for _ in range(STEPS):
            rate = expit(eta)
            hessian = self._hessian(sds, data.n * rate * (1 - rate))
            first, rest = self._project(sds, data.y - data.n * rate)
            slope = (first - at[0], rest - at[1])
            step = hessian.solve(*slope)
            gain = float(slope[0] @ step[0] + slope[1] @ step[1])
            if gain < 1e-13:
                break
            size = 1.0
            while True:
                new = (at[0] + size * step[0], at[1] + size * step[1])
                eta = self._linear(effects, sds, new)
                higher = density(new, eta)
                if higher >= value - 1e-10 or size < 1e-6:
                    break
                size /= 2
            at, value = new, higher
        self.mode = at
        return value, expit(eta), hessian

    def value_and_gradient(self, parameters: Floats) -> tuple[float, Floats]:
        data = self.data
        effects, sds = parameters[: self.pairs], parameters[self.pairs :]
        value, rate, hessian = self._find_mode(effects, sds)
        weight, residual = data.n * rate * (1 - rate), data.y - data.n * rate
        leverage, own = self._leverage(sds, hessian)
        curve = -0.5 * leverage * weight * (1 - 2 * rate)
        solved = hessian.solve(*self._project(sds, curve))
        back = self._linear(np.zeros(self.pairs), sds, solved)
        total = residual + curve - weight * back
        slope = np.empty(len(parameters))
        slope[: self.pairs] = np.bincount(data.pair, total, self.pairs)
        for i in range(len(sds)):
            mode_of, solved_of = self._of_factor(self.mode, i), self._of_factor(solved, i)
            slope[self.pairs + i] = mode_of @ total + solved_of @ residual - weight @ own[i]
        return value - 0.5 * hessian.log_determinant(), slope

    def _of_factor(self, values: tuple[Floats, Floats], factor: int) -> Floats:
        if factor == self.first:
            return np.asarray(values[0][self._lead.codes])
        return np.asarray(values[1][self.columns[self.others.index(factor)]])

    def _leverage(self, sds: Floats, hessian: _Hessian) -> tuple[Floats, list[Floats]]:
        """By cell: the variance of its linear predictor given the parameters, and the covariance of the predictor with
        each factor's own (standardised) effect."""
        inverse = linalg.cho_solve(hessian.schur, np.eye(self.width), check_finite=False)
        ratio = hessian.cross / hessian.diagonal[:, None]
        cross = -ratio @ inverse
        diagonal = 1 / hessian.diagonal - np.einsum("ij,ij->i", ratio, cross)
        own: list[Floats] = [np.zeros(0)] * len(sds)
        lead = self._lead.codes
        total = sds[self.first] * diagonal[lead]
        for i, column in zip(self.others, self.columns, strict=True):
            total = total + sds[i] * cross[lead, column]
        own[self.first] = total
        for i, column in zip(self.others, self.columns, strict=True):
            found = sds[self.first] * cross[lead, column]
            for j, other in zip(self.others, self.columns, strict=True):
                found = found + sds[j] * inverse[column, other]
            own[i] = found
        leverage = sum((sds[i] * one for i, one in enumerate(own)), np.zeros(len(lead)))
        return leverage, own
