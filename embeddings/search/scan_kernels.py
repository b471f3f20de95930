"""The compiled loops of the CPU scan: rounding a block of rows, and filtering its coarse scores.

Conventions: as in `embeddings.search.scan_cpu`. Numba compiles each function once and caches it on disk.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from embeddings.search.scan_keys import Keys, Vectors

_NEAR = 256  # rows that the filter processes at a time, so that they stay in the L1 and L2 caches
_LOOK = 64  # rows that it first checks together for any that reaches the floor
_jit: Any = functools.partial(numba.njit, nogil=True, cache=True)
_SUMS = {"reassoc", "contract", "nsz"}  # allow vector instructions for sums


@_jit(fastmath=_SUMS)
def _dot(one: Vectors, other: Vectors) -> np.float32:
    total = np.float32(0)
    for index in range(len(one)):
        total += one[index] * other[index]
    return total


@_jit(fastmath=_SUMS)
def longest_row(block: Vectors) -> float:
    """The length of the longest row, slightly increased to allow for rounding; infinity if a value is not finite."""
    largest = np.float32(0)
    bad = False
    for row in range(len(block)):
        square = _dot(block[row], block[row])
        bad |= not (square < np.float32(3e38))
        largest = max(largest, square)
    return np.inf if bad else math.sqrt(largest) * (1 + 1e-4)


@_jit(fastmath=_SUMS)
def round_block(block: Vectors, mean: Vectors, rounded: npt.NDArray[np.uint16]) -> tuple[float, float]:
    """Centre the rows and round them to bfloat16 (to nearest, ties to even), as bits.

    Returns:
        The length of the longest centred row and of the largest rounding error, both slightly increased to allow for
        the rounding of these sums; the first is infinity if a value is not finite.
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
def keep16(
    scores: npt.NDArray[np.int16],
    floors: npt.NDArray[np.int16],
    queries: Vectors,
    block: Vectors,
    first: int,
    limits: Keys,
    keys: Keys,
    counts: Any,
) -> None:
    """Score rows again that reach the query's floor, and keep those that reach its limit; scores are bfloat16 bits."""
    hits, score = np.empty(_NEAR + 1, np.int64), np.empty(1, np.float32)
    for begin in range(0, len(block), _NEAR):
        end = min(begin + _NEAR, len(block))
        for query in range(len(scores)):
            floor = floors[query]
            # The bits of negative scores sort in reverse; if the floor is not negative, this does not matter.
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
def keep32(
    scores: Vectors,
    floors: Vectors,
    queries: Vectors,
    block: Vectors,
    first: int,
    limits: Keys,
    keys: Keys,
    counts: Any,
) -> None:
    """Like `keep16`, for scores in float32."""
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
