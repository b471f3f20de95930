"""Union-find: groups of numbers that are joined pair by pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rows = npt.NDArray[np.int64]
Pairs = tuple[Rows, Rows]


class Groups:
    """The numbers 0 to `count` - 1 in groups that can be joined; the smallest number of a group is its root."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def roots(self, numbers: Rows) -> Rows:
        """The root of each number's group; compresses the paths for the next call."""
        roots = self.find(numbers)
        self._above[numbers] = roots
        return roots

    def apart(self, one: Rows, other: Rows) -> Pairs:
        """The pairs whose numbers are in different groups."""
        apart = self.roots(one) != self.roots(other)
        return one[apart], other[apart]

    def find(self, numbers: Rows) -> Rows:
        """The root of each number's group, without path compression, so that threads may call it."""
        found = self._above[numbers]
        while not np.array_equal(higher := self._above[found], found):
            found = higher
        return found

    def are_one(self, some: Rows, others: Rows) -> bool:
        """Whether all numbers are in one group; threads may call it."""
        roots = self.find(np.concatenate([some, others]))
        return bool((roots == roots[0]).all())

    def join(self, one: Rows, other: Rows) -> None:
        """Join the two groups of each pair."""
        ends = np.stack([self.roots(one), self.roots(other)])
        names, places = np.unique(ends, return_inverse=True)
        left, right = places.reshape(ends.shape)
        graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
        _, component = connected_components(graph, directed=False)
        smallest = np.full(len(names), len(names))
        np.minimum.at(smallest, component, np.arange(len(names)))
        self._above[names] = names[smallest[component]]
