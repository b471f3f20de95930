"""Grouping: numbers in groups that grow together, pair by pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rows = npt.NDArray[np.int64]
Pairs = tuple[Rows, Rows]


class Groups:
    """Numbers 0 to `count` in groups that can be joined; each group is known by its smallest number, its root."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def roots(self, numbers: Rows) -> Rows:
        """The group of each; makes the way to it shorter for the next time."""
        roots = self.seen(numbers)
        self._above[numbers] = roots
        return roots

    def apart(self, one: Rows, other: Rows) -> Pairs:
        """Those of the pairs that are in two groups."""
        apart = self.roots(one) != self.roots(other)
        return one[apart], other[apart]

    def seen(self, numbers: Rows) -> Rows:
        """Some member of each one's group: the same for two only if they are in one. It writes nothing: for threads."""
        seen = self._above[numbers]
        while not np.array_equal(higher := self._above[seen], seen):
            seen = higher
        return seen

    def are_one(self, some: Rows, others: Rows) -> bool:
        """Whether all of them are known to be in one group; for threads."""
        seen = self.seen(np.concatenate([some, others]))
        return bool((seen == seen[0]).all())

    def join(self, one: Rows, other: Rows) -> None:
        """Join the groups of each pair."""
        ends = np.stack([self.roots(one), self.roots(other)])
        names, places = np.unique(ends, return_inverse=True)
        left, right = places.reshape(ends.shape)
        graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
        _, component = connected_components(graph, directed=False)
        smallest = np.full(len(names), len(names))
        np.minimum.at(smallest, component, np.arange(len(names)))
        self._above[names] = names[smallest[component]]
