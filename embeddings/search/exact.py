"""Nearest clips: exact cosine search.

Rows and queries have unit norm, so cosine similarity is the inner product. The work is done by
`embeddings.search.scan_cpu`: memory grows with queries × k, never with the corpus, which may be a memory-mapped file.
Conventions: scores are float32 in descending order; ties are in the order of their rows, also at the k-th place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embeddings.errors import ConfigError, DataError
from embeddings.wording import counted

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# (query numbers [q], scores [q, m], rows [q, m]) -> which of these results are allowed, [q, m]
Allowed = Callable[[Rows, Vectors, Rows], Mask]


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
) -> Neighbours:
    """Find the k rows of `vectors` nearest to each query by cosine, exactly.

    Args:
        vectors: `[N, dim]` float32 or float16, unit rows; may be memory-mapped.
        queries: `[Q, dim]` float32, unit rows.
        k: the number of neighbours, at least 1.
        exclude: for each query, one row to leave out (its own), or -1 for none.

    Raises:
        ConfigError: if k is below 1.
        DataError: if there are fewer than k rows, shapes disagree, or a value is not finite.
    """
    left_out = _checked(vectors, queries, k, exclude)
    # One more than k, so that k remain when the query's own row is left out.
    wanted = k + bool((left_out >= 0).any())
    scores, rows = _scan(vectors, queries, wanted)
    if wanted == k:
        return Neighbours(scores, rows)
    # A stable sort on "is the excluded row" moves it to the end, where it is cut off with the surplus.
    order = np.argsort(rows == left_out[:, None], axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def nearest_allowed(vectors: Vectors, queries: Vectors, k: int, allowed: Allowed, *, surplus: int = 0) -> Neighbours:
    """Find the k nearest rows of each query among those that `allowed` accepts, exactly.

    More rows than k are requested, and again more for the queries that need them, until enough are accepted.

    Args:
        vectors, queries, k: as in `nearest`.
        allowed: which results a query accepts; it may depend only on the query, the score and the row.
        surplus: how many refused rows to expect at most for a typical query; it affects only the speed.

    Returns:
        Neighbours of k columns, or of fewer if a query accepts fewer than k rows of the whole corpus.

    Raises:
        As `nearest`.
    """
    count, wanted = len(vectors), k + surplus
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    pending = np.arange(len(queries))
    while len(pending):
        wanted = min(wanted, count)
        found = nearest(vectors, queries[pending], wanted)
        accepted = allowed(pending, found.scores, found.rows)
        enough = accepted.sum(axis=1)
        if wanted == count:
            k = min(k, int(enough.min()))
        done = enough >= k
        # A stable sort on "is refused" moves the refused to the end, where they are cut off.
        order = np.argsort(~accepted[done], axis=1, kind="stable")[:, :k]
        scores[pending[done], :k] = np.take_along_axis(found.scores[done], order, axis=1)
        rows[pending[done], :k] = np.take_along_axis(found.rows[done], order, axis=1)
        pending, wanted = pending[~done], 2 * wanted
    return Neighbours(scores[:, :k], rows[:, :k])


def _scan(vectors: Vectors, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    # Imported here: torch and numba take seconds, and not every command that reads vectors searches them.
    import torch

    if torch.cuda.is_available():
        from embeddings.search.scan_gpu import scan_on

        return scan_on("cuda", vectors, queries, k)
    from embeddings.search.scan_cpu import scan

    return scan(vectors, queries, k)


def _checked(vectors: Vectors, queries: Vectors, k: int, exclude: Rows | Sequence[int] | None) -> Rows:
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise DataError(f"vectors {vectors.shape} and queries {queries.shape} have different dimensions.")
    if k < 1:
        raise ConfigError("k must be at least 1.")
    left_out = np.full(len(queries), -1, np.int64) if exclude is None else np.asarray(exclude, np.int64)
    if left_out.shape != (len(queries),):
        raise DataError(f"exclude must have one row for each of the {len(queries):,} queries.")
    if len(left_out) and (left_out.max() >= len(vectors) or left_out.min() < -1):
        raise DataError(f"exclude has a row outside 0 to {len(vectors) - 1:,}.")
    available = len(vectors) - bool((left_out >= 0).any())
    if k > available:
        raise DataError(
            f"{counted(k, 'neighbour')} requested, but there are only {counted(available, 'clip')}; "
            "request fewer, or add music."
        )
    if not np.isfinite(queries).all():
        raise DataError("a query has a value that is not finite.")
    return left_out
