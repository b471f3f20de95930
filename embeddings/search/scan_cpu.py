"""The fused scan: the exact k nearest rows of a large array, faster than its matrix product in float32.

1. A bound: each query is scored coarsely against a random sample of rows; the r-th best less its error,
   r = m + 5·√m + 2 with m = k · sample / N, lies below the k-th score of all but by an accident that is looked for
   in the end.
2. Threads take blocks of rows that stay in cache: a coarse product of all queries with the block (bfloat16 where
   the processor is fast at it, else float32), then a compiled filter that keeps what may pass the bound.
   What is kept is scored again in float32 from the same block.
3. Queries that kept fewer than k rows are done again with no bound but the k-th best so far.

Nothing is lost in the coarse product: rows are centred by the corpus mean μ, and for a query q and a centred row x
with their roundings q' and x', |q·x - q'·x'| <= |q - q'|·|x| + |q'|·|x - x'| by Cauchy-Schwarz; γ·|q'|·|x'| with
γ = 2·dim·2⁻²⁴ covers the accumulation in float32, and the rounding of the result is monotone, so it is enough to
round the threshold down. That the processor keeps this promise is verified on the sample; where it does not, the
float32 form is taken.

Conventions: a candidate is one 64-bit key, the order of its score (descending) above its row (ascending), so that
sorting keys sorts by score and then by row, whatever the order in which threads met them. Scores do not depend on
the form, the blocks or the threads. Memory: queries × about 2·k keys a thread, whatever N.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from embeddings.audio.corpus import cores
from embeddings.errors import DataError, RootnoteError

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Form = Literal["bf16", "fp32"]

BLOCK_ROWS: dict[Form, int] = {"bf16": 1024, "fp32": 512}  # as measured: a block and its scores stay in cache
_TAKE = 32_768  # rows that a thread takes at a time
_SAMPLE_SHARE, _SAMPLE_LEAST = 0.02, 20_000
_SAMPLED_AT_ONCE = 64  # queries
_TRIED_ROWS = 256
_KEYS_BYTES = 1 << 30
_NEAR = 256  # rows that the filter goes through at a time: they stay in the innermost caches
_LOOK = 64  # rows of which it asks at once whether any reaches the floor
_GAMMA = 2 * 2.0**-24  # times the dimension: the relative error of a sum of products in float32
_NOTHING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def scan(vectors: npt.NDArray[Any], queries: Vectors, k: int, form: Form | None = None) -> tuple[Vectors, Rows]:
    """The k best rows of each query: scores `[Q, k]` descending, rows `[Q, k]`; equal scores in row order.

    Args:
        vectors: `[N, dim]` float32 or float16, N >= k; may be memory-mapped.
        queries: `[Q, dim]` float32.
        form: of the coarse product; `None` takes the faster one on this machine.

    Raises:
        RootnoteError: where a value of `vectors` is not finite.
    """
    if len(vectors) >= 2**32:
        raise DataError(f"the scan counts rows up to {2**32:,}; these are {len(vectors):,}.")
    # torch wants arrays that could be written to.
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


@functools.cache
def fastest_form() -> Form:
    """Whether this machine multiplies bfloat16 well faster than float32: tried once a process, in some 50 ms."""
    left, right = torch.rand(256, 512), torch.rand(1024, 512)
    coarse, rows = left.bfloat16(), right.bfloat16()
    with _one_thread():
        small = _median_time(lambda: torch.mm(coarse, rows.T))
        return "bf16" if small < 0.6 * _median_time(lambda: torch.mm(left, right.T)) else "fp32"


@functools.cache
def _numpy_multiplies_faster() -> bool:
    """Whether numpy's product in float32 outruns torch's, as it does on some processors."""
    left, right = torch.rand(256, 512), torch.rand(1024, 512)
    one, other = left.numpy(), right.numpy()
    with _one_thread():
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
    """Random rows, their mean, and which of their scores is the bound for k."""

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


class _Queries:
    """The queries as the coarse product takes them, with what bounds its error."""

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
        # In float32 nothing is centred: the product is taken of the rows as they are.
        offset = self.exact.astype(np.float64) @ self.mean if form == "bf16" else np.zeros(len(self.exact))
        self._offset = offset

    def _error(self, length: float, rounding: float) -> npt.NDArray[np.float64]:
        """How far a coarse score `[Q]` and the offset are from the score, but for the rounding of the result.

        Args:
            length: of the longest row of the block, as rounded or not.
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
        """A score for each query that its k-th best row very likely reaches; -inf where the sample cannot tell."""
        count = len(self.exact)
        if sample.rank > len(sample.rows):
            return np.full(count, -np.inf, np.float32)
        block = _Block(self, sample.rows)
        place = len(sample.rows) - sample.rank

        def rank(first: int) -> npt.NDArray[np.float64]:
            part = slice(first, first + _SAMPLED_AT_ONCE)
            ordered = _in_order(block.scores(part))
            return np.asarray(_out_of_order(np.partition(ordered, place, axis=1)[:, place]), np.float64)

        with _one_thread(), _threads() as pool:
            best = np.concatenate(list(pool.map(rank, range(0, count, _SAMPLED_AT_ONCE))))
        # Errors seldom add up: an eighth of what they could be is enough for a bound that is checked in the end.
        likely = self._error(block.length, block.rounding) / 8
        return np.asarray(best + self._offset - likely - np.abs(best) * 2e-7, np.float32)

    def _kept_on(self, rows: Vectors) -> bool:
        """Whether the error stays within its bound on these rows."""
        block = _Block(self, rows)
        true = self.exact.astype(np.float64) @ rows.T.astype(np.float64)
        columns = [self.thresholds(column.astype(np.float32), block.length, block.rounding) for column in true.T]
        return bool((block.scores().float().numpy() >= _down_to_bf16(np.stack(columns, axis=1))).all())


class _Block:
    """Rows as the coarse product takes them: as they are, or centred and rounded to bfloat16.

    `length` and `rounding` are what `_Queries.thresholds` wants; `length` is not finite where a value is not.
    """

    def __init__(self, queries: _Queries, rows: Vectors, into: npt.NDArray[np.uint16] | None = None) -> None:
        self._queries, self._rows = queries, rows
        self.length, self.rounding = 0.0, 0.0
        if queries.form == "bf16":
            rounded = np.empty(rows.shape, np.uint16) if into is None else into[: len(rows)]
            self.length, self.rounding = _round_block(rows, queries.mean, rounded)
            self._coarse = torch.from_numpy(rounded).view(torch.bfloat16)
        else:
            self.length = _longest(rows)
            # torch wants arrays that could be written to, and copies those that could not.
            self._coarse = torch.empty(0) if queries.by_numpy else torch.from_numpy(np.require(rows, None, ["W"]))

    def scores(self, part: slice = slice(None), out: torch.Tensor | None = None) -> torch.Tensor:
        """Coarse scores `[queries of the part, rows]`."""
        if self._queries.by_numpy:
            into = None if out is None else out.numpy()
            return torch.from_numpy(np.matmul(self._queries.exact[part], self._rows.T, out=into))
        return torch.mm(self._queries.coarse[part], self._coarse.T, out=out)


def _search(vectors: npt.NDArray[Any], queries: Vectors, k: int, sample: Sample, form: Form) -> Keys:
    prepared = _Queries(queries, sample, form)
    keys = _pass(vectors, prepared, prepared.bounds(sample), k)
    short = np.flatnonzero(keys[:, k - 1] == _NOTHING)
    if len(short):
        none = np.full(len(short), -np.inf, np.float32)
        keys[short] = _pass(vectors, _Queries(queries[short], sample, form), none, k)
    return keys


def _pass(vectors: npt.NDArray[Any], queries: _Queries, bounds: Vectors, k: int) -> Keys:
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
                    found.look_through(vectors[first : min(first + size, end)], first)
        except BaseException:
            stop.set()
            raise
        return found

    with _one_thread(), _threads() as pool:
        parts = [future.result() for future in [pool.submit(work) for _ in range(cores())]]
        halves = np.array_split(np.arange(len(bounds)), cores())
        return np.concatenate(list(pool.map(lambda part: _merged(parts, part, k), halves)))


class _Found:
    """What one thread has found: up to `capacity` keys a query, cut to the best k when they run full."""

    def __init__(self, queries: _Queries, bounds: Vectors, k: int) -> None:
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

    def look_through(self, rows: npt.NDArray[Any], first: int) -> None:
        """Add what may be among the best of these rows, the first of which is row `first`."""
        block = np.ascontiguousarray(rows, np.float32).view()
        block.flags.writeable = False  # one compiled form for arrays and files
        for query in np.flatnonzero(self._counts + len(block) > self._keys.shape[1]):
            self._cut(int(query))
        coarse = _Block(self._queries, block, self._rounded)
        if not math.isfinite(coarse.length):
            raise not_finite(first + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0]))
        count = len(self._counts)
        scores = coarse.scores(out=self._scores[: count * len(block)].view(count, len(block)))
        floors = self._queries.thresholds(self._bounds, coarse.length, coarse.rounding)
        kept = self._queries.exact, block, first, self._limits, self._keys, self._counts
        if self._rounded is None:
            _keep32(scores.numpy(), floors, *kept)
        else:
            _keep16(scores.view(torch.int16).numpy(), _ordered_bf16(floors), *kept)

    def of(self, query: int) -> Keys:
        return self._keys[query, : self._counts[query]]

    def _cut(self, query: int) -> None:
        best = np.partition(self.of(query), self._k - 1)[: self._k]
        self._keys[query, : self._k] = best
        self._counts[query] = self._k
        self._limits[query] = best[self._k - 1]
        self._bounds[query] = unpacked(best[self._k - 1 : self._k])[0][0]


def _capacity(k: int) -> int:
    # At least a block more than k, and one key that is written before it is judged.
    return 2 * k + 2 * max(BLOCK_ROWS.values())


def _merged(parts: list[_Found], queries: npt.NDArray[np.int64], k: int) -> Keys:
    merged = np.full((len(queries), k), _NOTHING, np.uint64)
    for place, query in enumerate(queries):
        keys = np.concatenate([part.of(query) for part in parts])
        best = np.sort(np.partition(keys, k - 1)[:k] if len(keys) > k else keys)
        merged[place, : len(best)] = best
    return merged


def _read_ahead(vectors: npt.NDArray[Any]) -> Callable[[int], None]:
    """A function that asks the system to read the rows from a given one on, where they lie in a file."""
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


def not_finite(row: int) -> RootnoteError:
    return DataError(f"the vectors hold a value that is not finite in row {row}; make them again.")


def _threads() -> ThreadPoolExecutor:
    """A thread for each core, each of which multiplies alone."""
    return ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Within it torch and numpy multiply on the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


# keys and roundings


def _ordered(scores: Vectors) -> npt.NDArray[np.uint32]:
    """Unsigned integers in the order of the scores."""
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0: one zero, not two
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def key_limits(bounds: Vectors) -> Keys:
    """The largest key that still reaches the bound."""
    return ((~_ordered(bounds)).astype(np.uint64) << np.uint64(32)) | np.uint64(0xFFFF_FFFF)


def unpacked(keys: Keys) -> tuple[Vectors, Rows]:
    order = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(order >> 31, order & np.uint32(0x7FFF_FFFF), ~order).astype(np.uint32)
    return bits.view(np.float32), (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)


def _down_to_bf16(values: Vectors) -> Vectors:
    """Rounded towards -inf to what bfloat16 holds."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    lower = bits & np.uint32(0xFFFF_0000)
    # Cutting the low bits rounds towards zero: a negative value that lost some goes one step further.
    step = np.where((values < 0) & (lower != bits), np.uint32(0x1_0000), np.uint32(0))
    return (lower + step).view(np.float32)


def _in_order(scores: torch.Tensor) -> npt.NDArray[Any]:
    """What sorts as the scores do: themselves, or for bfloat16 integers; `_out_of_order` undoes it."""
    if scores.dtype == torch.float32:
        return scores.numpy()
    bits = scores.view(torch.int16).numpy()
    return np.asarray(bits ^ ((bits >> 15) & np.int16(0x7FFF)))


def _out_of_order(ordered: npt.NDArray[Any]) -> Vectors:
    if ordered.dtype == np.float32:
        return np.asarray(ordered)
    bits = ordered ^ ((ordered >> 15) & np.int16(0x7FFF))
    scores: Vectors = (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return scores


def _ordered_bf16(values: Vectors) -> npt.NDArray[np.int16]:
    """Signed integers in the order of the values rounded down to bfloat16; as `_keep16` makes of its scores."""
    bits = (_down_to_bf16(values).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))


_jit: Any = functools.partial(numba.njit, nogil=True, cache=True)
_SUMS = {"reassoc", "contract", "nsz"}  # what lets a sum be done by vector instructions


@_jit(fastmath=_SUMS)
def _dot(one: Vectors, other: Vectors) -> np.float32:
    total = np.float32(0)
    for index in range(len(one)):
        total += one[index] * other[index]
    return total


@_jit(fastmath=_SUMS)
def _longest(block: Vectors) -> float:
    """The length of the longest row, a little more for rounding; infinity where a value is not finite."""
    largest = np.float32(0)
    bad = False
    for row in range(len(block)):
        square = _dot(block[row], block[row])
        bad |= not (square < np.float32(3e38))
        largest = max(largest, square)
    return np.inf if bad else math.sqrt(largest) * (1 + 1e-4)


@_jit(fastmath=_SUMS)
def _round_block(block: Vectors, mean: Vectors, rounded: npt.NDArray[np.uint16]) -> tuple[float, float]:
    """Centre the rows and round them to bfloat16 (to nearest, ties to even), as bits.

    Returns:
        The length of the longest centred row and of the longest difference by rounding, a little more for the
        rounding of these sums; infinity for the first where a value is not finite.
    """
    dim = block.shape[1]
    centred, back = np.empty(dim, np.float32), np.empty(dim, np.float32)
    bits, back_bits = centred.view(np.uint32), back.view(np.uint32)
    longest, largest = np.float32(0), np.float32(0)
    bad = False
    for row in range(len(block)):
        for index in range(dim):
            centred[index] = block[row, index] - mean[index]
        for index in range(dim):
            bit = bits[index]
            up = (bit + np.uint32(0x7FFF) + ((bit >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
            back_bits[index] = up
            rounded[row, index] = up >> np.uint32(16)
        length, difference = np.float32(0), np.float32(0)
        for index in range(dim):
            length += centred[index] * centred[index]
            off = centred[index] - back[index]
            difference += off * off
        bad |= not (length < np.float32(3e38))
        longest, largest = max(longest, length), max(largest, difference)
    if bad:
        return np.inf, np.inf
    return math.sqrt(longest) * (1 + 1e-2), math.sqrt(largest) * (1 + 1e-4)


@_jit(inline="always")
def _keep_hits(
    hits: npt.NDArray[np.int64],
    number: int,
    score: Vectors,
    query: int,
    queries: Vectors,
    block: Vectors,
    first: int,
    limits: Keys,
    keys: Keys,
    counts: Any,
) -> None:
    """Score the rows of `hits` again, and keep those that reach the query's limit."""
    bits = score.view(np.uint32)
    count = counts[query]
    for place in range(number):
        row = hits[place]
        score[0] = _dot(queries[query], block[row]) + np.float32(0)
        bit = bits[0]
        order = ~bit if bit >> np.uint32(31) else bit | np.uint32(0x80000000)
        keys[query, count] = (np.uint64(~np.uint32(order)) << np.uint64(32)) | np.uint64(first + row)
        count += keys[query, count] <= limits[query]
    counts[query] = count


@_jit
def _keep16(
    scores: npt.NDArray[np.int16],
    floors: npt.NDArray[np.int16],
    queries: Vectors,
    block: Vectors,
    first: int,
    limits: Keys,
    keys: Keys,
    counts: Any,
) -> None:
    """Score again what reaches its floor, and keep what reaches its limit; scores are bits of bfloat16."""
    hits, score = np.empty(_NEAR + 1, np.int64), np.empty(1, np.float32)
    for begin in range(0, len(block), _NEAR):
        end = min(begin + _NEAR, len(block))
        for query in range(len(scores)):
            floor = floors[query]
            # The bits of negative scores are in reverse order; below a floor that is not, they need none.
            flip = np.int16(0x7FFF if floor < 0 else 0)
            number = 0
            for start in range(begin, end, _LOOK):
                stop = min(start + _LOOK, end)
                reached = 0
                for row in range(start, stop):
                    value = scores[query, row]
                    reached += np.int16(value ^ ((value >> 15) & flip)) >= floor
                if reached == 0:
                    continue
                for row in range(start, stop):
                    value = scores[query, row]
                    hits[number] = row
                    number += np.int16(value ^ ((value >> 15) & flip)) >= floor
            if number:
                _keep_hits(hits, number, score, query, queries, block, first, limits, keys, counts)


@_jit
def _keep32(
    scores: Vectors,
    floors: Vectors,
    queries: Vectors,
    block: Vectors,
    first: int,
    limits: Keys,
    keys: Keys,
    counts: Any,
) -> None:
    """As `_keep16`, for scores in float32."""
    hits, score = np.empty(_NEAR + 1, np.int64), np.empty(1, np.float32)
    for begin in range(0, len(block), _NEAR):
        end = min(begin + _NEAR, len(block))
        for query in range(len(scores)):
            floor = floors[query]
            number = 0
            for start in range(begin, end, _LOOK):
                stop = min(start + _LOOK, end)
                reached = 0
                for row in range(start, stop):
                    reached += scores[query, row] >= floor
                if reached == 0:
                    continue
                for row in range(start, stop):
                    hits[number] = row
                    number += scores[query, row] >= floor
            if number:
                _keep_hits(hits, number, score, query, queries, block, first, limits, keys, counts)
