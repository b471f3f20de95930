"""Shared parts of the spectrogram embedders: windows, power spectra and triangular filters.

Conventions: samples are float32 `[N, samples]`; frequencies are in Hz; mel is the scale of 2595 · log10(1 + Hz / 700).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import scipy.fft

from embeddings.models.base import Vectors


@functools.cache
def hann(length: int, inner: bool = False) -> Vectors:
    """A periodic Hann window or, with `inner`, a symmetric one without its zeros."""
    window = np.hanning(length + 2)[1:-1] if inner else np.hanning(length + 1)[:-1]
    rounded: Vectors = window.astype(np.float32)
    return rounded


def power_spectra(clips: Vectors, window: int, hop: int, frames: int | None = None) -> Vectors:
    """Power spectra `[N, frames, bins]`; frames are centred on multiples of `hop`, and the clip is zero-padded.

    Args:
        frames: number of frames; default: as many as begin in the clip.
    """
    samples = np.asarray(clips, dtype=np.float32)
    missing = 0 if frames is None else max(0, frames * hop - samples.shape[1])
    padded = np.pad(samples, [(0, 0), (window // 2, window // 2 + missing)])
    views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop][:, :frames]
    spectra = scipy.fft.rfft(views * hann(window), axis=2, workers=-1)
    power: Vectors = np.square(spectra.real) + np.square(spectra.imag)
    return power


def mel_edges(lowest: float, highest: float, bands: int) -> npt.NDArray[np.float64]:
    """The edges `[bands + 2]` in Hz of bands that are equally wide on the mel scale."""
    mels = np.linspace(_mel(lowest), _mel(highest), bands + 2)
    return np.asarray(700 * (10 ** (mels / 2595) - 1))


def triangles(edges: npt.NDArray[np.float64], sample_rate: int, window: int) -> npt.NDArray[np.float64]:
    """Triangular filters of height 1 `[bands, bins]`; each is at least one bin wide on each side, so none is empty."""
    width = sample_rate / window
    bins = np.arange(window // 2 + 1) * width
    low, centre, high = (edges[index : len(edges) - 2 + index, None] for index in range(3))
    low, high = np.minimum(low, centre - width), np.maximum(high, centre + width)
    weights = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    return np.asarray(weights)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))
