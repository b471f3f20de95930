"""The likelihood of the mixed model with one grouping (or none), by adaptive Gauss-Hermite quadrature.

Each group's integral is computed on 25 nodes around its own mode, scaled by its own curvature (Pinheiro and Bates,
Journal of Computational and Graphical Statistics 4, 1995). The gradient is the posterior expectation of the gradient
of the joint density (Fisher's identity), on the same nodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, logsumexp

from analysis.statistics.glmm_data import CellCounts

Floats = npt.NDArray[np.float64]
NODES = 25


class QuadratureLikelihood:
    """The log-likelihood of cell counts and its gradient, at (effects of the pairs, deviation of the grouping)."""

    def __init__(self, data: CellCounts) -> None:
        self.data = data
        self.pairs = len(data.names)
        self.nodes, weights = np.polynomial.hermite.hermgauss(NODES)
        self.log_weights = np.log(weights) + self.nodes**2

    def value_and_gradient(self, parameters: Floats) -> tuple[float, Floats]:
        data = self.data
        eta = parameters[: self.pairs][data.pair]
        if not data.factors:
            residual = data.y - data.n * expit(eta)
            value = data.y @ log_expit(eta) + (data.n - data.y) @ log_expit(-eta)
            return float(value), np.bincount(data.pair, residual, self.pairs).astype(np.float64)
        (factor,), sd = data.factors, parameters[self.pairs]
        mode, scale = self._modes(eta, float(sd))
        points = mode[:, None] + np.sqrt(2) * scale[:, None] * self.nodes
        linear = eta[:, None] + sd * points[factor.codes]
        density = data.y[:, None] * log_expit(linear) + (data.n - data.y)[:, None] * log_expit(-linear)
        joint = _group_sums(density, factor.codes, factor.size) - 0.5 * points**2 - 0.5 * np.log(2 * np.pi)
        joint = joint + self.log_weights + 0.5 * np.log(2) + np.log(scale)[:, None]
        by_group = logsumexp(joint, axis=1)
        posterior = np.exp(joint - by_group[:, None])
        residual = data.y[:, None] - data.n[:, None] * expit(linear)
        weighted = posterior[factor.codes] * residual
        slope = np.bincount(data.pair, weighted.sum(axis=1), self.pairs)
        return float(by_group.sum()), np.append(slope, float((weighted * points[factor.codes]).sum()))

    def _modes(self, eta: Floats, sd: float) -> tuple[Floats, Floats]:
        """The mode of each group's standardised effect and its scale, by Newton's method (the density is concave)."""
        data = self.data
        (factor,) = data.factors
        at = np.zeros(factor.size)
        for _ in range(100):
            rate = expit(eta + sd * at[factor.codes])
            slope = sd * np.bincount(factor.codes, data.y - data.n * rate, factor.size) - at
            curve = 1 + sd**2 * np.bincount(factor.codes, data.n * rate * (1 - rate), factor.size)
            step = np.clip(slope / curve, -2, 2)
            at = at + step
            if np.abs(step).max() < 1e-10:
                break
        return at, 1 / np.sqrt(curve)


def _group_sums(values: Floats, codes: npt.NDArray[np.intp], size: int) -> Floats:
    found = np.zeros((size, values.shape[1]))
    np.add.at(found, codes, values)
    return found
