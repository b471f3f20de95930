"""Order-restricted tests over the bin pairs: does agreement grow with the distance of the bins?

If a measure orders clips as listeners do, a pair of bins that encloses another has at least its agreement: 1–4 ≥ 1–3 ≥
1–2, 1–4 ≥ 2–4 ≥ 3–4, 1–3 ≥ 2–3 and 2–4 ≥ 2–3. Two likelihood-ratio tests on the effects of the mixed model and their
covariance (Silvapulle and Sen, Constrained Statistical Inference, 2005, chapter 3): equal effects against this order
(type A), and this order against any other (type B). Both statistics follow chi-bar-square distributions, which are
simulated: 4,000 draws with the estimated covariance, at equal effects.
Conventions: effects are on the logit scale; the cone of ordered effects is {x : A x ≥ 0}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Floats = npt.NDArray[np.float64]
DRAWS = 4000


@dataclass(frozen=True)
class OrderTest:
    """`p_increase`: equal effects against the order; `p_against`: the order against any other. Violations: pairs
    (inner, outer) of which the inner has the higher effect."""

    p_increase: float
    p_against: float
    violations: tuple[tuple[str, str], ...]
    draws: int


def enclosing_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Places (inner, outer) of pairs like "2–3" and "1–4" of which the second encloses the first."""
    bins = [tuple(map(int, name.split("–"))) for name in names]
    return [
        (i, j)
        for i, inner in enumerate(bins)
        for j, outer in enumerate(bins)
        if i != j and outer[0] <= inner[0] and inner[1] <= outer[1]
    ]


def order_test(
    names: Sequence[str], effects: Floats, covariance: Floats, seed: int = 0, draws: int = DRAWS
) -> OrderTest | None:
    """Test the order of the effects, shape (pairs,), with their covariance; None if no pair encloses another."""
    enclosed = enclosing_pairs(names)
    if not enclosed:
        return None
    restrictions = np.zeros((len(enclosed), len(names)))
    for row, (inner, outer) in enumerate(enclosed):
        restrictions[row, [outer, inner]] = 1, -1
    # In units in which the effects are independent with variance 1.
    root = np.linalg.cholesky(covariance)
    bounds = restrictions @ root
    one = np.linalg.solve(root, np.ones(len(names)))
    one /= np.linalg.norm(one)

    def distances(x: Floats) -> tuple[float, float]:
        """Gain of the order over equal effects, and the squared distance of `x` from the cone."""
        # Moreau: x is its projection on the cone (whose length nnls leaves) plus that on the polar cone.
        nearest = nnls(bounds.T, -x)[1] ** 2
        equal = float(x @ x - (x @ one) ** 2)
        distance = max(float(x @ x) - nearest, 0.0)
        return max(equal - distance, 0.0), distance

    increase, against = distances(np.linalg.solve(root, effects))
    rng = np.random.default_rng(seed)
    drawn = np.array([distances(x) for x in rng.standard_normal((draws, len(names)))])
    violations = tuple((names[i], names[j]) for i, j in enclosed if effects[i] > effects[j])
    return OrderTest(
        p_increase=float((1 + (drawn[:, 0] >= increase).sum()) / (draws + 1)),
        p_against=float((1 + (drawn[:, 1] >= against - 1e-9).sum()) / (draws + 1)) if violations else 1.0,
        violations=violations,
        draws=draws,
    )
