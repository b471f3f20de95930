"""The approximate index: nearest clips in milliseconds, with a few misses; never used to build a study.

Below a million clips the index is HNSW, a graph of neighbours: it has the best recall for its speed and needs no
training, but its size and build time grow too fast for larger corpora. From a million clips on it is IVF, lists of
clips around centres: it is built in one pass, and a search reads only the nearest lists. Both store vectors in 8 bits
per number. They propose four times as many clips as requested, and these are scored again from the original vectors,
so scores are exact and only the selection is approximate.

An index is built once and stored next to the vectors, with its provenance, its SHA-256 and its recall: the share of
the exact k nearest that it finds, measured with random clips of the corpus as queries, each excluded from its own
result (a clip that ties with the k-th counts as found). A stale, damaged or foreign index is built again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from embeddings.errors import DataError, ResourceError, RootnoteError
from embeddings.models.base import Vectors
from embeddings.provenance import Provenance, read_json, replacing, write_json
from embeddings.search.exact import Neighbours, nearest

Kind = Literal["hnsw", "ivf"]
Progress = Callable[[int, int], None]

IVF_FROM = 1_000_000
RECALL_QUERIES = 1000
_KIND = "approximate index"
_MADE_BY = "rootnote embeddings search --approximate"
_MORE = 4
_LINKS, _BUILD_EFFORT = 32, 128
_LEAST_EFFORT, _MOST_EFFORT, _TUNING_QUERIES = 32, 1024, 200
_GOOD = {10: 0.95, 100: 0.9}  # the recall below which the effort is raised
_TRAINING_ROWS_A_LIST, _TRAINING_ROUNDS = 40, 10
_BLOCK_ROWS, _QUERIES_AT_ONCE = 16_384, 16


@dataclass(frozen=True)
class ApproximateIndex:
    """An index over `vectors`; `effort` is how much of it a search visits (HNSW: efSearch, IVF: nprobe).

    `recall` is k -> share found, for k = 10 and 100 if the corpus has enough clips.
    """

    kind: Kind
    index: Any
    vectors: npt.NDArray[Any]
    effort: int
    recall: dict[int, float]
    built_now: bool = False

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """Like `exact.nearest`, but a few of the nearest rows may be missed; the scores are exact."""
        wanted = min(len(self.vectors), _MORE * k)
        if wanted == len(self.vectors):
            return nearest(self.vectors, queries, k)
        _set_effort(self.kind, self.index, self.effort)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        _, proposed = self.index.search(queries, wanted)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for begin in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(begin, begin + _QUERIES_AT_ONCE)
            scores[part], rows[part] = self._best(queries[part], proposed[part], k)
        short = np.flatnonzero(rows[:, -1] < 0)  # the lists that were searched have fewer than k rows
        if len(short):
            exact = nearest(self.vectors, queries[short], k)
            scores[short], rows[short] = exact.scores, exact.rows
        return Neighbours(scores, rows)

    def _best(self, queries: Vectors, proposed: npt.NDArray[np.int64], k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The k best of the proposed rows `[Q, >= k]`, scored from the vectors; row -1 if there are fewer."""
        vectors = self.vectors[np.maximum(proposed, 0)].astype(np.float32, copy=False)
        scores = np.einsum("qd,qkd->qk", queries, vectors)
        scores[proposed < 0] = -np.inf
        order = np.lexsort((proposed, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(proposed, order, axis=1)


def open_index(
    path: Path,
    vectors: npt.NDArray[Any],
    provenance: Provenance,
    *,
    kind: Kind | None = None,
    progress: Progress | None = None,
) -> ApproximateIndex:
    """The index stored next to the vectors at `path` (.npy); built first if there is no valid one.

    Args:
        provenance: the provenance of the vectors.
        kind: default: chosen by the number of clips.
        progress: called with the number of clips in the index and their total, while it is built.

    Raises:
        RootnoteError: if a vector is not finite, or the index cannot be written.
    """
    kind = kind or ("hnsw" if len(vectors) < IVF_FROM else "ivf")
    file = path.with_suffix(f".{kind}.faiss")
    notes = path.with_suffix(f".{kind}.json")
    expected = _provenance(kind, vectors, provenance)
    kept = _read(file, notes, expected, kind, vectors)
    return kept or _build(file, notes, expected, kind, vectors, progress)


def _provenance(kind: Kind, vectors: npt.NDArray[Any], provenance: Provenance) -> Provenance:
    settings = {
        "kind": kind,
        "clips": len(vectors),
        "dim": vectors.shape[1],
        "dtype": str(vectors.dtype),
        "links": _LINKS,
        "build_effort": _BUILD_EFFORT,
        "faiss": faiss.__version__,
    }
    return Provenance(_KIND, settings, {"vectors": provenance.fingerprint})


def _read(
    file: Path, notes: Path, expected: Provenance, kind: Kind, vectors: npt.NDArray[Any]
) -> ApproximateIndex | None:
    """The index in `file`, or `None` if it is missing, stale or damaged."""
    try:
        content, found = read_json(notes, _KIND, _MADE_BY)
        # faiss does not validate its input, so it gets a file only if the SHA-256 matches the one recorded.
        with file.open("rb") as opened:
            same = hashlib.file_digest(opened, "sha256").hexdigest() == content["sha256"]
        if not same or found.fingerprint != expected.fingerprint:
            return None
        recall = {int(k): float(share) for k, share in content["recall"].items()}
        return ApproximateIndex(kind, faiss.read_index(str(file)), vectors, int(content["effort"]), recall)
    except (RootnoteError, OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _build(
    file: Path,
    notes: Path,
    provenance: Provenance,
    kind: Kind,
    vectors: npt.NDArray[Any],
    progress: Progress | None,
) -> ApproximateIndex:
    built = ApproximateIndex(kind, _filled(kind, vectors, progress), vectors, _LEAST_EFFORT, {}, built_now=True)
    built = _measured(built)
    try:
        notes.unlink(missing_ok=True)  # it certifies the file, so it is removed first and written last
        with replacing(file) as temporary:
            faiss.write_index(built.index, str(temporary))
            with temporary.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        content = {"sha256": digest, "effort": built.effort, "recall": {str(k): v for k, v in built.recall.items()}}
        write_json(notes, content, provenance)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the disk may be full"
        raise ResourceError(
            f"{file} cannot be written ({reason}); free some space, or leave --approximate out."
        ) from error
    return built


def _filled(kind: Kind, vectors: npt.NDArray[Any], progress: Progress | None) -> Any:
    count, dim = vectors.shape
    index: Any
    if kind == "hnsw":
        index = faiss.index_factory(dim, f"HNSW{_LINKS},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
        training_rows = min(count, 100_000)
    else:
        lists = max(1, min(round(4 * count**0.5), count // _TRAINING_ROWS_A_LIST))
        index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.cp.niter = _TRAINING_ROUNDS
        index.cp.min_points_per_centroid = 1  # small corpora have fewer; faiss would warn on standard error
        training_rows = min(count, max(10_000, _TRAINING_ROWS_A_LIST * lists))
    sample = np.sort(np.random.default_rng(0).choice(count, training_rows, replace=False))
    index.train(_finite(vectors[sample]))
    for begin in range(0, count, _BLOCK_ROWS):
        index.add(_finite(vectors[begin : begin + _BLOCK_ROWS]))
        if progress:
            progress(index.ntotal, count)
    return index


def _finite(rows: npt.NDArray[Any]) -> Vectors:
    values = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(values).all():
        raise DataError("the vectors have a value that is not finite; embed the corpus again.")
    return values


def _measured(built: ApproximateIndex) -> ApproximateIndex:
    """Raise the effort until the recall on some queries is good, then record the recall on others."""
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(built.vectors))[: RECALL_QUERIES + _TUNING_QUERIES]
    # If there are enough queries, the reported recall is measured on queries that were not used for tuning.
    tuning, reporting = rows[-_TUNING_QUERIES:], rows[:RECALL_QUERIES]
    depths = [k for k in _GOOD if k < len(built.vectors)]
    if not depths:
        return built
    tuned = _GroundTruth.of(built.vectors, tuning, depths)
    while built.effort < _MOST_EFFORT and any(share < _GOOD[k] for k, share in tuned.recall(built).items()):
        built = replace(built, effort=2 * built.effort)
    return replace(built, recall=_GroundTruth.of(built.vectors, reporting, depths).recall(built))


@dataclass(frozen=True)
class _GroundTruth:
    """Rows of the corpus as queries, and their exact nearest rows without themselves."""

    rows: npt.NDArray[np.int64]
    queries: Vectors
    exact: Neighbours
    depths: list[int]

    @classmethod
    def of(cls, vectors: npt.NDArray[Any], rows: npt.NDArray[np.int64], depths: list[int]) -> _GroundTruth:
        queries = np.ascontiguousarray(vectors[rows], dtype=np.float32)
        return cls(rows, queries, nearest(vectors, queries, max(depths), exclude=rows), depths)

    def recall(self, index: ApproximateIndex) -> dict[int, float]:
        """k -> the share of the exact k nearest that the index finds."""
        found = index.nearest(self.queries, max(self.depths) + 1)
        others = np.where(found.rows == self.rows[:, None], -np.inf, found.scores)
        others = -np.sort(-others, axis=1)
        shares = {}
        for k in self.depths:
            enough = others[:, :k] >= self.exact.scores[:, k - 1 : k] - 1e-6
            shares[k] = round(float(enough.mean()), 4)
        return shares


def _set_effort(kind: Kind, index: Any, effort: int) -> None:
    if kind == "hnsw":
        index.hnsw.efSearch = effort
    else:
        index.nprobe = min(effort, index.nlist)
