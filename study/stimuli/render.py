"""Stimuli: the clips of a study as listeners hear them.

Each clip is rendered once: mono (as the embedders hear it), −23 LUFS (ITU-R BS.1770), true peak at most −1 dBTP,
raised-cosine fades, 16-bit PCM in WAV with dither, all of the same length. If BS.1770's gate leaves nothing to
measure or the clip is shorter than its 0.4-s block, RMS is matched instead and the index says so. If loudness and peak
conflict, the peak limit wins.

A file reveals nothing but its sound: its 44-byte header and its size depend only on the length of the clips, and its
name and dither are drawn from the study's secret key. A compressed format would give it away: the more similar a clip
is to X, the closer it usually is in compressed size.
Conventions: levels in dB re full scale, durations in seconds.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyloudnorm
import soundfile
from scipy.signal import resample_poly

from embeddings.audio.decode import read_clips
from study.config_sections import StimuliConfig
from study.secret_key import SecretKey, stimulus_name

Samples = npt.NDArray[np.float64]

OVERSAMPLING = 4  # BS.1770-4, Annex 2
BLOCK_SECONDS = 0.4


@dataclass(frozen=True)
class ClipSource:
    """The place in a track from which a clip is cut."""

    row: int
    path: Path
    start_s: float


@dataclass(frozen=True)
class Rendered:
    """A rendered clip: WAV bytes, the gain applied (dB) and how loudness was measured."""

    wav: bytes
    gain_db: float
    loudness: str


def measure_loudness(samples: Samples, sample_rate: int) -> tuple[float, str]:
    """Integrated loudness (LUFS) and "BS.1770", or the RMS level (dBFS) and "RMS" if the gate leaves nothing."""
    if len(samples) >= BLOCK_SECONDS * sample_rate:
        loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(samples))
        if math.isfinite(loudness):
            return loudness, "BS.1770"
    return _decibels(float(np.sqrt(np.mean(samples**2)))), "RMS"


def true_peak(samples: Samples) -> float:
    """Highest level between the samples too, dBTP, by fourfold oversampling (BS.1770-4, Annex 2)."""
    return _decibels(max(float(np.abs(resample_poly(samples, OVERSAMPLING, 1)).max()), float(np.abs(samples).max())))


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(max(amplitude, 1e-12))


def render(samples: Samples, config: StimuliConfig, rng: np.random.Generator) -> Rendered:
    """Render one mono clip, float64 [samples] at `config.sample_rate`."""
    faded = fade(samples, round(config.fade_ms / 1000 * config.sample_rate))
    loudness, method = measure_loudness(faded, config.sample_rate)
    # A tenth of a decibel of headroom, so that dither and rounding stay below the limit too.
    gain = min(config.loudness_lufs - loudness, config.true_peak_dbtp - 0.1 - true_peak(faded))
    scaled = faded * 10 ** (gain / 20) * 32767
    dither = rng.random(len(scaled)) - rng.random(len(scaled))
    quantised = np.clip(np.round(scaled + dither), -32768, 32767).astype(np.int16)
    return Rendered(encode(quantised, config.sample_rate), gain, method)


def fade(samples: Samples, length: int) -> Samples:
    """Raised-cosine fade in and out over `length` samples (at most half of the clip)."""
    length = min(length, len(samples) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))
    out = samples.copy()
    out[:length] *= ramp
    out[len(out) - length :] *= ramp[::-1]
    return out


def encode(samples: npt.NDArray[np.int16], sample_rate: int) -> bytes:
    """PCM in WAV: a header of 44 bytes, then the samples."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def render_all(
    folder: Path,
    sources: Iterable[ClipSource],
    catch_rows: set[int],
    config: StimuliConfig,
    clip_seconds: float,
    key: SecretKey,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, dict[str, Any]]:
    """Render every source into `folder`; its earlier content is replaced at the end, all at once.

    Rows in `catch_rows` are rendered a second time with other dither, so that a catch trial's copy of X is not
    byte-identical with X. The same key and sources give the same bytes under the same names.

    Returns:
        The index: "row" or "row/catch" -> file, sha256, gain_db, loudness.
    """
    by_path: dict[Path, list[ClipSource]] = defaultdict(list)
    for source in sources:
        by_path[source.path].append(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".stimuli-", dir=folder.parent))
    try:
        index: dict[str, dict[str, Any]] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            jobs = [
                pool.submit(_render_track, temporary, path, clips, catch_rows, config, clip_seconds, key)
                for path, clips in sorted(by_path.items())
            ]
            for job in jobs:
                index.update(job.result())
                done(len(index))
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dict(sorted(index.items()))


def _render_track(
    folder: Path,
    path: Path,
    clips: list[ClipSource],
    catch_rows: set[int],
    config: StimuliConfig,
    seconds: float,
    key: SecretKey,
) -> dict[str, dict[str, Any]]:
    clips = sorted(clips, key=lambda clip: clip.start_s)
    index = {}
    samples_of = read_clips(path, [clip.start_s for clip in clips], seconds, config.sample_rate)
    for clip, samples in zip(clips, samples_of, strict=True):
        names = [str(clip.row)] + ([f"{clip.row}/catch"] if clip.row in catch_rows else [])
        for name in names:
            rendered = render(samples.astype(np.float64), config, key.rng("dither", name))
            index[name] = _store(folder / stimulus_name(key, name), rendered)
    return index


def _store(path: Path, rendered: Rendered) -> dict[str, Any]:
    path.write_bytes(rendered.wav)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(rendered.wav).hexdigest(),
        "gain_db": round(rendered.gain_db, 3),
        "loudness": rendered.loudness,
    }


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`."""
    new.chmod(0o755)
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=".stimuli-old-", dir=folder.parent))
        folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.replace(folder)
