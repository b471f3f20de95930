"""A small corpus of synthetic music with logmel vectors, made by the commands."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

import rootnote
from tests.embeddings.sounds import melody, write

TRACKS, SECONDS = 6, 15.5


def call(*arguments: object) -> Result:
    return CliRunner().invoke(rootnote.cli, [str(one) for one in arguments])


def make_corpus(folder: Path, tracks: int = TRACKS, seconds: float = SECONDS) -> Path:
    """`folder` with music/, corpus.parquet and v.npy; each track is cut into clips of 3 s."""
    for number in range(tracks):
        tags = {"artist": f"Artist {number % 2}", "title": f"Song {number}", "genre": ("folk", "jazz")[number % 2]}
        write(folder / "music" / f"{number}.flac", melody(seconds, number), tags=tags)
    done = call("embeddings", "cut", folder / "music", "--out", folder / "corpus.parquet")
    assert done.exit_code == 0, (done.output, done.exception)
    options = ("--corpus", folder / "corpus.parquet", "--embedder", "logmel", "--out", folder / "v.npy")
    done = call("embeddings", "embed", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    return folder
