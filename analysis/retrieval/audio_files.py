"""Pieces: audio files outside the corpus, cut into clips of the same length and embedded like the corpus.

A piece is cut from `begin_s` on, one clip every `hop_seconds`; only complete clips count. Silent clips (below the
corpus's threshold) are skipped; a piece that cannot be decoded or gives no clip is skipped with a reason.
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
    """An audio file and the part to use: from `begin_s` to `end_s` (None: the end of the file) minus `suffix_s`."""

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

    `left_out` gives the reason for each piece without a clip, by index.
    """

    piece: Rows
    starts: npt.NDArray[np.float64]
    vectors: Vectors
    left_out: dict[int, str]


def embed_pieces(
    pieces: Sequence[Piece], subject: EmbeddedCorpus, cutting: PieceCutting, progress: Progress | None = None
) -> Embedded:
    """Cut and embed pieces; several threads decode while the calling thread embeds batches.

    Raises:
        RootnoteError: if no piece gives a clip.
    """
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
        raise RootnoteError(
            f"no piece of {len(pieces):,} gives a clip ({first}); give audio files of at least one clip length."
        )
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
                # Resampling may lose a few samples of the last whole clip: add up to 5 ms of silence.
                yield np.zeros(rate // 200, np.float32)

            cut = [(piece.begin_s + index * cutting.hop_seconds, clip)
                   for index, clip in enumerate(windows(blocks(), positions, length))]  # fmt: skip
    except AudioError as error:
        return str(error).rstrip(".")
    end = counted / rate + 0.005 - piece.suffix_s
    if piece.end_s is not None:
        end = min(end, piece.end_s + 0.005)
    whole = [(start, clip) for start, clip in cut if start + cutting.seconds <= end]
    audible = [(start, clip) for start, clip in whole if rms_dbfs(clip) >= cutting.silence_dbfs]
    if audible:
        return audible
    if whole:
        return f"{piece.path} is silent"
    return f"{piece.path} has less than {cutting.seconds:g} s without its prompt"
