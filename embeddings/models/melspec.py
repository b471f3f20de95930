"""melspec: what happens when in a clip's log-mel spectrogram, for finding copies rather than likenesses.

Sixty-four mel bands in frames of a fifteenth of the clip (200 ms), in dB above a floor 60 dB below the loudest frame;
each band's mean over the clip is taken off, so that the colour of the sound does not count. The description is
projected on principal components that are fitted to the corpus and whitened, or else one drum beat would resemble
every other. Copies stay near through compression, gain and filters, but not through more than a tenth of a second
of shift: look for them in small steps. That the log-mel spectrogram tells near-identical audio more robustly than
learned vectors was found by Bralios et al. (ICASSP 2024).
Conventions: mono at 22,050 Hz; no weights. Vectors of two fits are not comparable.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.fft
import scipy.sparse

from embeddings.models.base import ModelOptions, Projection, Vectors, refuse_options
from embeddings.models.logmel import principal

SAMPLE_RATE = 22_050
DIM = 256
BANDS, FRAMES = 64, 15
WINDOW, PER_FRAME = 2048, 3  # spectra a frame, whose powers are averaged
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
        """Features `[N, 960]` of clips `[N, samples]`; `fit` makes vectors of them."""
        parts = [_features(batch[begin : begin + _AT_ONCE]) for begin in range(0, len(batch), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, BANDS * FRAMES), np.float32)

    def fit(self, features: Vectors) -> Projection:
        """Centre, and whiten the leading principal components with shrinkage."""
        mean = features.mean(axis=0, dtype=np.float64)
        variances, axes = principal(features - mean, DIM)
        gain = np.where(variances > 0, 1 / np.sqrt(variances + SHRINKAGE * max(variances.mean(), 1e-30)), 0)
        matrix = np.zeros((features.shape[1], DIM), np.float32)
        matrix[:, : len(variances)] = axes * gain
        return Projection(mean.astype(np.float32), matrix)


def load(options: ModelOptions | None = None) -> MelSpec:
    """The embedder, ready.

    Raises:
        RootnoteError: where an option is given: it has no weights, no windows and one backend.
    """
    refuse_options("melspec", options or ModelOptions())
    return MelSpec()


def _features(clips: Vectors) -> Vectors:
    power = _power(np.asarray(clips, np.float32))
    bands = (_filters() @ power.reshape(-1, power.shape[2]).T).reshape(BANDS, len(clips), FRAMES).transpose(1, 2, 0)
    loudest = bands.mean(axis=2).max(axis=1)[:, None, None] + np.float32(1e-12)
    decibels = 10 * np.log10(np.maximum(bands / loudest, np.float32(10 ** (-RANGE_DB / 10))))
    changes = decibels - decibels.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(changes.reshape(len(clips), -1), dtype=np.float32)


def _power(samples: Vectors) -> Vectors:
    """Mean power spectra of the frames, `[N, frames, bins]`; a short last frame is filled up with silence."""
    hop = -(-samples.shape[1] // (FRAMES * PER_FRAME))
    missing = FRAMES * PER_FRAME * hop - samples.shape[1]
    padded = np.pad(samples, [(0, 0), (WINDOW // 2, WINDOW // 2 + missing)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::hop][:, : FRAMES * PER_FRAME]
    spectra = scipy.fft.rfft(windows * _hann(), axis=2)
    power = np.square(spectra.real) + np.square(spectra.imag)
    mean: Vectors = power.reshape(len(samples), FRAMES, PER_FRAME, -1).mean(axis=2)
    return mean


@functools.cache
def _hann() -> Vectors:
    window: Vectors = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    return window


@functools.cache
def _filters() -> scipy.sparse.csr_array:
    """Triangles on the mel scale, `[bands, bins]`; sparse, so that sums do not depend on the number of threads."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    edges: npt.NDArray[Any] = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
    width = SAMPLE_RATE / WINDOW
    # At least one bin wide on each side, so that no low band is empty.
    below = np.maximum(edges[1:-1] - edges[:-2], width)[:, None]
    above = np.maximum(edges[2:] - edges[1:-1], width)[:, None]
    away = bins - edges[1:-1, None]
    return scipy.sparse.csr_array(np.clip(np.minimum(1 + away / below, 1 - away / above), 0, None).astype(np.float32))
