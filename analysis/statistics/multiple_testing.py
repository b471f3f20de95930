"""Corrections for several tests of one family.

Conventions: p-values and corrected p-values lie in [0, 1]; a family is all tests corrected together (here: the bin
pairs of one embedder); corrected values keep the order of the p-values given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down correction for the family-wise error rate (Scandinavian Journal of Statistics 6, 1979).

    Computed by statsmodels (`multipletests`). An empty family gives an empty list.
    """
    return list(_holm(tuple(pvalues)))


# statsmodels runs the garbage collector in every call, and a report corrects the same families several times.
@lru_cache(maxsize=1024)
def _holm(pvalues: tuple[float, ...]) -> tuple[float, ...]:
    from statsmodels.stats.multitest import multipletests

    return tuple(multipletests(pvalues, method="holm")[1].tolist()) if pvalues else ()


def benjamini_hochberg(pvalues: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's step-up correction for the false discovery rate (JRSS B 57, 1995).

    Computed by statsmodels (`fdrcorrection`). An empty family gives an empty list.
    """
    from statsmodels.stats.multitest import fdrcorrection

    return [float(value) for value in fdrcorrection(pvalues)[1]] if len(pvalues) else []


def holm_adjusted(pvalues: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's corrected p-values of many families at once, the same as `holm` gives for each: shape [families, tests].

    Args:
        pvalues: float64 [families, tests], one family per row; NaN: not a test of the family.
    """
    size = (~np.isnan(pvalues)).sum(axis=1, keepdims=True)
    order = np.argsort(pvalues, axis=1)  # NaN comes last
    factors = np.maximum(size - np.arange(pvalues.shape[1]), 0)
    steps = np.minimum(np.maximum.accumulate(np.take_along_axis(pvalues, order, axis=1) * factors, axis=1), 1.0)
    corrected = np.empty_like(steps)
    np.put_along_axis(corrected, order, steps, axis=1)
    return corrected


def holm_rejections(pvalues: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.bool_]:
    """Which tests of many families Holm's procedure rejects at level `alpha`: bool [families, tests]."""
    return np.asarray(holm_adjusted(pvalues) < alpha)
