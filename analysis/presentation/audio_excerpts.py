"""Excerpts: short parts of audio files for a page to play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from embeddings.audio.decode import read_clip
from embeddings.errors import RootnoteError
from embeddings.provenance import replacing

RATE = 44_100


def write_excerpt(source: Path, start: float, seconds: float, folder: Path, name: str) -> str | None:
    """Write `folder`/audio/`name` as FLAC; the relative URL for a page in `folder`, None if the source cannot be read.

    It is written every time, because a file of an earlier run under that name may be from other music.
    """
    try:
        clip = read_clip(source, start, seconds, RATE)
    except RootnoteError:
        return None
    with replacing(folder / "audio" / name) as temporary:
        soundfile.write(temporary, clip / max(1.0, float(np.abs(clip).max())), RATE, format="FLAC")
    return f"audio/{name}"
