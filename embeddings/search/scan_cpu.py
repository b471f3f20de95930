"""The fused scan: the exact k nearest rows of a large array, faster than its matrix product in float32.

1. A bound: each query is scored coarsely against a random sample of rows. The r-th best minus its error,
   r = m + 5·√m + 2 with m = k · sample / N, is almost always below the k-th score of all rows; the exceptions are
   found at the end (3).
2. Threads take blocks of rows that stay in cache: a coarse product of all queries with the block (bfloat16 if the
   CPU is fast at it, else float32), then a compiled filter that keeps the rows that may pass the bound.
   These are scored again in float32 from the same block.
3. Queries with fewer than k rows are searched again without a bound.

Nothing is lost in the coarse product: rows are centred by the corpus mean μ, and for a query q and a centred row x
with their roundings q' and x', |q·x - q'·x'| <= |q - q'|·|x| + |q'|·|x - x'| by Cauchy-Schwarz; γ·|q'|·|x'| with
γ = 2·dim·2⁻²⁴ covers the accumulation in float32, and the rounding of the result is monotone, so it is enough to
round the threshold down. The error on this CPU is checked on the sample; if it exceeds the bound, the float32 form is
used.

Conventions: a candidate is one 64-bit key, the order of its score (descending) above its row (ascending), so that
sorting keys sorts by score and then by row, whatever the order in which threads found them. Scores do not depend on
the form, the blocks or the threads. Memory: queries × about 2·k keys per thread, whatever N.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embeddings.errors import DataError
from embeddings.search.scan_bounds import CoarseBlock, CoarseQueries, Form, Sample, fastest_form, single_threaded_pool
from embeddings.search.scan_kernels import keep16, keep32
from embeddings.search.scan_keys import NO_KEY, Keys, Rows, Vectors, key_limits, not_finite, sortable_bf16, unpacked
from embeddings.threads import cores, one_thread

BLOCK_ROWS: dict[Form, int] = {"bf16": 1024, "fp32": 512}  # measured: a block and its scores stay in cache
_TAKE = 32_768  # rows that a thread takes at a time
_KEYS_BYTES = 1 << 30


def scan(vectors: npt.NDArray[Any], queries: Vectors, k: int, form: Form | None = None) -> tuple[Vectors, Rows]:
    """The k best rows of each query: scores `[Q, k]` descending, rows `[Q, k]`; equal scores in row order.

    Args:
        vectors: `[N, dim]` float32 or float16, N >= k; may be memory-mapped.
        queries: `[Q, dim]` float32.
        form: the form of the coarse product; `None`: the faster one on this machine.

    Raises:
        RootnoteError: if a value of `vectors` is not finite.
    """
    if len(vectors) >= 2**32:
        raise DataError(f"the search takes at most {2**32:,} rows, but the vectors have {len(vectors):,}.")
    # torch needs writable arrays.
    queries = np.require(queries, np.float32, ["C", "W"])
    if not len(queries):
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    sample = Sample.of(vectors, k)
    form = form or fastest_form()
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    at_once = max(1, _KEYS_BYTES // (8 * cores() * _capacity(k)))
    for begin in range(0, len(queries), at_once):
        part = slice(begin, begin + at_once)
        keys = _search(vectors, queries[part], k, sample, form)
        scores[part], rows[part] = unpacked(keys)
    return scores, rows


def _search(vectors: npt.NDArray[Any], queries: Vectors, k: int, sample: Sample, form: Form) -> Keys:
    prepared = CoarseQueries(queries, sample, form)
    keys = _pass(vectors, prepared, prepared.bounds(sample), k)
    short = np.flatnonzero(keys[:, k - 1] == NO_KEY)
    if len(short):
        none = np.full(len(short), -np.inf, np.float32)
        keys[short] = _pass(vectors, CoarseQueries(queries[short], sample, form), none, k)
    return keys


def _pass(vectors: npt.NDArray[Any], queries: CoarseQueries, bounds: Vectors, k: int) -> Keys:
    """The k smallest keys `[Q, k]` of each query among the rows that reach its bound, ascending."""
    takes, size = itertools.count(0, _TAKE), BLOCK_ROWS[queries.form]
    stop = threading.Event()
    ahead = _read_ahead(vectors)

    def work() -> _Found:
        found = _Found(queries, bounds, k)
        try:
            while not stop.is_set() and (begin := next(takes)) < len(vectors):
                end = min(begin + _TAKE, len(vectors))
                ahead(end)
                for first in range(begin, end, size):
                    found.scan_rows(vectors[first : min(first + size, end)], first)
        except BaseException:
            stop.set()
            raise
        return found

    with one_thread(), single_threaded_pool() as pool:
        parts = [future.result() for future in [pool.submit(work) for _ in range(cores())]]
        halves = np.array_split(np.arange(len(bounds)), cores())
        return np.concatenate(list(pool.map(lambda part: _merged(parts, part, k), halves)))


class _Found:
    """The rows found by one thread: up to `capacity` keys per query, cut to the best k when full."""

    def __init__(self, queries: CoarseQueries, bounds: Vectors, k: int) -> None:
        self._queries, self._k = queries, k
        self._bounds = bounds.copy()
        count, dim = queries.exact.shape
        self._limits = key_limits(bounds)
        self._keys = np.empty((count, _capacity(k)), np.uint64)
        self._counts = np.zeros(count, np.int64)
        small = queries.form == "bf16"
        size = BLOCK_ROWS[queries.form]
        self._scores = torch.empty(count * size, dtype=torch.bfloat16 if small else torch.float32)
        self._rounded = np.empty((size, dim), np.uint16) if small else None

    def scan_rows(self, rows: npt.NDArray[Any], first: int) -> None:
        """Add the rows that may be among the best; the first of them is row `first`."""
        block = np.ascontiguousarray(rows, np.float32).view()
        block.flags.writeable = False  # so that numba compiles one version for arrays and files
        for query in np.flatnonzero(self._counts + len(block) > self._keys.shape[1]):
            self._cut(int(query))
        coarse = CoarseBlock(self._queries, block, self._rounded)
        if not math.isfinite(coarse.length):
            raise not_finite(first + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0]))
        count = len(self._counts)
        scores = coarse.scores(out=self._scores[: count * len(block)].view(count, len(block)))
        floors = self._queries.thresholds(self._bounds, coarse.length, coarse.rounding)
        kept = self._queries.exact, block, first, self._limits, self._keys, self._counts
        if self._rounded is None:
            keep32(scores.numpy(), floors, *kept)
        else:
            keep16(scores.view(torch.int16).numpy(), sortable_bf16(floors), *kept)

    def of(self, query: int) -> Keys:
        return self._keys[query, : self._counts[query]]

    def _cut(self, query: int) -> None:
        best = np.partition(self.of(query), self._k - 1)[: self._k]
        self._keys[query, : self._k] = best
        self._counts[query] = self._k
        self._limits[query] = best[self._k - 1]
        self._bounds[query] = unpacked(best[self._k - 1 : self._k])[0][0]


def _capacity(k: int) -> int:
    # At least one block more than k, and one key that is written before it is checked.
    return 2 * k + 2 * max(BLOCK_ROWS.values())


def _merged(parts: list[_Found], queries: npt.NDArray[np.int64], k: int) -> Keys:
    merged = np.full((len(queries), k), NO_KEY, np.uint64)
    for place, query in enumerate(queries):
        keys = np.concatenate([part.of(query) for part in parts])
        best = np.sort(np.partition(keys, k - 1)[:k] if len(keys) > k else keys)
        merged[place, : len(best)] = best
    return merged


def _read_ahead(vectors: npt.NDArray[Any]) -> Callable[[int], None]:
    """A function that asks the operating system to read ahead from a given row, if the rows are in a file."""
    if not isinstance(vectors, np.memmap) or not hasattr(os, "posix_fadvise") or vectors.filename is None:
        return lambda _: None
    row = vectors.strides[0]
    offset = int(vectors.offset)
    file = os.open(os.fspath(vectors.filename), os.O_RDONLY)
    amount = 2 * _TAKE * row

    class Ahead:
        def __call__(self, begin: int) -> None:
            os.posix_fadvise(file, offset + begin * row, amount, os.POSIX_FADV_WILLNEED)

        def __del__(self) -> None:
            os.close(file)

    return Ahead()
