"""Nearest clips: exact cosine search by blocks of rows.

Rows and queries have unit norm, so cosine similarity is the inner product. Blocks of a memory-mapped array go
through faiss one after another and each block's best are merged into the best so far: memory grows with
queries × k and the block, never with the corpus.
Conventions: scores are float32 in descending order; equal ones are in the order of their rows (which of several
equal ones are kept at the k-th place is not defined).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from embeddings.artefacts import RootnoteError

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

BLOCK_ROWS = 65_536
_LARGEST_BLOCK = 262_144
# Queries go through together as long as their running best fits in about this many bytes.
_BEST_BYTES = 256 << 20


@dataclass(frozen=True)
class Neighbours:
    """The k nearest clips of each query: `scores` float32 `[Q, k]` descending, `rows` int64 `[Q, k]`."""

    scores: Vectors
    rows: Rows


def nearest(
    vectors: Vectors,
    queries: Vectors,
    k: int,
    *,
    exclude: Rows | Sequence[int] | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Neighbours:
    """Find the k rows of `vectors` nearest to each query by cosine, exactly.

    Args:
        vectors: `[N, dim]` float32, unit rows; may be memory-mapped.
        queries: `[Q, dim]` float32, unit rows.
        k: how many neighbours, at least 1.
        exclude: for each query one row to leave out (its own), or -1 for none.

    Raises:
        RootnoteError: where fewer than k rows can be given, shapes disagree, or a value is not finite.
    """
    left_out = _checked(vectors, queries, k, exclude, block_rows)
    # One more than k, so that k remain when the query's own row is left out.
    wanted = k + bool((left_out >= 0).any())
    parts = [_search(vectors, queries[part], wanted, block_rows) for part in _query_parts(len(queries), wanted)]
    scores = np.concatenate([scores for scores, _ in parts]) if parts else np.zeros((0, wanted), np.float32)
    rows = np.concatenate([rows for _, rows in parts]) if parts else np.zeros((0, wanted), np.int64)
    if wanted == k:
        return Neighbours(scores, rows)
    # A stable sort on "is the excluded row" moves it to the end, whence it is cut off with the surplus.
    order = np.argsort(rows == left_out[:, None], axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def _checked(vectors: Vectors, queries: Vectors, k: int, exclude: Rows | Sequence[int] | None, block_rows: int) -> Rows:
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise RootnoteError(f"vectors {vectors.shape} and queries {queries.shape} do not go together.")
    if k < 1 or block_rows < 1:
        raise RootnoteError("k and block_rows must be at least 1.")
    left_out = np.full(len(queries), -1, np.int64) if exclude is None else np.asarray(exclude, np.int64)
    if left_out.shape != (len(queries),):
        raise RootnoteError(f"exclude must hold one row for each of the {len(queries)} queries.")
    if len(left_out) and (left_out.max() >= len(vectors) or left_out.min() < -1):
        raise RootnoteError(f"exclude names a row outside 0 to {len(vectors) - 1}.")
    available = len(vectors) - bool((left_out >= 0).any())
    if k > available:
        raise RootnoteError(f"{k} neighbours were asked of {available} clips; ask for fewer, or add music.")
    if not np.isfinite(queries).all():
        raise RootnoteError("a query holds a value that is not finite.")
    return left_out


def _query_parts(count: int, wanted: int) -> Iterator[slice]:
    size = max(1, _BEST_BYTES // (12 * 2 * wanted))
    return (slice(begin, begin + size) for begin in range(0, count, size))


def _search(vectors: Vectors, queries: Vectors, wanted: int, block_rows: int) -> tuple[Vectors, Rows]:
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    # A block that gives no more than a few times k would spend its time on merging.
    block_rows = max(block_rows, min(16 * wanted, _LARGEST_BLOCK)) if block_rows == BLOCK_ROWS else block_rows
    best: tuple[Vectors, Rows] | None = None
    for begin in range(0, len(vectors), block_rows):
        block = np.ascontiguousarray(vectors[begin : begin + block_rows], dtype=np.float32)
        if not np.isfinite(block).all():
            raise RootnoteError(f"the vectors hold a value that is not finite in rows {begin} and on.")
        found = _search_block(queries, block, begin, wanted)
        best = found if best is None else _merge(best, found)
    assert best is not None  # there are at least `wanted` rows
    scores, rows = best
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _search_block(queries: Vectors, block: Vectors, begin: int, wanted: int) -> tuple[Vectors, Rows]:
    """The best `wanted` of one block; where it has fewer, the rest are row -1 with score -inf."""
    count = min(wanted, len(block))
    scores = np.full((len(queries), wanted), -np.inf, np.float32)
    rows = np.full((len(queries), wanted), -1, np.int64)
    scores[:, :count], local = faiss.knn(queries, block, count, metric=faiss.METRIC_INNER_PRODUCT)
    rows[:, :count] = local + begin
    return scores, rows


def _merge(one: tuple[Vectors, Rows], other: tuple[Vectors, Rows]) -> tuple[Vectors, Rows]:
    scores, rows = faiss.merge_knn_results(np.stack([one[0], other[0]]), np.stack([one[1], other[1]]), keep_max=True)
    return scores, rows
