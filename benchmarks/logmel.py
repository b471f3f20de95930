"""`logmel` on a folder of music: its bins, and whether an altered clip finds its original.

Usage: python benchmarks/logmel.py AUDIO_DIR [--queries 300] [--timbre 0 0.35 0.7] [--dim 32 48 64]
Stretch and pitch are a plain phase vocoder; librosa's gave the same rates within 1 %.
Hit@1: the altered clip's nearest clip of the whole corpus is the one it was made from.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embeddings.audio.corpus import cut, tracks_of
from embeddings.audio.decode import read_clips
from embeddings.models import logmel
from embeddings.models.base import Vectors
from embeddings.search.exact import nearest

Clips = npt.NDArray[np.float32]
WINDOW, HOP = 2048, 512


def add_noise(clips: Clips, level_db: float, rng: np.random.Generator) -> Clips:
    """White noise at `level_db` relative to each clip's RMS."""
    rms = np.sqrt(np.square(clips).mean(axis=1, keepdims=True))
    noise = rng.standard_normal(clips.shape, dtype=np.float32)
    return clips + noise * rms * np.float32(10 ** (level_db / 20))


def stretch(clip: Clips, rate: float) -> Clips:
    """Phase vocoder: `rate` above 1 is faster, and the result is shorter."""
    edge = np.pad(clip, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(edge, WINDOW)[::HOP] * scipy.signal.windows.hann(WINDOW, False)
    spectrum = np.fft.rfft(frames, axis=1)
    steps = np.arange(0, len(spectrum) - 1, rate)
    whole, part = steps.astype(int), (steps % 1)[:, None]
    advance = 2 * np.pi * HOP * np.arange(spectrum.shape[1]) / WINDOW
    turn = np.angle(spectrum[whole + 1]) - np.angle(spectrum[whole]) - advance
    turn = turn - 2 * np.pi * np.round(turn / (2 * np.pi)) + advance
    phase = np.angle(spectrum[0]) + np.concatenate([np.zeros((1, turn.shape[1])), np.cumsum(turn, axis=0)[:-1]])
    size = (1 - part) * np.abs(spectrum[whole]) + part * np.abs(spectrum[whole + 1])
    grains = np.fft.irfft(size * np.exp(1j * phase), axis=1) * scipy.signal.windows.hann(WINDOW, False)
    out = np.zeros(HOP * len(grains) + WINDOW)
    for index, grain in enumerate(grains):
        out[index * HOP : index * HOP + WINDOW] += grain
    length = round(len(clip) / rate)
    return (out[WINDOW // 2 :][:length] / 1.5).astype(np.float32)


def shift(clip: Clips, semitones: float) -> Clips:
    """Transpose by stretching and resampling to the original length."""
    slower = stretch(clip, 2 ** (-semitones / 12))
    return np.asarray(scipy.signal.resample(slower, len(clip)), dtype=np.float32)


def fitted_to(clip: Clips, length: int) -> Clips:
    return np.pad(clip, (0, max(0, length - len(clip))))[:length]


PERTURBATIONS: dict[str, Callable[[Clips, np.random.Generator], Clips]] = {
    "noise -18 dB": lambda clips, rng: add_noise(clips, -18, rng),
    "stretch 0.95": lambda clips, _: _each(clips, lambda clip: stretch(clip, 0.95)),
    "stretch 1.05": lambda clips, _: _each(clips, lambda clip: stretch(clip, 1.05)),
    "pitch -3": lambda clips, _: _each(clips, lambda clip: shift(clip, -3)),
    "pitch -1": lambda clips, _: _each(clips, lambda clip: shift(clip, -1)),
    "pitch +1": lambda clips, _: _each(clips, lambda clip: shift(clip, 1)),
    "pitch +3": lambda clips, _: _each(clips, lambda clip: shift(clip, 3)),
}


def _each(clips: Clips, change: Callable[[Clips], Clips]) -> Clips:
    return np.stack([fitted_to(change(clip), clips.shape[1]) for clip in clips])


def read_corpus(audio_dir: Path) -> tuple[Clips, npt.NDArray[np.int64]]:
    table = cut(audio_dir).table
    clips = [
        clip
        for path, starts, seconds in tracks_of(table)
        for clip in read_clips(audio_dir / path, starts, seconds, logmel.SAMPLE_RATE)
    ]
    return np.stack(clips), table["track"].to_numpy()


def bins_of(vectors: Vectors, tracks: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Bin centres as in Section 4.1, and the number of prompts that have triplets with clips of other tracks."""
    rng = np.random.default_rng(0)
    prompts = rng.permutation(len(vectors))[:1000]
    k = min(len(vectors) - 1, max(50, len(vectors) // 500))
    found = nearest(vectors, vectors[prompts], k, exclude=prompts)
    mean, deviation = float(found.scores.mean(dtype=np.float64)), float(found.scores.std(dtype=np.float64))
    half = len(vectors) // 2
    one, other = np.split(rng.permutation(len(vectors))[: 2 * min(1000, half)], 2)
    random = float((vectors[one] @ vectors[other].T).mean(dtype=np.float64))
    centres = [mean + 2 * deviation, mean + deviation, mean]
    elsewhere = tracks[found.rows] != tracks[prompts][:, None]
    near = [np.abs(found.scores - centre) <= 0.02 for centre in centres]
    return {
        "centres": [*centres, random],
        "sigma": deviation,
        "scores": [int(inside.sum()) for inside in near],
        "prompts": int(np.all([(inside & elsewhere).any(axis=1) for inside in near], axis=0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio_dir", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--timbre", type=float, nargs="+", default=[logmel.TIMBRE_WEIGHT])
    parser.add_argument("--dim", type=int, nargs="+", default=[logmel.DIM])
    options = parser.parse_args()
    clips, tracks = read_corpus(options.audio_dir)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(clips), min(options.queries, len(clips)), replace=False))
    embedder = logmel.load()
    began = time.perf_counter()
    features = embedder.embed(clips)
    print(f"{len(clips)} clips of {tracks.max() + 1} tracks; {len(clips) / (time.perf_counter() - began):.0f} clips/s")
    altered = {name: embedder.embed(change(clips[rows], rng)) for name, change in PERTURBATIONS.items()}
    print("| timbre | dim | bins 1, 2, 3, 4 | σ | scores in 1, 2, 3 | prompts |", " | ".join(altered), "|")
    print("|---" * (6 + len(altered)) + "|")
    for timbre, dim in itertools.product(options.timbre, options.dim):
        logmel.TIMBRE_WEIGHT, logmel.DIM = timbre, dim
        projection = embedder.fit(features)
        vectors = projection.apply(features)
        bins = bins_of(vectors, tracks)
        hits = [(nearest(vectors, projection.apply(query), 1).rows[:, 0] == rows).mean() for query in altered.values()]
        centres = ", ".join(f"{centre:.3f}" for centre in bins["centres"])
        scores = ", ".join(map(str, bins["scores"]))
        rates = " | ".join(f"{hit:.1%}" for hit in hits)
        print(f"| {timbre} | {dim} | {centres} | {bins['sigma']:.3f} | {scores} | {bins['prompts']} | {rates} |")


if __name__ == "__main__":
    main()
