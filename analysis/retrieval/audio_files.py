"""Pieces: audio files outside the corpus, cut into clips of its length and embedded as it was.

A piece's clips follow one another without overlap from `begin_s` on; only whole clips count, silent ones (below the
corpus's threshold) are left out, and what cannot be decoded or gives no clip is named and left out.
Conventions: seconds from the file's first sample; row i of every array is clip i.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analysis.retrieval.robustness.run import EmbeddedCorpus
from embeddings.audio.decode import Samples, Track, rms_dbfs, windows
from embeddings.errors import AudioError, RootnoteError
from embeddings.models.base import Vectors, embed_clips
from embeddings.threads import cores, map_in_order

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Piece:
    """An audio file and the part of it that counts: from `begin_s` to `end_s` (None: its end) less `suffix_s`."""

    path: Path
    begin_s: float = 0.0
    end_s: float | None = None
    suffix_s: float = 0.0


@dataclass(frozen=True)
class PieceCutting:
    """How pieces are cut: clip length and hop in seconds, and the level in dBFS below which a clip is silent."""

    seconds: float
    hop_seconds: float
    silence_dbfs: float = -60.0


@dataclass(frozen=True)
class Embedded:
    """Clips of several pieces: `piece` `[N]` (index), `starts` `[N]` seconds, `vectors` `[N, dim]` unit rows.

    `left_out` says why a piece (by index) gave no clip.
    """

    piece: Rows
    starts: npt.NDArray[np.float64]
    vectors: Vectors
    left_out: dict[int, str]


def embed_pieces(
    pieces: Sequence[Piece], subject: EmbeddedCorpus, cutting: PieceCutting, progress: Progress | None = None
) -> Embedded:
    """Cut and embed pieces; several threads decode while this one embeds whole batches."""
    left_out: dict[int, str] = {}
    owner: list[int] = []
    starts: list[float] = []
    vectors: list[Vectors] = []
    rate = subject.embedder.sample_rate

    def clips() -> Iterator[tuple[int, float, Samples]]:
        found = map_in_order(lambda piece: _cut(piece, cutting, rate), pieces, cores())
        for index, result in enumerate(found):
            if isinstance(result, str):
                left_out[index] = result
            else:
                yield from ((index, start, clip) for start, clip in result)
            if progress:
                progress(index + 1, len(pieces))

    stream = clips()
    while batch := list(itertools.islice(stream, subject.embedder.batch_size)):
        owner += [index for index, _, _ in batch]
        starts += [start for _, start, _ in batch]
        vectors.append(embed_clips(subject.embedder, subject.projection, np.stack([clip for _, _, clip in batch])))
    if not vectors:
        first = next(iter(left_out.values()), "there are none")
        raise RootnoteError(f"none of the {len(pieces):,} pieces gives a clip ({first}).")
    return Embedded(np.array(owner, np.int64), np.array(starts), np.concatenate(vectors), left_out)


def _cut(piece: Piece, cutting: PieceCutting, rate: int) -> list[tuple[float, Samples]] | str:
    """The clips of a piece with their starts, or why there are none."""
    length = round(cutting.seconds * rate)
    positions = (round((piece.begin_s + index * cutting.hop_seconds) * rate) for index in itertools.count())
    counted = 0
    try:
        with Track(piece.path) as track:

            def blocks() -> Iterator[Samples]:
                nonlocal counted
                for block in track.blocks(rate):
                    counted += len(block)
                    yield block
                # Resampling may end a few samples short of the last whole clip: silence makes up for up to 5 ms.
                yield np.zeros(rate // 200, np.float32)

            cut = [(piece.begin_s + index * cutting.hop_seconds, clip)
                   for index, clip in enumerate(windows(blocks(), positions, length))]  # fmt: skip
    except AudioError as error:
        return str(error).rstrip(".")
    end = counted / rate + 0.005 - piece.suffix_s
    if piece.end_s is not None:
        end = min(end, piece.end_s + 0.005)
    whole = [(start, clip) for start, clip in cut if start + cutting.seconds <= end]
    heard = [(start, clip) for start, clip in whole if rms_dbfs(clip) >= cutting.silence_dbfs]
    if heard:
        return heard
    if whole:
        return f"{piece.path} is silent"
    return f"{piece.path} has no {cutting.seconds:g} s of its own"
