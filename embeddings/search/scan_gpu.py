"""The scan on a GPU, with torch alone: the same bound, coarse product and exact rescoring as in `scan_cpu`.

Blocks of rows are copied to the device. A bfloat16 product of the centred rows finds the rows that may reach each
query's bound, and these are scored again in float32. The k best so far are kept as 64-bit keys, so k is not limited.
Conventions: as in `embeddings.search.scan_cpu`; scores are float32 sums computed by the device, so their last bit may
differ from the CPU's, and with it the order of rows whose scores differ by less than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embeddings.search.scan_bounds import Sample
from embeddings.search.scan_keys import Keys, Rows, Vectors, key_limits, not_finite, unpacked

_LEAST_ROWS, _MOST_ROWS = 4096, 1 << 18
_RESCORED_AT_ONCE = 1 << 18
_GAMMA = 2 * 2.0**-24  # times the dimension: the relative error of a sum of products in float32


def scan_on(device: str, vectors: npt.NDArray[Any], queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    """The k best rows of each query, as `embeddings.search.scan_cpu.scan` gives them.

    Args:
        device: a torch device such as "cuda"; "cpu" is for tests.
        vectors: `[N, dim]` float32 or float16, N >= k; may be memory-mapped.
        queries: `[Q, dim]` float32.

    Raises:
        RootnoteError: if a value of `vectors` is not finite.
    """
    sample = Sample.of(vectors, k)
    asked = torch.from_numpy(np.require(queries, np.float32, ["C", "W"])).to(device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        bounds = _bounds(asked, sample)
        keys, short = _pass(vectors, asked, bounds, k, sample.mean)
        if len(short):
            bounds[short] = -torch.inf
            keys[short.cpu().numpy()], _ = _pass(vectors, asked[short], bounds[short], k, sample.mean)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return unpacked(keys)


def _bounds(asked: torch.Tensor, sample: Sample) -> torch.Tensor:
    """A score for each query that its k-th best row very likely reaches; -inf if the sample is too small."""
    if sample.rank > len(sample.rows):
        return torch.full((len(asked),), -torch.inf, device=asked.device)
    rows = torch.from_numpy(sample.rows).to(asked.device)
    queries = (asked[begin : begin + 256] for begin in range(0, len(asked), 256))
    parts = [torch.topk(part @ rows.T, sample.rank, dim=1).values[:, -1] for part in queries]
    found = torch.cat(parts)
    slack = _GAMMA * rows.shape[1] * asked.norm(dim=1) * rows.norm(dim=1).max()
    bounds: torch.Tensor = found - slack - found.abs() * 2e-7
    return bounds


@dataclass
class _Kept:
    """The rows found so far, as queries and keys; cut to the best k of each query when it grows large."""

    k: int
    queries: torch.Tensor
    keys: torch.Tensor
    bounds: torch.Tensor
    new: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, queries: torch.Tensor, keys: torch.Tensor) -> None:
        self.new.append((queries, keys))
        if sum(len(keys) for _, keys in self.new) > 3 * self.k * len(self.bounds) + _RESCORED_AT_ONCE:
            self.cut()

    def cut(self) -> None:
        """Sort by query, then key, and keep k of each; their k-th is the new bound."""
        self.queries = torch.cat([self.queries, *(queries for queries, _ in self.new)])
        self.keys = torch.cat([self.keys, *(keys for _, keys in self.new)])
        self.new.clear()
        order = torch.argsort(self.keys)
        order = order[torch.argsort(self.queries[order], stable=True)]
        self.queries, self.keys = self.queries[order], self.keys[order]
        counts = torch.bincount(self.queries, minlength=len(self.bounds))
        starts = counts.cumsum(0) - counts
        best = torch.arange(len(self.keys), device=self.keys.device) - starts[self.queries] < self.k
        self.queries, self.keys = self.queries[best], self.keys[best]
        full = counts >= self.k
        counts = counts.clamp(max=self.k)
        last = (counts.cumsum(0) - 1)[full]
        self.bounds[full] = torch.maximum(self.bounds[full], _score(self.keys[last]))


def _pass(
    vectors: npt.NDArray[Any], asked: torch.Tensor, bounds: torch.Tensor, k: int, mean: Vectors
) -> tuple[Keys, torch.Tensor]:
    """Keys `[Q, k]` of the best rows that reach the bounds, and the queries that had fewer than k."""
    device = asked.device
    coarse = asked.bfloat16()
    centre = torch.from_numpy(mean).to(device)
    offset = asked.double() @ centre.double()
    none = torch.empty(0, dtype=torch.int64, device=device)
    kept = _Kept(k, none, none, bounds.clone())
    size = _block_rows(device, *asked.shape)
    for first in range(0, len(vectors), size):
        given = np.array(vectors[first : first + size], np.float32)
        block = torch.from_numpy(given).to(device)
        if not bool(torch.isfinite(block).all()):
            raise not_finite(first + int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0]))
        centred = block - centre
        rounded = centred.bfloat16()
        error = _error(asked, coarse, centred, rounded, offset)
        floors = (kept.bounds.double() - offset - error).float()
        # Rounding the product to bfloat16 may lower it by half a unit in the last place; 2⁻⁸ of it is more than that.
        floors = (floors - floors.abs() * 2.0**-8).bfloat16()
        hits = (coarse @ rounded.T >= torch.nextafter(floors, torch.full_like(floors, -torch.inf))[:, None]).nonzero()
        for begin in range(0, len(hits), _RESCORED_AT_ONCE):
            queries, rows = hits[begin : begin + _RESCORED_AT_ONCE].unbind(1)
            scores = (asked[queries] * block[rows]).sum(dim=1)
            reached = scores >= kept.bounds[queries]
            kept.add(queries[reached], _key(scores[reached], first + rows[reached]))
    kept.cut()
    counts = torch.bincount(kept.queries, minlength=len(asked))
    keys = np.full((len(asked), k), key_limits(np.full(1, -np.inf, np.float32))[0], np.uint64)
    places = torch.arange(len(kept.keys), device=device) - (counts.cumsum(0) - counts)[kept.queries]
    keys[kept.queries.cpu().numpy(), places.cpu().numpy()] = _unsigned(kept.keys)
    return keys, torch.nonzero(counts < k).ravel()


def _error(
    asked: torch.Tensor, coarse: torch.Tensor, centred: torch.Tensor, rounded: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """The largest error of a coarse score plus offset (`embeddings.search.scan_cpu` explains why)."""
    length = float(centred.norm(dim=1).max()) * (1 + 1e-2)
    rounding = float((centred - rounded.float()).norm(dim=1).max()) * (1 + 1e-4)
    used = coarse.double()
    error = (asked.double() - used).norm(dim=1) * length
    error += used.norm(dim=1) * (rounding + 2 * _GAMMA * asked.shape[1] * length)
    total: torch.Tensor = error + 2.0**-23 * (offset.abs() + used.norm(dim=1) * length) + 1e-30
    return total


def _block_rows(device: torch.device, queries: int, dim: int) -> int:
    """The number of rows whose scores, copies and indices (if all are hits) fit on the device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1 << 28
    return int(min(max(free // (32 * queries + 48 * dim), _LEAST_ROWS), _MOST_ROWS))


def _key(scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Signed 64-bit keys: ascending by descending score, then by row."""
    bits = (scores + 0.0).view(torch.int32).long()
    ascending = torch.where(bits < 0, bits ^ 0x7FFF_FFFF, bits)  # signed integers in the order of the scores
    return ((-1 - ascending) << 32) | rows


def _score(keys: torch.Tensor) -> torch.Tensor:
    ascending = -1 - (keys >> 32)
    return torch.where(ascending < 0, ascending ^ 0x7FFF_FFFF, ascending).int().view(torch.float32)


def _unsigned(keys: torch.Tensor) -> Keys:
    """The same keys in the unsigned form of `embeddings.search.scan_cpu`."""
    return (keys.cpu().numpy().view(np.uint64) ^ np.uint64(1 << 63)).astype(np.uint64)
