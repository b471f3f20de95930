"""Principal components of a corpus, and the weight of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

Doubles = npt.NDArray[np.float64]


def whitening(centred: Doubles, dim: int, shrinkage: float) -> tuple[Doubles, Doubles]:
    """Axes `[features, <= dim]` and gains of the leading principal components of centred data `[N, features]`.

    A component's gain is 1 / sqrt(variance + shrinkage · mean variance): shrinkage gives less weight to components
    with a small variance, which are mostly noise.
    """
    variances, axes = principal(centred, dim)
    return axes, np.where(variances > 0, 1 / np.sqrt(variances + shrinkage * max(variances.mean(), 1e-30)), 0)


def principal(data: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """Variances (descending) and axes `[features, <= count]` of centred data `[N, features]`, with fixed signs."""
    clips, features = data.shape
    wide = clips < features
    # The smaller of the two products has the same eigenvalues.
    product = (data @ data.T if wide else data.T @ data) / clips
    size = len(product)
    values, vectors = scipy.linalg.eigh(product, subset_by_index=[max(0, size - count), size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > 1e-9 * max(values[0], 1e-30)
    values, vectors = values[real], vectors[:, real]
    if not len(values):
        return np.zeros(1), np.zeros((features, 1))
    axes = data.T @ vectors / np.sqrt(values * clips) if wide else vectors
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return values, axes * signs
