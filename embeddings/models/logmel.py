"""logmel: a clip's log-mel spectrogram as one vector, with no weights to download.

Two sets of features of the spectrogram are concatenated:

- shape: magnitudes of the two-dimensional Fourier transform of a log-frequency, log-power spectrogram
  (24 bands per octave). These magnitudes do not change under a shift, so a transposed or delayed clip has the same
  features; they keep the spacing of partials and chords, roughness and rhythm.
- timbre: mean, deviation and mean change over time of each of 128 mel bands, with a smaller weight.

The projection of these features is fitted to the corpus: centring, principal components, whitening with shrinkage.
Conventions: mono at 22,050 Hz; power is relative to the clip's mean, so level does not matter; a floor of
-20 dB suppresses faint noise. Vectors of clips of different lengths, or of two fits, are not comparable.
docs/decisions/0002-logmel.md explains this design and the alternatives.
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
from embeddings.models.spectrogram import hann, mel_edges, power_spectra, triangles
from embeddings.models.whitening import whitening

SAMPLE_RATE = 22_050
DIM = 48
WINDOW, HOP = 4096, 1024
LOWEST_HZ, OCTAVES, BANDS_PER_OCTAVE = 65.4, 7, 24
MEL_BANDS, MEL_LOWEST_HZ = 128, 30.0
FLOOR = 0.01
FREQUENCY_RATES, TIME_RATES = 64, 16  # how many of the slowest modulations are kept
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
    light = True
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
        """Features `[N, 2368]` of clips `[N, samples]`: shape, then timbre; the fitted projection gives vectors."""
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
        axes, gains = whitening(centred * spread, DIM, SHRINKAGE)
        matrix = np.zeros((features.shape[1], DIM), np.float32)
        matrix[:, : len(gains)] = spread[:, None] * axes * gains
        return Projection(mean.astype(np.float32), matrix)


def load(options: ModelOptions | None = None) -> LogMel:
    """The embedder, ready.

    Raises:
        RootnoteError: if an option is given: it has no weights, no windows and one backend.
    """
    refuse_options("logmel", options or ModelOptions())
    return LogMel()


def _scale(centred: npt.NDArray[np.float64]) -> float:
    """The factor that scales the mean squared length of these columns to 1 (0 if they do not vary)."""
    length = float(np.square(centred).sum(axis=1).mean())
    return length**-0.5 if length > 0 else 0.0


def _features(clips: Vectors) -> Vectors:
    power = power_spectra(clips, WINDOW, HOP)
    frames, bins = power.shape[1:]
    bands = _filters() @ power.reshape(-1, bins).T
    bands = np.ascontiguousarray(bands.reshape(-1, len(clips), frames).transpose(1, 0, 2))
    octaves = OCTAVES * BANDS_PER_OCTAVE
    return np.concatenate([_shape(_log(bands[:, :octaves])), _timbre(_log(bands[:, octaves:]))], axis=1)


def _log(bands: Vectors) -> Vectors:
    mean = bands.mean(axis=(1, 2), keepdims=True) + np.float32(1e-12)
    logarithm: Vectors = np.log10(bands / mean + np.float32(FLOOR))
    return logarithm


def _shape(spectrogram: Vectors) -> Vectors:
    """Log magnitudes of the slow modulations over frequency and time `[N, bands, frames]` -> `[N, 1984]`."""
    _, bands, frames = spectrogram.shape
    over_time, over_bands = hann(frames, inner=True), np.sqrt(hann(bands, inner=True))
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
def _filters() -> scipy.sparse.csr_array:
    """Triangular filters of unit sum, `[log-frequency bands + mel bands, bins]`.

    Sparse, because they are mostly zeros, and because the last bit of a dense product may depend on the number of
    threads.
    """
    steps = np.arange(-1, OCTAVES * BANDS_PER_OCTAVE + 1)
    log_edges = LOWEST_HZ * 2 ** (steps / BANDS_PER_OCTAVE)
    edges = (log_edges, mel_edges(MEL_LOWEST_HZ, SAMPLE_RATE / 2, MEL_BANDS))
    return scipy.sparse.csr_array(np.concatenate([_unit_sum(triangles(one, SAMPLE_RATE, WINDOW)) for one in edges]))


def _unit_sum(filters: npt.NDArray[np.float64]) -> Vectors:
    scaled: Vectors = (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled
