"""Milvus: a store that searches vectors on other machines, with the same result as a search of the file.

A store is written `milvus:FILE.db` (embedded, package milvus-lite) or `milvus:http://HOST:PORT` (a server or a
cluster; a token is taken from the environment, `ROOTNOTE_MILVUS_TOKEN`). The vectors of one file are one collection.
Its name contains a hash of everything that shapes them, so vectors of another corpus or model are never searched by
mistake. It is filled under a temporary name and renamed when complete; interrupted filling continues where it stopped.

Milvus only proposes candidates: a FLAT index returns more rows than requested, and these are scored again from the
file by `exact.nearest`. A row that Milvus did not return scores at most as high as the last row that it returned. Two
float32 sums of `dim` products, one by Milvus and one by Rootnote, differ by at most 2·γ·|q|·|x| with γ = dim·2⁻²⁴. If
Rootnote's k-th score does not exceed Milvus's last score by more than that, more rows are requested; as a last resort
the file itself is searched.
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

LARGEST_K = 16_384  # the most neighbours that Milvus returns
_UNION_ROWS, _QUERIES = 65_536, 256  # candidates that are scored again, and queries that are sent, at a time
_NORM = 1.001  # the longest row: unit norm with rounding to float16


def put_vectors(
    store: str, vectors: npt.NDArray[Any], provenance: Provenance, *, progress: Progress | None = None
) -> None:
    """Copy `vectors` `[N, dim]` into the store in blocks; does nothing if the store already has them.

    Raises:
        RootnoteError: if the store cannot be reached or refuses, or a value is not finite. Copied rows are kept, and
            the next call continues from there.
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
    """The same result as `exact.nearest(vectors, queries, k)`, found by the store, which is filled first if needed.

    Args:
        store: such as "milvus:http://localhost:19530".
        vectors: `[N, dim]` unit rows, as opened by `embeddings.vectors.read_vectors`; only candidates are read.

    Raises:
        RootnoteError: as for `put_vectors` and `nearest`, and if k is more than Milvus can return.
    """
    if k > LARGEST_K:
        raise ConfigError(
            f"{k:,} neighbours requested, but Milvus returns at most {LARGEST_K:,}; request fewer, or omit --store."
        )
    answerable = 1 <= k <= len(vectors) and queries.shape[1:] == vectors.shape[1:] and np.isfinite(queries).all()
    if not answerable or not len(queries):
        return nearest(vectors, queries, k)  # raises the right error
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
        """The best k of the rows that Milvus proposes, and whether they are certainly the best of all, by query."""
        proposed = self.collection.propose(queries, limit)
        candidates = np.unique(proposed.rows)
        if candidates[0] < 0 or candidates[-1] >= len(self.vectors):
            raise self.collection.mismatch()
        # Every query is compared with the candidates of all queries: this can only find better ones.
        found = nearest(np.asarray(self.vectors[candidates], dtype=np.float32), queries, self.k)
        found = Neighbours(found.scores, candidates[found.rows])
        slack = 2 * queries.shape[1] * 2.0**-24 * _NORM * np.linalg.norm(queries.astype(np.float64), axis=1) * 1.01
        floor = proposed.scores[:, -1].astype(np.float64) + slack
        sure = (found.scores[:, -1] > floor) | (limit == len(self.vectors))
        for query in np.flatnonzero(sure):
            self._require_agreement(proposed, found, int(query), float(slack[query]))
        return found, sure

    def _require_agreement(self, proposed: Neighbours, found: Neighbours, query: int, slack: float) -> None:
        """Check that the store's scores equal Rootnote's up to rounding; otherwise it has other vectors."""
        order = np.argsort(proposed.rows[query])
        place = np.searchsorted(proposed.rows[query], found.rows[query], sorter=order)
        place = order[np.minimum(place, len(order) - 1)]
        same = proposed.rows[query][place] == found.rows[query]
        off = np.abs(proposed.scores[query][place].astype(np.float64) - found.scores[query])
        if not same.all() or off.max() > slack:
            raise self.collection.mismatch()


def _at_once(limit: int) -> int:
    return min(_QUERIES, max(1, _UNION_ROWS // limit))
