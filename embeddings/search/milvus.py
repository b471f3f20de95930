"""Milvus: a store that searches vectors on other machines, with the answer of one.

A store is written `milvus:FILE.db` (embedded, package milvus-lite) or `milvus:http://HOST:PORT` (a server or a
cluster; a token is taken from the environment, `ROOTNOTE_MILVUS_TOKEN`). The vectors of one file make one
collection, named after all that shapes them, so those of another corpus or model are never searched by mistake. It
is filled under another name and renamed when it is complete; interrupted filling continues where it stopped.

Milvus proposes, the file decides: a FLAT index gives more rows than were asked for, and these are scored again from
the vectors by `index.nearest`. A row that Milvus left out has at most the last score it gave. Two sums of `dim`
products in float32, its and ours, differ by at most 2·γ·|q|·|x| with γ = dim·2⁻²⁴; where the k-th score of ours is
not above the last of Milvus by more than that, more rows are asked for, and in the end the file itself is searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embeddings.audio.corpus import Progress
from embeddings.errors import ConfigError
from embeddings.models.base import Vectors
from embeddings.provenance import Provenance
from embeddings.search.exact import Neighbours, nearest
from embeddings.search.milvus_store import Collection, opened

LARGEST_K = 16_384  # Milvus gives no more neighbours at once
_UNION_ROWS, _QUERIES = 65_536, 256  # candidates that are scored again, and queries that are sent, at a time
_NORM = 1.001  # the longest row: unit norm, but for the rounding of float16


def put_vectors(
    store: str, vectors: npt.NDArray[Any], provenance: Provenance, *, progress: Progress | None = None
) -> None:
    """Copy `vectors` `[N, dim]` into the store, by blocks; does nothing where they are there already.

    Raises:
        RootnoteError: where the store cannot be reached or refuses, or a value is not finite; what was copied is
            kept, and the next call continues from there.
    """
    with opened(store, vectors, provenance) as collection:
        collection.fill(vectors, progress)


def nearest_in(
    store: str,
    provenance: Provenance,
    vectors: npt.NDArray[Any],
    queries: Vectors,
    k: int,
    *,
    progress: Progress | None = None,
) -> Neighbours:
    """The same as `index.nearest(vectors, queries, k)`, found by the store; fills it first where need be.

    Args:
        store: such as "milvus:http://localhost:19530".
        vectors: `[N, dim]` unit rows, as `embedder.read_vectors` opens them; only candidates are read from them.

    Raises:
        RootnoteError: as `put_vectors` and `nearest`, and where k is more than Milvus can give.
    """
    if k > LARGEST_K:
        raise ConfigError(
            f"{k:,} neighbours requested, but Milvus gives at most {LARGEST_K:,}; request fewer, or leave --store out."
        )
    answerable = 1 <= k <= len(vectors) and queries.shape[1:] == vectors.shape[1:] and np.isfinite(queries).all()
    if not answerable or not len(queries):
        return nearest(vectors, queries, k)  # which says what is wrong
    with opened(store, vectors, provenance) as collection:
        collection.fill(vectors, progress)
        return _Search(collection, vectors, k).all(np.array(queries, dtype=np.float32))


@dataclass(frozen=True)
class _Search:
    """Searches for the k nearest rows."""

    collection: Collection
    vectors: npt.NDArray[Any]
    k: int

    def all(self, queries: Vectors) -> Neighbours:
        """The k nearest rows of each query."""
        scores = np.empty((len(queries), self.k), np.float32)
        rows = np.empty((len(queries), self.k), np.int64)
        todo = np.arange(len(queries))
        limit = self._limit(self.k + 32 + self.k // 16)
        while len(todo):
            unsure = []
            for part in np.array_split(todo, -(-len(todo) // _at_once(limit))):
                found, sure = self._some(queries[part], limit)
                scores[part], rows[part] = found.scores, found.rows
                unsure.append(part[~sure])
            todo = np.concatenate(unsure)
            if len(todo) and limit == self._limit(LARGEST_K):
                # So many rows share the k-th score that Milvus cannot tell them apart.
                found = nearest(self.vectors, queries[todo], self.k)
                scores[todo], rows[todo] = found.scores, found.rows
                break
            limit = self._limit(4 * limit)
        return Neighbours(scores, rows)

    def _limit(self, wanted: int) -> int:
        return min(wanted, LARGEST_K, len(self.vectors))

    def _some(self, queries: Vectors, limit: int) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """The best k of what Milvus proposes, and the queries for which they are certainly the best of all."""
        proposed = self.collection.propose(queries, limit)
        candidates = np.unique(proposed.rows)
        if candidates[0] < 0 or candidates[-1] >= len(self.vectors):
            raise self.collection.foreign()
        # All queries may choose among all candidates: that can only find better ones than each one's own.
        found = nearest(np.asarray(self.vectors[candidates], dtype=np.float32), queries, self.k)
        found = Neighbours(found.scores, candidates[found.rows])
        slack = 2 * queries.shape[1] * 2.0**-24 * _NORM * np.linalg.norm(queries.astype(np.float64), axis=1) * 1.01
        floor = proposed.scores[:, -1].astype(np.float64) + slack
        sure = (found.scores[:, -1] > floor) | (limit == len(self.vectors))
        for query in np.flatnonzero(sure):
            self._require_agreement(proposed, found, int(query), float(slack[query]))
        return found, sure

    def _require_agreement(self, proposed: Neighbours, found: Neighbours, query: int, slack: float) -> None:
        """The store's scores must be ours but for rounding, else it holds other vectors."""
        order = np.argsort(proposed.rows[query])
        place = np.searchsorted(proposed.rows[query], found.rows[query], sorter=order)
        place = order[np.minimum(place, len(order) - 1)]
        same = proposed.rows[query][place] == found.rows[query]
        off = np.abs(proposed.scores[query][place].astype(np.float64) - found.scores[query])
        if not same.all() or off.max() > slack:
            raise self.collection.foreign()


def _at_once(limit: int) -> int:
    return min(_QUERIES, max(1, _UNION_ROWS // limit))
