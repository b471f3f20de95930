"""Networks with an input of fixed length: the shared part of CLMR and MusiCNN.

A clip shorter than the window is padded with silence. If a clip has several windows, its vector is the mean of their
unit vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from embeddings.models.backends import Backend, Network
from embeddings.models.base import Vectors, unit


class WindowedNetwork:
    """An embedder that fits nothing and whose network turns samples `[N, window]` into vectors `[N, dim]`.

    A subclass sets `name`, `dim`, `sample_rate` and `window`, and defines `window_starts` and `settings`.
    """

    name: str
    dim: int
    sample_rate: int
    window: int
    fits = False
    light = False
    batch_size = 64

    def __init__(self, network: Network, backend: Backend, checkpoint: str) -> None:
        self._network, self._backend, self._checkpoint = network, backend, checkpoint

    def window_starts(self, samples: int) -> list[int]:
        """The start samples of the windows of a clip with `samples` samples, at least one window long."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {"version": 1, "checkpoint": self._checkpoint, "window": self.window}

    def runtime(self) -> dict[str, str]:
        return self._backend.settings()

    def embed(self, batch: Vectors) -> Vectors:
        """Vectors `[N, dim]` of clips `[N, samples]`."""
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        if batch.shape[1] < self.window:
            batch = np.pad(batch, [(0, 0), (0, self.window - batch.shape[1])])
        starts = self.window_starts(batch.shape[1])
        return mean_direction([run_network(self._network, self._backend, self._cut(batch, start)) for start in starts])

    def fit(self, features: Vectors) -> None:
        """Nothing is fitted."""

    def _cut(self, batch: Vectors, start: int) -> Vectors:
        return batch[:, start : start + self.window]


def run_network(network: Network, backend: Backend, samples: Vectors) -> Vectors:
    """The output of a compiled network for samples, as a numpy array."""
    given = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)).to(backend.device)
    vectors: Vectors = network(given).cpu().numpy()
    return vectors


def mean_direction(parts: list[Vectors]) -> Vectors:
    """The mean of the unit vectors of a clip's parts; the vectors of one part as they are."""
    if len(parts) == 1:
        return parts[0]
    mean: Vectors = np.mean([unit(vectors) for vectors in parts], axis=0, dtype=np.float32)
    return mean
