"""Content hashes: detect clips with the same samples, whatever files they come from.

The hash of a clip is BLAKE2b (128 bits) of its mono samples at the file's sample rate, rounded to 16 bits. A copy with
another name or in another lossless format has the same hash. A copy that was compressed with loss or resampled has a
different one.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.audio.corpus import Progress, TrackClips, require_audio, tracks_of
from embeddings.audio.decode import Track, windows
from embeddings.errors import AudioError
from embeddings.threads import cores, map_in_order

Hashes = npt.NDArray[np.uint64]


def content_hashes(
    table: pa.Table, audio_dir: Path, *, progress: Progress | None = None, workers: int | None = None
) -> Hashes:
    """The hash of every clip, `[clips, 2]`; each track is decoded once, several tracks at a time.

    Args:
        progress: called with the number of clips done and their total.

    Raises:
        StaleArtefactError: if a file of the corpus is missing or has changed.
        AudioError: if a file cannot be decoded.
    """
    require_audio(table, audio_dir)
    hashes = np.zeros((table.num_rows, 2), np.uint64)
    done = 0
    work = functools.partial(_track_hashes, audio_dir)
    for track in map_in_order(work, tracks_of(table), workers or cores()):
        hashes[done : done + len(track)] = track
        done += len(track)
        if progress:
            progress(done, table.num_rows)
    return hashes


def _track_hashes(audio_dir: Path, clips: TrackClips) -> Hashes:
    name, starts, seconds = clips
    path = audio_dir / name
    digests = []
    with Track(path) as track:
        rate = track.sample_rate
        positions = [round(start * rate) for start in starts]
        for samples in windows(track.blocks(), positions, round(seconds * rate)):
            rounded = np.clip(np.rint(samples * np.float32(2**15)), -(2**15), 2**15 - 1).astype("<i2")
            digests.append(hashlib.blake2b(rounded, digest_size=16).digest())
    if len(digests) < len(starts):
        raise AudioError(path, f"it ends before {starts[len(digests)] + seconds:.3f} s")
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
