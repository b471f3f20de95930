"""An embedder: how much louder or softer than in the mean of the corpus each band of frequency is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from embeddings.models.base import ModelOptions, Projection, Vectors, refuse_options

BANDS = 32


class Brightness:
    """The embedder `brightness`: log power of the bands, less its mean over the corpus."""

    name = "brightness"
    dim = BANDS
    sample_rate = 16_000
    fits = True
    light = True
    batch_size = 64

    def settings(self) -> dict[str, Any]:
        return {"version": 1, "bands": BANDS}

    def runtime(self) -> dict[str, str]:
        return {"backend": "numpy", "numpy": np.__version__}

    def embed(self, batch: Vectors) -> Vectors:
        """Features `[N, 32]` of clips `[N, samples]`."""
        power = np.abs(np.fft.rfft(batch.astype(np.float64), axis=1)) ** 2
        edges = np.geomspace(8, power.shape[1], BANDS + 1).astype(int)
        bands = np.stack([power[:, low:high].mean(axis=1) for low, high in itertools.pairwise(edges)], axis=1)
        features: Vectors = np.log10(bands + 1e-9).astype(np.float32)
        return features

    def fit(self, features: Vectors) -> Projection:
        return Projection(features.mean(axis=0), np.eye(BANDS, dtype=np.float32))


def load(options: ModelOptions | None = None) -> Brightness:
    refuse_options("brightness", options or ModelOptions())
    return Brightness()
