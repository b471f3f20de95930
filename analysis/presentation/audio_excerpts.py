"""Excerpts: short pieces of audio files that a page plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from embeddings.audio.decode import read_clip
from embeddings.errors import RootnoteError
from embeddings.provenance import replacing

RATE = 44_100


def write_excerpt(source: Path, start: float, seconds: float, folder: Path, name: str) -> str | None:
    """Write `folder`/audio/`name` and give its address in a page in `folder`; None where the source cannot be read.

    Written anew each time: what an earlier run left under that name may be of other music.
    """
    try:
        clip = read_clip(source, start, seconds, RATE)
    except RootnoteError:
        return None
    with replacing(folder / "audio" / name) as temporary:
        soundfile.write(temporary, clip / max(1.0, float(np.abs(clip).max())), RATE, format="FLAC")
    return f"audio/{name}"
