"""The order-restricted tests against a general optimiser, and their level under equal effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from analysis.statistics.ordering import enclosing_pairs, order_test
from study.design.bin_pairs import BIN_PAIRS

NAMES = [f"{high}–{low}" for high, low in BIN_PAIRS]
COVARIANCE = 0.05 * np.eye(6) + 0.03


def test_which_pairs_enclose_others() -> None:
    found = {(NAMES[i], NAMES[j]) for i, j in enclosing_pairs(NAMES)}
    assert ("2–3", "1–4") in found
    assert ("1–2", "1–3") in found
    assert not {("1–2", "2–3"), ("1–2", "3–4"), ("1–4", "2–3")} & found


def test_the_p_value_is_that_of_a_general_optimiser() -> None:
    """The distance of the effects from the order, by scipy's SLSQP, on the same draws."""
    effects = np.array([1.2, 0.9, 0.8, 0.4, 0.5, 0.1])
    root = np.linalg.cholesky(COVARIANCE)
    bounds = [(j, i) for i, j in enclosing_pairs(NAMES)]

    def distance(x: np.ndarray) -> float:
        constraints = [{"type": "ineq", "fun": lambda t, a=a, b=b: t[a] - t[b]} for a, b in bounds]
        inverse = np.linalg.inv(COVARIANCE)
        found = minimize(
            lambda t: (t - x) @ inverse @ (t - x), np.full(6, x.mean()), constraints=constraints, tol=1e-10
        )
        return float(found.fun)

    observed = distance(effects)
    drawn = np.random.default_rng(0).standard_normal((4000, 6))[:150] @ root.T
    share = np.mean([distance(x) >= observed for x in drawn])
    found = order_test(NAMES, effects, COVARIANCE, seed=0)
    assert found is not None
    assert found.p_against == pytest.approx(share, abs=0.08)
    assert found.p_increase < 0.01
    assert ("1–2", "1–3") in found.violations


def test_the_level_under_equal_effects() -> None:
    rng = np.random.default_rng(2)
    root = np.linalg.cholesky(COVARIANCE)
    found = [order_test(NAMES, root @ rng.standard_normal(6), COVARIANCE, n, 300) for n in range(80)]
    p = np.array([one.p_increase for one in found if one is not None])
    assert 0.35 < np.mean(p < 0.5) < 0.65
    assert np.mean(p < 0.05) < 0.13


def test_perfectly_ordered_effects_contradict_nothing() -> None:
    found = order_test(NAMES, np.array([1.0, 2.0, 3.0, 0.5, 1.0, 0.5]), COVARIANCE)
    assert found is not None
    assert (found.violations, found.p_against) == ((), 1.0)
    assert order_test(["1–2", "3–4"], np.zeros(2), np.eye(2)) is None
