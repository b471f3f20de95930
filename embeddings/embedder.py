"""Embedders: from clips to unit vectors.

An embedder turns a batch of clips into features; where it has something to fit to the corpus, it gives a
projection of them. Vectors are float32 with unit norm, row i is clip i of the corpus, and a clip's vector does
not depend on the batch it came in. To add a model: one file here, one line in `EMBEDDERS`.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.artefacts import Provenance, RootnoteError, read_json, replacing, write_json
from embeddings.audio import Samples, read_clips
from embeddings.corpus import Progress, cores, require_audio, tracks_of

Vectors = npt.NDArray[np.float32]

MADE_BY = "rootnote embeddings embed"
BATCH = 64
# Fitting uses whole tracks drawn at random until they have this many clips.
FIT_CLIPS = 20_000
_AHEAD = 64  # clips a decoder may be ahead of the embedder


@dataclass(frozen=True)
class Projection:
    """What was fitted to a corpus: vector = unit((features - mean) @ matrix)."""

    mean: Vectors  # [features]
    matrix: Vectors  # [features, dim]

    def apply(self, features: Vectors) -> Vectors:
        """Unit vectors `[N, dim]` of features `[N, features]`."""
        centred = features - self.mean
        # What rounding leaves of a clip at the very mean has no direction.
        at_mean = np.linalg.norm(centred, axis=1) <= 1e-5 * np.linalg.norm(self.mean)
        centred[at_mean] = 0
        return unit(centred @ self.matrix)


class Embedder(Protocol):
    """A similarity measure's way from samples to vectors."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def fits(self) -> bool:
        """Whether `fit` must see a sample of the corpus first."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that shapes the vectors besides the audio (a checkpoint's digest, say), JSON-able."""
        ...

    def embed(self, batch: Vectors) -> Vectors:
        """Features float32 `[N, features]` of clips float32 `[N, samples]` at `sample_rate`."""
        ...

    def fit(self, features: Vectors) -> Projection | None:
        """What to project the features `[N, features]` of a sample on; `None`: they only need unit norm."""
        ...


def _logmel(checkpoint: Path | None) -> Embedder:
    if checkpoint is not None:
        raise RootnoteError("logmel has no weights and takes no --checkpoint; leave it out.")
    from embeddings.logmel import load

    return load()


# name -> loader, which takes the checkpoint and imports what it needs only when called.
EMBEDDERS: dict[str, Callable[[Path | None], Embedder]] = {
    "logmel": _logmel,
}


def load_embedder(name: str, checkpoint: Path | None = None) -> Embedder:
    """Make an embedder ready.

    Raises:
        RootnoteError: where the name is not known, or the checkpoint is not what it takes.
    """
    if name not in EMBEDDERS:
        known = ", ".join(sorted(EMBEDDERS))
        raise RootnoteError(f"there is no embedder '{name}'; the known ones are: {known}.")
    return EMBEDDERS[name](checkpoint)


def vectors_provenance(embedder: Embedder, corpus: Provenance) -> Provenance:
    """The provenance of this embedder's vectors of this corpus."""
    settings = {"embedder": embedder.name, **embedder.settings()}
    return Provenance("vectors", settings, {"corpus": corpus.fingerprint})


def embed_corpus(
    table: pa.Table,
    corpus: Provenance,
    audio_dir: Path,
    embedder: Embedder,
    out: Path,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Provenance:
    """Write `out` (.npy, float32 `[clips, dim]`), its .json and, where something was fitted, its .fitted.npz.

    Raises:
        RootnoteError: where a file of the corpus is gone, changed or cannot be decoded; nothing is written.
    """
    if out.suffix != ".npy":
        raise RootnoteError(f"{out} must end in .npy.")
    require_audio(table, audio_dir)
    tracks = list(tracks_of(table))
    sample = _fit_sample(tracks) if embedder.fits else []
    once = len(sample) == len(tracks)
    total = _clip_count(sample) + (0 if once else table.num_rows)
    work = _Work(audio_dir, embedder, workers or cores(), _Counter(progress, total))

    projection = None
    features: list[Vectors] = []
    if sample:
        features = list(work.features(sample))
        projection = embedder.fit(np.concatenate(features))
    with replacing(out) as temporary:
        rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(table.num_rows, embedder.dim))
        begin = 0
        for part in features if once else work.features(tracks):
            vectors = projection.apply(part) if projection else unit(part)
            if not np.isfinite(vectors).all():
                raise RootnoteError(f"{embedder.name} gave a value that is not finite among clips {begin} and on.")
            rows[begin : begin + len(part)] = vectors
            begin += len(part)
        rows.flush()
        del rows
        # The .json vouches for the others, so it goes first and comes back last.
        out.with_suffix(".json").unlink(missing_ok=True)
        fitted = _write_projection(out, projection, _clip_count(sample))
    provenance = vectors_provenance(embedder, corpus)
    content = {"dim": embedder.dim, "clips": table.num_rows, "fitted": fitted}
    write_json(out.with_suffix(".json"), content, provenance)
    return provenance


def read_vectors(path: Path, made_by: str = MADE_BY) -> tuple[Vectors, Provenance]:
    """Open what `embed_corpus` wrote, memory-mapped.

    Raises:
        RootnoteError: where a file is missing, spoilt, or the two do not belong together.
    """
    content, provenance = read_json(path.with_suffix(".json"), "vectors", made_by)
    try:
        vectors = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise RootnoteError(f"{path} is missing; run `{made_by}`.") from None
    except (OSError, ValueError) as error:
        raise RootnoteError(f"{path} is not a readable .npy file; run `{made_by}`.") from error
    if vectors.dtype != np.float32 or vectors.shape != (content["clips"], content["dim"]):
        raise RootnoteError(f"{path} is not what {path.with_suffix('.json').name} says; run `{made_by}`.")
    return vectors, provenance


def read_projection(path: Path, made_by: str = MADE_BY) -> Projection | None:
    """What was fitted for the vectors at `path` (.npy), to embed new audio alike; `None`: nothing."""
    content, _ = read_json(path.with_suffix(".json"), "vectors", made_by)
    if content["fitted"] is None:
        return None
    file = path.parent / content["fitted"]["file"]
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != content["fitted"]["sha256"]:
            raise RootnoteError(f"{file} is not the one made with {path}; run `{made_by}`.")
        with np.load(file) as arrays:
            return Projection(arrays["mean"], arrays["matrix"])
    except (OSError, ValueError, KeyError) as error:
        raise RootnoteError(f"{file} is missing or cannot be read; run `{made_by}`.") from error


def embed_clips(embedder: Embedder, projection: Projection | None, clips: Vectors) -> Vectors:
    """Unit vectors `[N, dim]` of new clips `[N, samples]`, as the corpus's own were made."""
    features = embedder.embed(clips)
    return projection.apply(features) if projection else unit(features)


def unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    """Rows scaled to norm 1; a row of zeros becomes the first axis, so that every row has norm 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.zeros((1, vectors.shape[1]), np.float32)
    first[0, 0] = 1
    return np.where(norms > 1e-12, vectors / np.maximum(norms, 1e-12), first).astype(np.float32, copy=False)


_TrackClips = tuple[str, list[float], float]  # path, starts, clip length; see `tracks_of`


class _Counter:
    """Counts clips and passes the count on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)


@dataclass(frozen=True)
class _Work:
    """How tracks become features: decoded by several threads, embedded in row order."""

    audio_dir: Path
    embedder: Embedder
    threads: int
    counter: _Counter

    def features(self, tracks: Sequence[_TrackClips]) -> Iterator[Vectors]:
        """Features of the clips of `tracks` in their order, a batch at a time."""
        clips = self._clips(tracks)
        while batch := list(itertools.islice(clips, BATCH)):
            yield self.embedder.embed(np.stack(batch))
            self.counter.add(len(batch))

    def _clips(self, tracks: Sequence[_TrackClips]) -> Iterator[Samples]:
        # Each track has a queue of its own, read in order, so batches are the same on every machine; decoders
        # wait when theirs is full, so memory does not grow with the length of a track.
        stop = threading.Event()
        waiting: deque[queue.Queue[Samples | Exception | None]] = deque()
        todo = iter(tracks)
        with ThreadPoolExecutor(self.threads) as pool:

            def begin(count: int) -> None:
                for track in itertools.islice(todo, count):
                    waiting.append(queue.Queue(_AHEAD))
                    pool.submit(self._decode, track, waiting[-1], stop)

            begin(self.threads + 1)
            try:
                while waiting:
                    current = waiting.popleft()
                    while (item := current.get()) is not None:
                        if isinstance(item, Exception):
                            raise item
                        yield item
                    begin(1)
            finally:
                stop.set()

    def _decode(self, track: _TrackClips, to: queue.Queue[Samples | Exception | None], stop: threading.Event) -> None:
        path, starts, seconds = track
        try:
            for clip in read_clips(self.audio_dir / path, starts, seconds, self.embedder.sample_rate):
                if not _put(to, clip, stop):
                    return
            _put(to, None, stop)
        except Exception as error:
            _put(to, error, stop)


def _put(to: queue.Queue[Samples | Exception | None], item: Samples | Exception | None, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            to.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _fit_sample(tracks: Sequence[_TrackClips]) -> Sequence[_TrackClips]:
    """All tracks, or where they have more than `FIT_CLIPS` clips a random choice of tracks, in order."""
    if _clip_count(tracks) <= FIT_CLIPS:
        return tracks
    order = np.random.default_rng(0).permutation(len(tracks))
    counts = np.cumsum([len(tracks[index][1]) for index in order])
    chosen = order[: int(np.searchsorted(counts, FIT_CLIPS)) + 1]
    return [tracks[index] for index in sorted(chosen)]


def _clip_count(tracks: Sequence[_TrackClips]) -> int:
    return sum(len(starts) for _, starts, _ in tracks)


def _write_projection(out: Path, projection: Projection | None, clips: int) -> dict[str, Any] | None:
    file = out.with_suffix(".fitted.npz")
    if projection is None:
        file.unlink(missing_ok=True)
        return None
    with replacing(file) as temporary:
        np.savez(temporary, mean=projection.mean, matrix=projection.matrix)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    return {"what": "unit((features - mean) @ matrix)", "file": file.name, "sha256": digest, "clips": clips}
