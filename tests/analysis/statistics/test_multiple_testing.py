"""Corrections against their definitions, scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from analysis.statistics.multiple_testing import benjamini_hochberg, holm, holm_rejections

TIGHT = {"rel": 1e-10, "abs": 1e-10}


def holm_by_definition(pvalues: list[float]) -> list[float]:
    """Holm 1979: the i-th smallest of m times m - i + 1, never below the one before, at most 1."""
    corrected = dict.fromkeys(range(len(pvalues)), 0.0)
    highest = 0.0
    for rank, index in enumerate(sorted(corrected, key=lambda i: pvalues[i])):
        highest = max(highest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        corrected[index] = highest
    return [corrected[index] for index in range(len(pvalues))]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=0, max_size=12))
def test_corrections_follow_their_definitions(pvalues: list[float]) -> None:
    assert holm(pvalues) == pytest.approx(holm_by_definition(pvalues), **TIGHT)
    expected = false_discovery_control(pvalues) if pvalues else []
    assert benjamini_hochberg(pvalues) == pytest.approx(expected, **TIGHT)


def test_decisions_for_many_families_equal_statsmodels() -> None:
    pvalues = np.random.default_rng(1).random((10, 6)) ** 4
    expected = np.array([multipletests(row, 0.05, method="holm")[0] for row in pvalues])
    assert (holm_rejections(pvalues, 0.05) == expected).all()
    assert expected.any()
    assert not expected.all()
