"""Bounds of the CPU scan: the random sample, the coarse product and its largest error.

`embeddings.search.scan_cpu` explains why no row is lost.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from embeddings.search.scan_kernels import longest_row, round_block
from embeddings.search.scan_keys import Vectors, as_sortable, down_to_bf16, from_sortable, not_finite
from embeddings.threads import cores, one_thread

Form = Literal["bf16", "fp32"]
_SAMPLE_SHARE, _SAMPLE_LEAST = 0.02, 20_000
_SAMPLED_AT_ONCE = 64  # queries
_TRIED_ROWS = 256
_GAMMA = 2 * 2.0**-24  # times the dimension: the relative error of a sum of products in float32


@functools.cache
def fastest_form() -> Form:
    """The form that this machine multiplies faster; bfloat16 must be much faster. Measured once, in about 50 ms."""
    left, right = torch.rand(256, 512), torch.rand(1024, 512)
    coarse, rows = left.bfloat16(), right.bfloat16()
    with one_thread():
        small = _median_time(lambda: torch.mm(coarse, rows.T))
        return "bf16" if small < 0.6 * _median_time(lambda: torch.mm(left, right.T)) else "fp32"


@functools.cache
def _numpy_multiplies_faster() -> bool:
    """Whether numpy's float32 product is faster than torch's, as on some CPUs."""
    left, right = torch.rand(256, 512), torch.rand(1024, 512)
    one, other = left.numpy(), right.numpy()
    with one_thread():
        return _median_time(lambda: one @ other.T) < _median_time(lambda: torch.mm(left, right.T))


def _median_time(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


@dataclass(frozen=True)
class Sample:
    """Random rows, their mean, and the rank of the score that is the bound for k."""

    rows: Vectors
    mean: Vectors
    rank: int

    @classmethod
    def of(cls, vectors: npt.NDArray[Any], k: int) -> Sample:
        count = min(len(vectors), max(_SAMPLE_LEAST, round(_SAMPLE_SHARE * len(vectors))))
        chosen = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))
        rows = np.asarray(vectors[chosen], dtype=np.float32)
        if not np.isfinite(rows).all():
            raise not_finite(int(chosen[np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]]))
        expected = k * count / len(vectors)
        rank = math.ceil(expected + 5 * math.sqrt(expected) + 2)
        return cls(rows, rows.mean(axis=0, dtype=np.float64).astype(np.float32), rank)


class CoarseQueries:
    """The queries as the coarse product uses them, and the norms that bound its error."""

    def __init__(self, queries: Vectors, sample: Sample, form: Form) -> None:
        self.exact = queries
        self.form: Form = form
        self.mean = sample.mean
        self._gamma = _GAMMA * queries.shape[1]
        self._prepare(form)
        if form == "bf16" and not self._kept_on(sample.rows[:_TRIED_ROWS]):
            self._prepare("fp32")

    def _prepare(self, form: Form) -> None:
        self.form = form
        given = torch.from_numpy(self.exact)
        self.coarse = given.bfloat16() if form == "bf16" else given
        self.by_numpy = form == "fp32" and _numpy_multiplies_faster()
        as_used = self.coarse.float().numpy().astype(np.float64)
        self._rounding = np.linalg.norm(self.exact - as_used, axis=1)
        self._length = np.linalg.norm(as_used, axis=1)
        # In float32 nothing is centred: the product uses the rows as they are.
        offset = self.exact.astype(np.float64) @ self.mean if form == "bf16" else np.zeros(len(self.exact))
        self._offset = offset

    def _error(self, length: float, rounding: float) -> npt.NDArray[np.float64]:
        """The largest error of a coarse score plus offset `[Q]`, without the rounding of the result.

        Args:
            length: the length of the longest row of the block, rounded or not.
            rounding: the largest |x - x'| of the block.
        """
        error = self._rounding * length + self._length * (rounding + 2 * self._gamma * length)
        # μ and the rows are centred in float32: one more rounding of each component.
        return np.asarray(error + 2.0**-23 * (np.abs(self._offset) + self._length * length) + 1e-30)

    def thresholds(self, bounds: Vectors, length: float, rounding: float) -> Vectors:
        """The coarse score below which no row of the block can reach its query's bound."""
        wanted = bounds.astype(np.float64) - self._offset - self._error(length, rounding)
        below: Vectors = np.nextafter(wanted.astype(np.float32), np.float32(-np.inf))
        return below

    def bounds(self, sample: Sample) -> Vectors:
        """A score for each query that its k-th best row very likely reaches; -inf if the sample is too small."""
        count = len(self.exact)
        if sample.rank > len(sample.rows):
            return np.full(count, -np.inf, np.float32)
        block = CoarseBlock(self, sample.rows)
        place = len(sample.rows) - sample.rank

        def rank(first: int) -> npt.NDArray[np.float64]:
            part = slice(first, first + _SAMPLED_AT_ONCE)
            ordered = as_sortable(block.scores(part))
            return np.asarray(from_sortable(np.partition(ordered, place, axis=1)[:, place]), np.float64)

        with one_thread(), single_threaded_pool() as pool:
            best = np.concatenate(list(pool.map(rank, range(0, count, _SAMPLED_AT_ONCE))))
        # Errors rarely add up: an eighth of the worst case is enough, because the bound is checked at the end.
        likely = self._error(block.length, block.rounding) / 8
        return np.asarray(best + self._offset - likely - np.abs(best) * 2e-7, np.float32)

    def _kept_on(self, rows: Vectors) -> bool:
        """Whether the error stays within its bound on these rows."""
        block = CoarseBlock(self, rows)
        true = self.exact.astype(np.float64) @ rows.T.astype(np.float64)
        columns = [self.thresholds(column.astype(np.float32), block.length, block.rounding) for column in true.T]
        return bool((block.scores().float().numpy() >= down_to_bf16(np.stack(columns, axis=1))).all())


class CoarseBlock:
    """Rows as the coarse product uses them: as they are, or centred and rounded to bfloat16.

    `length` and `rounding` are for `CoarseQueries.thresholds`; `length` is not finite if a value is not.
    """

    def __init__(self, queries: CoarseQueries, rows: Vectors, into: npt.NDArray[np.uint16] | None = None) -> None:
        self._queries, self._rows = queries, rows
        self.length, self.rounding = 0.0, 0.0
        if queries.form == "bf16":
            rounded = np.empty(rows.shape, np.uint16) if into is None else into[: len(rows)]
            self.length, self.rounding = round_block(rows, queries.mean, rounded)
            self._coarse = torch.from_numpy(rounded).view(torch.bfloat16)
        else:
            self.length = longest_row(rows)
            # torch needs writable arrays and copies those that are not.
            self._coarse = torch.empty(0) if queries.by_numpy else torch.from_numpy(np.require(rows, None, ["W"]))

    def scores(self, part: slice = slice(None), out: torch.Tensor | None = None) -> torch.Tensor:
        """Coarse scores `[queries of the part, rows]`."""
        if self._queries.by_numpy:
            into = None if out is None else out.numpy()
            return torch.from_numpy(np.matmul(self._queries.exact[part], self._rows.T, out=into))
        return torch.mm(self._queries.coarse[part], self._coarse.T, out=out)


def single_threaded_pool() -> ThreadPoolExecutor:
    """A pool with one thread per core; each thread multiplies on its own."""
    return ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,))
