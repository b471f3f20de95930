"""logmel: a clip's log-mel spectrogram as one vector, with no weights to download.

Two descriptions of the spectrogram are put side by side:

- its shape: magnitudes of the two-dimensional Fourier transform of a log-frequency, log-power spectrogram
  (24 bands an octave). A magnitude does not change when the picture moves, so a transposed or delayed clip
  keeps its description; spacing of partials and chords, roughness and rhythm remain.
- its timbre: mean, deviation and mean change over time of each of 128 mel bands, with a smaller weight.

What they are projected on is fitted to the corpus: centring, principal components, whitening with shrinkage.
Conventions: mono at 22,050 Hz; power is relative to the clip's mean, so level does not matter; the floor of
-20 dB keeps faint noise out. Vectors of clips of different length are not comparable, nor are those of two fits.
The choice, and what else was tried: docs/decisions/0002-logmel.md.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.fft
import scipy.linalg
import scipy.sparse

from embeddings.models.base import ModelOptions, Projection, Vectors, refuse_options

SAMPLE_RATE = 22_050
DIM = 48
WINDOW, HOP = 4096, 1024
LOWEST_HZ, OCTAVES, BANDS_PER_OCTAVE = 65.4, 7, 24
MEL_BANDS, MEL_LOWEST_HZ = 128, 30.0
FLOOR = 0.01
FREQUENCY_RATES, TIME_RATES = 64, 16  # how many of the slowest undulations are kept
MAGNITUDE_FLOOR = 0.0143
TIMBRE_WEIGHT = 0.35
SHRINKAGE = 0.05
_SHAPE = FREQUENCY_RATES * (2 * TIME_RATES - 1)
_AT_ONCE = 16  # clips whose spectra are held at a time


class LogMel:
    """The embedder `logmel`; see the module."""

    name = "logmel"
    dim = DIM
    sample_rate = SAMPLE_RATE
    fits = True
    batch_size = 64

    def settings(self) -> dict[str, Any]:
        return {
            "version": 1,
            "window": WINDOW,
            "hop": HOP,
            "bands_per_octave": BANDS_PER_OCTAVE,
            "mel_bands": MEL_BANDS,
            "floor": FLOOR,
            "rates": [FREQUENCY_RATES, TIME_RATES],
            "timbre_weight": TIMBRE_WEIGHT,
            "shrinkage": SHRINKAGE,
            "dim": DIM,
        }

    def runtime(self) -> dict[str, str]:
        return {"backend": "numpy", "numpy": np.__version__, "scipy": scipy.__version__}

    def embed(self, batch: Vectors) -> Vectors:
        """Features `[N, 2368]` of clips `[N, samples]`: shape, then timbre; `fit` makes vectors of them."""
        parts = [_features(batch[begin : begin + _AT_ONCE]) for begin in range(0, len(batch), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, _SHAPE + 3 * MEL_BANDS), np.float32)

    def fit(self, features: Vectors) -> Projection:
        """Centre, balance shape against timbre, and whiten the leading principal components."""
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        spread = np.concatenate(
            [
                np.full(_SHAPE, _scale(centred[:, :_SHAPE])),
                np.full(3 * MEL_BANDS, _scale(centred[:, _SHAPE:]) * TIMBRE_WEIGHT),
            ]
        )
        variances, axes = principal(centred * spread, DIM)
        # Shrinkage keeps components of little variance, which are mostly noise, from counting in full.
        gain = np.where(variances > 0, 1 / np.sqrt(variances + SHRINKAGE * max(variances.mean(), 1e-30)), 0)
        matrix = np.zeros((features.shape[1], DIM), np.float32)
        matrix[:, : len(variances)] = spread[:, None] * axes * gain
        return Projection(mean.astype(np.float32), matrix)


def load(options: ModelOptions | None = None) -> LogMel:
    """The embedder, ready.

    Raises:
        RootnoteError: where an option is given: it has no weights, no windows and one backend.
    """
    refuse_options("logmel", options or ModelOptions())
    return LogMel()


def _scale(centred: npt.NDArray[np.float64]) -> float:
    """What brings the mean squared length of these columns to 1 (0 where they do not vary)."""
    length = float(np.square(centred).sum(axis=1).mean())
    return length**-0.5 if length > 0 else 0.0


def principal(data: npt.NDArray[np.float64], count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Variances (descending) and axes `[features, <= count]` of centred data `[N, features]`; signs are definite."""
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


def _features(clips: Vectors) -> Vectors:
    power = _power(clips)
    frames, bins = power.shape[1:]
    bands = _filters() @ power.reshape(-1, bins).T
    bands = np.ascontiguousarray(bands.reshape(-1, len(clips), frames).transpose(1, 0, 2))
    octaves = OCTAVES * BANDS_PER_OCTAVE
    return np.concatenate([_shape(_log(bands[:, :octaves])), _timbre(_log(bands[:, octaves:]))], axis=1)


def _power(clips: Vectors) -> Vectors:
    """Power spectra `[N, frames, bins]`; the clip is centred under its frames by padding with silence."""
    samples = np.asarray(clips, dtype=np.float32)
    padded = np.pad(samples, [(0, 0), (WINDOW // 2, WINDOW // 2)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::HOP]
    spectra = scipy.fft.rfft(frames * _hann(WINDOW), axis=2, workers=-1)
    power: Vectors = np.square(spectra.real) + np.square(spectra.imag)
    return power


def _log(bands: Vectors) -> Vectors:
    mean = bands.mean(axis=(1, 2), keepdims=True) + np.float32(1e-12)
    logarithm: Vectors = np.log10(bands / mean + np.float32(FLOOR))
    return logarithm


def _shape(spectrogram: Vectors) -> Vectors:
    """Log magnitudes of the slow undulations over frequency and time `[N, bands, frames]` -> `[N, 1984]`."""
    _, bands, frames = spectrogram.shape
    over_time, over_bands = _hann(frames, inner=True), np.sqrt(_hann(bands, inner=True))
    level = spectrogram.mean(axis=(1, 2), keepdims=True)
    tapered = (spectrogram - level) * (over_bands[:, None] * over_time)
    length = max(frames, 2 * TIME_RATES)
    image = scipy.fft.rfft2(tapered, s=(length, bands), axes=(2, 1), workers=-1)[:, :FREQUENCY_RATES]
    slow = np.concatenate([image[:, :, :TIME_RATES], image[:, :, 1 - TIME_RATES :]], axis=2)
    magnitude = np.abs(slow) / (over_time.sum() * over_bands.sum())
    shape: Vectors = np.log(magnitude + np.float32(MAGNITUDE_FLOOR)).reshape(len(slow), -1)
    return shape


def _timbre(spectrogram: Vectors) -> Vectors:
    change = np.abs(np.diff(spectrogram, axis=2, append=spectrogram[:, :, -1:]))
    return np.concatenate([spectrogram.mean(axis=2), spectrogram.std(axis=2), change.mean(axis=2)], axis=1)


@functools.cache
def _hann(length: int, inner: bool = False) -> Vectors:
    """A periodic Hann window, or with `inner` a symmetric one without its zeros."""
    window = np.hanning(length + 2)[1:-1] if inner else np.hanning(length + 1)[:-1]
    rounded: Vectors = window.astype(np.float32)
    return rounded


@functools.cache
def _filters() -> scipy.sparse.csr_array:
    """Triangular filters of unit sum, `[log-frequency bands + mel bands, bins]`.

    Sparse, because they are mostly zeros, and because a dense product may differ in the last bit with the number of
    threads, which vectors must not.
    """
    steps = np.arange(-1, OCTAVES * BANDS_PER_OCTAVE + 1)
    log_edges = LOWEST_HZ * 2 ** (steps / BANDS_PER_OCTAVE)
    mels = np.linspace(_mel(MEL_LOWEST_HZ), _mel(SAMPLE_RATE / 2), MEL_BANDS + 2)
    mel_edges = 700 * (10 ** (mels / 2595) - 1)
    return scipy.sparse.csr_array(np.concatenate([_triangles(log_edges), _triangles(mel_edges)]))


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _triangles(edges: npt.NDArray[np.float64]) -> Vectors:
    width = SAMPLE_RATE / WINDOW
    bins = np.arange(WINDOW // 2 + 1) * width
    low, centre, high = (edges[index : len(edges) - 2 + index, None] for index in range(3))
    # At least one bin wide on each side, so that no low band is empty.
    low, high = np.minimum(low, centre - width), np.maximum(high, centre + width)
    weights = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    filters: Vectors = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return filters
