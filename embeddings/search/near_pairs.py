"""Near-identical clips: all pairs of rows whose cosine reaches a threshold, joined into groups.

Blocks of rows are compared with blocks of rows, and memory does not grow with the number of pairs:

1. A cheap upper bound. With P the projection on the m leading axes of the corpus and x⊥ the remainder of x,
   x·y = Px·Py + x⊥·y⊥ <= Px·Py + |x⊥|·|y⊥|, which is one product of rows of m + 1 numbers. m is the cheapest choice on
   a sample; if a projection saves nothing, all axes are used.
2. Pairs that pass the bound, and are not yet in one group, are scored in float64.
3. A pair that reaches the threshold joins the groups of its two rows.

No pair is lost: the coordinates are computed in float64, and the error of the float32 product, at most (m + 1)·2⁻²⁴
and a few roundings, is subtracted from the threshold.
Conventions: the cosine is computed from the stored rows in float64; the threshold is compared to nine digits; a row of
zeros has no near rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embeddings.errors import ConfigError, DataError
from embeddings.search.union_find import Groups, Pairs, Rows
from embeddings.threads import cores, map_in_order, one_torch_thread

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

BLOCK_ROWS = 4096
_STRIP_BYTES = 128 << 20  # size of a strip of rows: with larger strips, each block is read fewer times
_TASK_ROWS, _AT_ONCE = 256, 128  # rows of a strip per task, and rows scored at a time, so that scores stay in cache
_CROWD = 25_000  # above this many candidates, pairs in one group are dropped first
_PAIRS_AT_ONCE = 8192  # scored in float64
_MET = 1e-9
_FIT_ROWS, _TRY_ROWS = 10_000, 1500
_AXES = (16, 32, 64, 128, 256)
_SCORE_COST = 200  # measured cost of scoring a pair again, per dimension, in multiplications of the product


@dataclass(frozen=True)
class Likeness:
    """Vectors `[N, dim]` (float32 or float16, may be memory-mapped) and the cosine that near-identical rows reach."""

    vectors: npt.NDArray[Any]
    threshold: float
    name: str = "the array of vectors"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"the threshold {self.threshold:g} must be above 0 and at most 1.")

    def unit(self, rows: Rows) -> Doubles:
        """These rows in float64, scaled to norm 1 (zeros stay zeros).

        Raises:
            RootnoteError: if a value is not finite.
        """
        values = np.asarray(self.vectors[rows], dtype=np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        if not np.isfinite(norms).all():
            row = rows[np.flatnonzero(~np.isfinite(norms))[0]]
            raise DataError(f"{self.name} has a value that is not finite in row {row}; embed the corpus again.")
        return values / np.where(norms > 0, norms, 1)[:, None]

    def cosines(self, left: Rows, right: Rows) -> Doubles:
        """The cosine of each pair of rows."""
        parts = [slice(begin, begin + _PAIRS_AT_ONCE) for begin in range(0, len(left), _PAIRS_AT_ONCE)]
        scored = [np.einsum("ij,ij->i", self.unit(left[part]), self.unit(right[part])) for part in parts]
        return np.concatenate(scored) if scored else np.zeros(0)

    def near(self, left: Rows, right: Rows) -> npt.NDArray[np.bool_]:
        """Whether each pair of rows reaches the threshold."""
        return self.cosines(left, right) >= self.threshold - _MET


def join_near(
    rows: Rows,
    likenesses: Sequence[Likeness],
    *,
    match_any: bool = False,
    progress: Progress | None = None,
    strip_bytes: int = _STRIP_BYTES,
    block_rows: int = BLOCK_ROWS,
) -> Rows:
    """Group `rows`: a pair is near if it reaches the threshold of every likeness or, with `match_any`, of one.

    Two rows are in one group if a chain of near pairs connects them.

    Args:
        rows: ascending.
        progress: called with the thousandths of all pairs that are done, and their total.

    Returns:
        for each of `rows`, the first row of its group.
    """
    if len(rows) < 2:
        return rows
    bounds = sorted((_Bound.of(rows, one) for one in likenesses), key=lambda bound: bound.cost)
    # With `match_any`, one pass per likeness; otherwise the others only check the pairs that pass the cheapest one.
    passes = [[one] for one in bounds] if match_any else [bounds] if bounds else []
    groups = Groups(len(rows))
    shown = 0
    # Products are small: threads with one product each are faster than several threads on one product.
    with one_torch_thread():
        for number, deciding in enumerate(passes):
            work = _Work(groups, deciding[0].threshold)
            tasks = _tasks(rows, deciding[0], strip_bytes, block_rows)
            for share, one, other in map_in_order(work, tasks, cores(), initializer=lambda: torch.set_num_threads(1)):
                _join(groups, one, other, rows, [each.likeness for each in deciding])
                thousandths = round(1000 * (number + share))
                if progress and thousandths > shown:
                    progress(thousandths, 1000 * len(passes))
                    shown = thousandths
    return rows[groups.roots(np.arange(len(rows)))]


@dataclass(frozen=True)
class _Task:
    """Rows of a strip, starting at index `top`, to compare with a block that starts at index `left`.

    `share` is the share of all pairs that have been compared when the tasks of this block are done.
    """

    part: Floats
    top: int
    block: Floats
    left: int
    share: float


def _tasks(rows: Rows, bound: _Bound, strip_bytes: int, block_rows: int) -> Iterator[_Task]:
    """Tasks that compare each pair of rows once: a strip is compared with the blocks from its own start on."""
    count = len(rows)
    strip_rows = max(1, strip_bytes // (4 * bound.width))
    for top in range(0, count, strip_rows):
        strip = bound.coordinates(rows[top : top + strip_rows])
        before, after = (1 - ((count - place) / count) ** 2 for place in (top, top + len(strip)))
        for left in range(top, count, block_rows):
            block = bound.coordinates(rows[left : left + block_rows])
            share = before + (after - before) * (left + len(block) - top) / (count - top)
            end = min(len(strip), left + len(block) - top)  # later rows are compared with this block in their own task
            for begin in range(0, end, _TASK_ROWS):
                part = strip[begin : min(begin + _TASK_ROWS, end)]
                yield _Task(part, top + begin, block, left, share)


class _Work:
    """Finds, for a task, the pairs of indices (the first below the second) whose bound reaches the threshold.

    Pairs that are already in one group may be left out.
    """

    def __init__(self, groups: Groups, threshold: np.float32) -> None:
        self._groups, self._threshold = groups, threshold

    def __call__(self, task: _Task) -> tuple[float, Rows, Rows]:
        across = np.arange(task.left, task.left + len(task.block))
        pairs = [
            self._pairs(task.part[begin : begin + _AT_ONCE], task.top + begin, task.block, across)
            for begin in range(0, len(task.part), _AT_ONCE)
        ]
        return task.share, np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs])

    def _pairs(self, part: Floats, top: int, block: Floats, across: Rows) -> Pairs:
        down = np.arange(top, top + len(part))
        if self._groups.are_one(down, across):
            return down[:0], down[:0]
        above = torch.mm(torch.from_numpy(part), torch.from_numpy(block).T).numpy() >= self._threshold
        if np.count_nonzero(above) > _CROWD:
            above &= self._groups.find(down)[:, None] != self._groups.find(across)
        one, other = np.divmod(np.flatnonzero(above), len(block))
        one, other = one + top, other + across[0]
        each_once = one < other
        return one[each_once], other[each_once]


def _join(groups: Groups, one: Rows, other: Rows, rows: Rows, deciding: Sequence[Likeness]) -> None:
    """Join the near pairs among the candidates, in parts, so that pairs within joined groups need no scoring."""
    one, other = groups.apart(one, other)
    for begin in range(0, len(one), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        left, right = groups.apart(one[part], other[part])
        for likeness in deciding:
            near = likeness.near(rows[left], rows[right])
            left, right = left[near], right[near]
        groups.join(left, right)


@dataclass(frozen=True)
class _Bound:
    """Maps rows to coordinates whose inner product is at least their cosine; `axes` `[dim, m]`, `None` for all."""

    likeness: Likeness
    axes: Doubles | None
    threshold: np.float32
    cost: float

    @classmethod
    def of(cls, rows: Rows, likeness: Likeness) -> _Bound:
        """The cheapest bound for these rows, estimated on a sample."""
        rng = np.random.default_rng(0)
        sample = likeness.unit(np.sort(rng.choice(rows, min(_FIT_ROWS, len(rows)), replace=False)))
        _, vectors = np.linalg.eigh(sample.T @ sample)
        dim = sample.shape[1]
        some = sample[rng.permutation(len(sample))[:_TRY_ROWS]]
        choices = [(None, dim), *((vectors[:, -count:], count) for count in _AXES if count < dim)]
        costs = [count + _share(some, axes, likeness.threshold) * _SCORE_COST * dim for axes, count in choices]
        best = int(np.argmin(costs))
        axes, count = choices[best]
        slack = (count + 8) * 2.0**-23
        return cls(likeness, axes, np.float32(likeness.threshold - _MET - slack), costs[best])

    @property
    def width(self) -> int:
        """The number of coordinates of a row."""
        return int(self.likeness.vectors.shape[1]) if self.axes is None else self.axes.shape[1] + 1

    def coordinates(self, rows: Rows) -> Floats:
        coordinates = np.empty((len(rows), self.width), np.float32)
        for begin in range(0, len(rows), BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            coordinates[part] = _coordinates(self.likeness.unit(rows[part]), self.axes)
        return coordinates


def _share(unit: Doubles, axes: Doubles | None, threshold: float) -> float:
    """The share of pairs of different rows that pass the bound."""
    coordinates = _coordinates(unit, axes)
    through = int(np.count_nonzero(coordinates @ coordinates.T >= threshold)) - len(unit)
    return max(0, through) / max(1, len(unit) * (len(unit) - 1))


def _coordinates(unit: Doubles, axes: Doubles | None) -> Floats:
    if axes is None:
        return unit.astype(np.float32)
    along = unit @ axes
    rest = np.square(unit).sum(axis=1) - np.square(along).sum(axis=1)
    # Rounded up by more than the error of the square root and of float32.
    above = np.sqrt(np.maximum(rest, 0)) + 2e-7
    return np.column_stack([along, above]).astype(np.float32)
