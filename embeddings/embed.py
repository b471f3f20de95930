"""Embedding: turn the clips of a corpus into a file of vectors, without ever losing a finished batch.

Several threads decode and resample, one queue per track, read in row order; the caller's thread runs the embedder on
whole batches. Queues are bounded, so memory does not grow with the corpus or the length of a track.
Finished rows are appended to `NAME.<run>.part`, where <run> stands for everything that shapes the file: corpus,
model, backend, versions, type. An interrupted run continues after its last whole batch. Because its batches are cut at
the same rows, it ends with the same bytes as an uninterrupted run. Only then is the file renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import itertools
import os
import queue
import shutil
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.audio.corpus import Progress, TrackClips, require_audio, tracks_of
from embeddings.audio.decode import Samples, read_clips
from embeddings.errors import ConfigError, DataError, ResourceError, RootnoteError
from embeddings.models.base import Embedder, Projection, Vectors, unit
from embeddings.provenance import Provenance, digest, replacing, write_json
from embeddings.threads import cores
from embeddings.vectors import vectors_provenance

Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16")
# Fitting uses whole tracks drawn at random until they have this many clips.
FIT_CLIPS = 20_000
_AHEAD = 64  # clips a decoder may be ahead of the embedder


def embed_corpus(
    table: pa.Table,
    corpus: Provenance,
    audio_dir: Path,
    embedder: Embedder,
    out: Path,
    *,
    dtype: Dtype = "float32",
    progress: Progress | None = None,
    workers: int | None = None,
) -> Provenance:
    """Write `out` (.npy, `[clips, dim]`), its .json and, where something was fitted, its .fitted.npz.

    Raises:
        RootnoteError: if a file of the corpus is missing, changed or cannot be decoded, a value is not finite or
            the disk is full. Finished rows are kept, and the next call continues from there.
    """
    if out.suffix != ".npy":
        raise ConfigError(f"{out} must end in .npy.")
    require_audio(table, audio_dir)
    run = EmbeddingRun.of(table, corpus, embedder, out, dtype)
    with run.locked():
        projection = fit_projection(table, audio_dir, embedder, run, progress=progress, workers=workers)
        with RowSource(run.part, (table.num_rows, embedder.dim), dtype, embedder.batch_size) as rows:
            for vectors in _vectors(table, audio_dir, embedder, projection, run, rows.done, workers):
                rows.append(vectors)
                if progress:
                    progress(rows.done, table.num_rows)
        run.finish(projection)
    return run.provenance


def embed_rows(
    table: pa.Table,
    audio_dir: Path,
    embedder: Embedder,
    projection: Projection | None,
    begin: int,
    end: int,
    workers: int | None = None,
) -> Iterator[Vectors]:
    """Unit vectors of rows `begin` to `end`, a batch at a time; the same whatever the range they are part of.

    Args:
        begin: a multiple of the embedder's batch size.
    """
    if begin % embedder.batch_size:
        raise ValueError(f"begin must be a multiple of {embedder.batch_size}, got {begin}")
    for features in _features(tracks_of(table, begin, end), audio_dir, embedder, workers):
        vectors = projection.apply(features) if projection else unit(features)
        if not np.isfinite(vectors).all():
            row = begin + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            path, start = table["path"][row].as_py(), table["start_s"][row].as_py()
            raise DataError(f"{embedder.name} gave a value that is not finite for {path} at {start:g} s.")
        yield vectors
        begin += len(vectors)


def fit_projection(
    table: pa.Table,
    audio_dir: Path,
    embedder: Embedder,
    run: EmbeddingRun,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Projection | None:
    """The projection that the embedder fits to up to `FIT_CLIPS` clips of random tracks; stored on disk."""
    if not embedder.fits:
        return None
    if run.fitted.exists():
        return _load_projection(run.fitted)
    sample = _fit_sample(table)
    clips = _clip_count(sample)
    width = len(embedder.embed(np.zeros((1, _samples(table, embedder)), np.float32))[0])
    with RowSource(run.features, (clips, width), "float32", embedder.batch_size) as rows:
        todo = _skip(sample, rows.done)
        for features in _features(todo, audio_dir, embedder, workers):
            rows.append(features)
            if progress:
                progress(rows.done, clips)
    projection = embedder.fit(np.load(run.features))
    if projection is None:
        raise DataError(f"{embedder.name} states that it fits a projection, but it fitted none.")
    _save_projection(run.fitted, projection)
    if clips < table.num_rows:
        run.features.unlink()
    return projection


@dataclass(frozen=True)
class EmbeddingRun:
    """The files of one run that writes `out`; their names contain a hash of everything that shapes it."""

    out: Path
    name: str
    provenance: Provenance
    content: dict[str, Any]
    fit_clips: int

    @classmethod
    def of(cls, table: pa.Table, corpus: Provenance, embedder: Embedder, out: Path, dtype: Dtype) -> EmbeddingRun:
        provenance = vectors_provenance(embedder, corpus)
        runtime = embedder.runtime()
        content = {"dim": embedder.dim, "clips": table.num_rows, "dtype": dtype, "runtime": runtime}
        name = digest({"vectors": provenance.fingerprint, "batch": embedder.batch_size, **content})[:8]
        return cls(out, name, provenance, content, _clip_count(_fit_sample(table)) if embedder.fits else 0)

    def _file(self, suffix: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{self.name}.{suffix}")

    @property
    def part(self) -> Path:
        """The rows so far."""
        return self._file("part")

    @property
    def features(self) -> Path:
        """The features of the sample so far, while the embedder is fitted."""
        return self._file("features.part")

    @property
    def fitted(self) -> Path:
        """The fitted projection."""
        return self._file("fitted.part.npz")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the files against other processes."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResourceError(
                    f"{self.out} is being written by another process; wait until it finishes."
                ) from None
            try:
                yield
            finally:
                if os.fstat(handle.fileno()).st_size == 0:
                    self.part.unlink(missing_ok=True)

    def finish(self, projection: Projection | None) -> None:
        """Put the files in place. The .json describes the others, so it is removed first and written last."""
        self.out.with_suffix(".json").unlink(missing_ok=True)
        fitted = self.out.with_suffix(".fitted.npz")
        fit = None
        if projection is None:
            fitted.unlink(missing_ok=True)
        else:
            _save_projection(fitted, projection)
            digest_of = hashlib.sha256(fitted.read_bytes()).hexdigest()
            what = "unit((features - mean) @ matrix)"
            fit = {"what": what, "file": fitted.name, "sha256": digest_of, "clips": self.fit_clips}
        self.part.replace(self.out)
        write_json(self.out.with_suffix(".json"), {**self.content, "fitted": fit}, self.provenance)
        # Part files of other runs (another backend, an older corpus) are no longer needed.
        for path in self.out.parent.glob(f"{self.out.stem}.*.part*"):
            path.unlink(missing_ok=True)
        for folder in self.out.parent.glob(f"{self.out.stem}.*.shards"):
            shutil.rmtree(folder, ignore_errors=True)


class RowSource:
    """Rows appended to a .npy file that states its final shape from the start; its size says how many there are.

    Raises:
        RootnoteError: if the disk has too little space for the rest.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Dtype, batch: int) -> None:
        self._path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self._row_bytes = shape[1] * self._dtype.itemsize
        header = self._header()
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        whole = self._file.read(len(header)) == header
        size = max(0, path.stat().st_size - len(header)) if whole else 0
        rows = min(size // self._row_bytes, shape[0])
        # Only whole batches count: their rows may depend, in the last bit, on the batch they are computed in.
        self.done = rows if rows == shape[0] else rows // batch * batch
        try:
            self._require_space()
            if not whole:
                self._file.seek(0)
                self._file.write(header)
            end = len(header) + self.done * self._row_bytes
            self._file.truncate(end)
            self._file.seek(end)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RowSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.fsync(self._file.fileno())
        self._file.close()
        if not self.done:
            self._path.unlink(missing_ok=True)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Append rows."""
        data = memoryview(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._failed(error) from error
        self.done += len(rows)

    def _header(self) -> bytes:
        stated = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, stated)
        return buffer.getvalue()

    def _require_space(self) -> None:
        needed = (self._shape[0] - self.done) * self._row_bytes
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise ResourceError(
                f"{self._path.parent} has {free / 1e9:.1f} GB free, but the vectors need {needed / 1e9:.1f} GB more; "
                "free some space, or write to another disk."
            )

    def _failed(self, error: OSError) -> RootnoteError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceError(
                f"the disk of {self._path.parent} is full; {self.done:,} of {self._shape[0]:,} clips are kept: "
                "free some space and run the same command again."
            )
        return ResourceError(f"{self._path} cannot be written ({error.strerror}); run the same command again.")


def _vectors(
    table: pa.Table,
    audio_dir: Path,
    embedder: Embedder,
    projection: Projection | None,
    run: EmbeddingRun,
    begin: int,
    workers: int | None,
) -> Iterator[Vectors]:
    if projection is None or not run.features.exists():
        yield from embed_rows(table, audio_dir, embedder, projection, begin, table.num_rows, workers)
        return
    # The sample was the whole corpus: its features are on disk and need no second decoding.
    features = np.load(run.features, mmap_mode="r")
    for first in range(begin, table.num_rows, embedder.batch_size):
        yield projection.apply(np.asarray(features[first : first + embedder.batch_size]))


def _features(
    tracks: Iterable[TrackClips], audio_dir: Path, embedder: Embedder, workers: int | None
) -> Iterator[Vectors]:
    clips = _Decoders(audio_dir, embedder.sample_rate, workers or cores()).clips(tracks)
    with contextlib.closing(clips):
        while batch := list(itertools.islice(clips, embedder.batch_size)):
            yield embedder.embed(np.stack(batch))


_Item = Samples | Exception | None  # None: the track's end


@dataclass(frozen=True)
class _Decoders:
    """Threads that decode tracks, each into its own queue; the queues are read in order."""

    audio_dir: Path
    sample_rate: int
    threads: int

    def clips(self, tracks: Iterable[TrackClips]) -> Generator[Samples, None, None]:
        """The clips of `tracks` in their order: the same on every machine, whichever thread finishes first."""
        stop = threading.Event()
        waiting: deque[queue.Queue[_Item]] = deque()
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

    def _decode(self, track: TrackClips, to: queue.Queue[_Item], stop: threading.Event) -> None:
        path, starts, seconds = track
        try:
            for clip in read_clips(self.audio_dir / path, starts, seconds, self.sample_rate):
                if not _put(to, clip, stop):
                    return
            _put(to, None, stop)
        except Exception as error:
            _put(to, error, stop)


def _put(to: queue.Queue[_Item], item: _Item, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            to.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _fit_sample(table: pa.Table) -> Sequence[TrackClips]:
    """All tracks, or a random choice of tracks if they have more than `FIT_CLIPS` clips, in order."""
    if table.num_rows <= FIT_CLIPS:
        return list(tracks_of(table))
    begins = np.flatnonzero(np.diff(table["track"].to_numpy(), prepend=-1))
    counts = np.diff(begins, append=table.num_rows)
    order = np.random.default_rng(0).permutation(len(begins))
    chosen = order[: int(np.searchsorted(np.cumsum(counts[order]), FIT_CLIPS)) + 1]
    return [next(tracks_of(table, int(begins[one]), int(begins[one] + counts[one]))) for one in np.sort(chosen)]


def _skip(tracks: Iterable[TrackClips], count: int) -> Iterator[TrackClips]:
    """`tracks` without their first `count` clips."""
    for path, starts, seconds in tracks:
        if count < len(starts):
            yield path, starts[count:], seconds
        count = max(0, count - len(starts))


def _clip_count(tracks: Iterable[TrackClips]) -> int:
    return sum(len(starts) for _, starts, _ in tracks)


def _samples(table: pa.Table, embedder: Embedder) -> int:
    return round(float(table["duration_s"][0].as_py()) * embedder.sample_rate)


def _save_projection(path: Path, projection: Projection) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, mean=projection.mean, matrix=projection.matrix)


def _load_projection(path: Path) -> Projection:
    with np.load(path) as arrays:
        return Projection(arrays["mean"], arrays["matrix"])
