"""melspec: the time course of a clip's log-mel spectrogram, for finding copies rather than similar music.

Features are 64 mel bands in 15 frames per clip (200 ms in a clip of 3 s), in dB above a floor 60 dB below the loudest
frame. Each band's mean over the clip is subtracted, so that the overall timbre does not count. The features are
projected on whitened principal components fitted to the corpus; otherwise all drum beats would resemble each other.
Copies stay close after compression, gain and filters, but not after a shift of more than a tenth of a second, so
search for them in small steps. Bralios et al. (ICASSP 2024) found that the log-mel spectrogram detects near-identical
audio more robustly than learned vectors.
Conventions: mono at 22,050 Hz; no weights. Vectors of two fits are not comparable.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy
import scipy.sparse

from embeddings.models.base import ModelOptions, Projection, Vectors, refuse_options
from embeddings.models.spectrogram import mel_edges, power_spectra, triangles
from embeddings.models.whitening import whitening

SAMPLE_RATE = 22_050
DIM = 256
BANDS, FRAMES = 64, 15
WINDOW, PER_FRAME = 2048, 3  # spectra per frame, which are averaged in power
LOWEST_HZ, HIGHEST_HZ = 60.0, 8000.0
RANGE_DB = 60.0
SHRINKAGE = 0.05
_AT_ONCE = 32  # clips whose spectra are held at a time


class MelSpec:
    """The embedder `melspec`; see the module."""

    name = "melspec"
    dim = DIM
    sample_rate = SAMPLE_RATE
    fits = True
    light = True
    batch_size = 64

    def settings(self) -> dict[str, Any]:
        return {
            "version": 1,
            "bands": BANDS,
            "frames": FRAMES,
            "window": WINDOW,
            "range_db": RANGE_DB,
            "shrinkage": SHRINKAGE,
            "dim": DIM,
        }

    def runtime(self) -> dict[str, str]:
        return {"backend": "numpy", "numpy": np.__version__, "scipy": scipy.__version__}

    def embed(self, batch: Vectors) -> Vectors:
        """Features `[N, 960]` of clips `[N, samples]`; the fitted projection turns them into vectors."""
        parts = [_features(batch[begin : begin + _AT_ONCE]) for begin in range(0, len(batch), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, BANDS * FRAMES), np.float32)

    def fit(self, features: Vectors) -> Projection:
        """Centre, and whiten the leading principal components with shrinkage."""
        mean = features.mean(axis=0, dtype=np.float64)
        axes, gains = whitening(features - mean, DIM, SHRINKAGE)
        matrix = np.zeros((features.shape[1], DIM), np.float32)
        matrix[:, : len(gains)] = axes * gains
        return Projection(mean.astype(np.float32), matrix)


def load(options: ModelOptions | None = None) -> MelSpec:
    """The embedder, ready.

    Raises:
        RootnoteError: if an option is given: it has no weights, no windows and one backend.
    """
    refuse_options("melspec", options or ModelOptions())
    return MelSpec()


def _features(clips: Vectors) -> Vectors:
    power = _power(clips)
    bands = (_filters() @ power.reshape(-1, power.shape[2]).T).reshape(BANDS, len(clips), FRAMES).transpose(1, 2, 0)
    loudest = bands.mean(axis=2).max(axis=1)[:, None, None] + np.float32(1e-12)
    decibels = 10 * np.log10(np.maximum(bands / loudest, np.float32(10 ** (-RANGE_DB / 10))))
    changes = decibels - decibels.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(changes.reshape(len(clips), -1), dtype=np.float32)


def _power(clips: Vectors) -> Vectors:
    """Mean power spectra of the frames, `[N, frames, bins]`; a short last frame is padded with silence."""
    hop = -(-clips.shape[1] // (FRAMES * PER_FRAME))
    power = power_spectra(clips, WINDOW, hop, FRAMES * PER_FRAME)
    mean: Vectors = power.reshape(len(clips), FRAMES, PER_FRAME, -1).mean(axis=2)
    return mean


@functools.cache
def _filters() -> scipy.sparse.csr_array:
    """Triangles on the mel scale, `[bands, bins]`; sparse, so that sums do not depend on the number of threads."""
    edges = mel_edges(LOWEST_HZ, HIGHEST_HZ, BANDS)
    return scipy.sparse.csr_array(triangles(edges, SAMPLE_RATE, WINDOW).astype(np.float32))
