"""Ranking: the rank of a target clip among all clips of a corpus.

A query is a perturbed clip. Its target is the row of the corpus that it was made from; the corpus contains the
original, not the query. The **rank** of a target is 1 plus the number of rows that are more similar to the query; the
rank of its track is 1 plus the number of other tracks with a clip more similar than the target track's best clip.
If clips overlap, the rows that share at least half of their duration with the target count as the target, and the most
similar of them determines its rank (`sharing`).
Ties and duplicates: a row counts as more similar only if its cosine exceeds the target's by more than `TIE`, so an
exact copy elsewhere in the corpus, or a rounding error, does not turn a hit into a miss.
Conventions: cosines of unit rows in float32; a **hit at k** is a rank of at most k; rates have Wilson's 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import binomtest

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

TIE = 1e-6
KS = (1, 5, 10)
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Found:
    """For each query `[Q]`: its cosine with the target, and the ranks of target and track, from 1."""

    similarity: Vectors
    rank: Rows
    track_rank: Rows


@dataclass(frozen=True)
class Rate:
    """A share of `n` with Wilson's 95 % interval (Wilson, JASA 22, 1927)."""

    hits: int
    n: int
    rate: float
    low: float
    high: float


def sharing(table: pa.Table, targets: Rows) -> tuple[Rows, Rows]:
    """The rows that count as each target, as `first` and `last` `[Q]` (exclusive).

    They are the rows of its track that share at least half of their duration with it; without overlap, the target
    alone.

    Args:
        table: the corpus; a track's clips are consecutive rows in the order of their starts.
    """
    track, start = table["track"].to_numpy(), table["start_s"].to_numpy()
    reach = float(table["duration_s"][0].as_py()) / 2 + 1e-3
    # Tracks are placed far apart on one time axis, so that a search by time stays within a track.
    line = start + track * (2 * float(start.max()) + 4 * reach)
    first = np.searchsorted(line, line[targets] - reach)
    last = np.searchsorted(line, line[targets] + reach)
    return first.astype(np.int64), last.astype(np.int64)


def ranks(
    vectors: npt.NDArray[Any],
    tracks: Rows,
    queries: Vectors,
    targets: Rows,
    alike: tuple[Rows, Rows] | None = None,
) -> Found:
    """Rank each query's target and its track among all rows, exactly, in one pass over the corpus.

    Args:
        vectors: `[N, dim]` unit rows, float32 or float16; may be memory-mapped.
        tracks: `[N]` the track of each row; the rows of a track are consecutive.
        queries: `[Q, dim]` float32 unit rows.
        targets: `[Q]` the row that each query was made from.
        alike: for each target, the rows that count as it, as returned by `sharing`; default: the target alone.

    Raises:
        ValueError: if shapes disagree.
    """
    if vectors.ndim != 2 or queries.shape != (len(targets), vectors.shape[1]) or len(tracks) != len(vectors):
        raise ValueError(f"vectors {vectors.shape}, queries {queries.shape} and targets have shapes that disagree")
    starts = np.flatnonzero(np.diff(tracks, prepend=tracks[0] - 1))
    owner = np.searchsorted(starts, targets, side="right") - 1
    similarity = np.einsum("qd,qd->q", queries, np.asarray(vectors[targets], np.float32))
    best = np.array([
        _best(vectors, starts[track], _end(starts, track + 1, len(vectors)), query)
        for track, query in zip(owner, queries, strict=True)
    ])  # fmt: skip
    own = similarity
    if alike is not None:
        own = np.array([_best(vectors, first, last, query) for first, last, query in zip(*alike, queries, strict=True)])
    above = np.zeros(len(queries), np.int64)
    tracks_above = np.zeros(len(queries), np.int64)
    for first, last in _blocks(starts, len(vectors)):
        scores = queries @ np.asarray(vectors[starts[first] : _end(starts, last, len(vectors))], np.float32).T
        above += (scores > (own + np.float32(TIE))[:, None]).sum(axis=1)
        tops = np.maximum.reduceat(scores, starts[first:last] - starts[first], axis=1)
        others = np.arange(first, last)[None] != owner[:, None]
        tracks_above += ((tops > (best + np.float32(TIE))[:, None]) & others).sum(axis=1)
    return Found(similarity, above + 1, tracks_above + 1)


def hit_rate(found_ranks: Rows, k: int) -> Rate:
    """The share of ranks that are at most `k`.

    Raises:
        ValueError: if there are no ranks.
    """
    return share(int((np.asarray(found_ranks) <= k).sum()), len(found_ranks))


def share(hits: int, n: int) -> Rate:
    """`hits` of `n` with Wilson's 95 % interval.

    Raises:
        ValueError: unless 0 <= hits <= n and n > 0.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"0 <= hits <= n and n > 0 are required, not hits={hits}, n={n}")
    interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Rate(hits, n, hits / n, float(interval.low), float(interval.high))


def _best(vectors: npt.NDArray[Any], first: int, last: int, query: Vectors) -> np.float32:
    rows = np.asarray(vectors[first:last], np.float32)
    best: np.float32 = (rows @ query).max()
    return best


def _end(starts: Sequence[int] | Rows, track: int, rows: int) -> int:
    """The row after the last row of the track before `track`."""
    return int(starts[track]) if track < len(starts) else rows


def _blocks(starts: Rows, rows: int) -> list[tuple[int, int]]:
    """Ranges of whole tracks, of about `_BLOCK_ROWS` rows each (a longer track is one block)."""
    blocks, first = [], 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + _BLOCK_ROWS, side="right")) - 1
        last = len(starts) if starts[first] + _BLOCK_ROWS >= rows else max(last, first + 1)
        blocks.append((first, last))
        first = last
    return blocks
