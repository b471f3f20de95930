"""Workers of a Ray cluster: each has one model, and its own GPU or group of CPU cores.

A worker embeds one shard at a time, writes it to the folder that all machines see, and reports the result. All workers
must run the model in the same way, or they report it: vectors must not depend on the machine that made them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa

from embeddings.distributed.shards import Shard, ShardFolder
from embeddings.embed import embed_rows
from embeddings.errors import ResourceError, RootnoteError
from embeddings.models.base import Embedder, Projection, Vectors

_TRIES = 3


@dataclass(frozen=True)
class Model:
    """What the driver must know about the workers' embedder; takes its place where nothing is embedded."""

    name: str
    dim: int
    sample_rate: int
    fits: bool
    light: bool
    batch_size: int
    shaping: dict[str, Any]
    running: dict[str, str]

    @classmethod
    def of(cls, embedder: Embedder) -> Model:
        return cls(
            embedder.name,
            embedder.dim,
            embedder.sample_rate,
            embedder.fits,
            embedder.light,
            embedder.batch_size,
            embedder.settings(),
            embedder.runtime(),
        )

    def settings(self) -> dict[str, Any]:
        return self.shaping

    def runtime(self) -> dict[str, str]:
        return self.running

    def embed(self, batch: Vectors) -> Vectors:
        raise NotImplementedError("workers embed")

    def fit(self, features: Vectors) -> Projection | None:
        raise NotImplementedError("the driver fits with the embedder itself")


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs except its shards."""

    load: Callable[[], Embedder]
    model: Model
    audio_dir: Path
    projection: Projection | None
    folder: ShardFolder
    cores: int
    command: str


@dataclass(frozen=True)
class ShardOutcome:
    """The result of a shard. "setup": the machine cannot embed any shard; "failed": this shard failed."""

    shard: Shard
    kind: Literal["done", "failed", "setup"]
    reason: str


class EmbeddingWorker:
    """One model on one machine, which embeds the shards that Ray passes to it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._embedder: Embedder | None = None
        self._slot: IO[bytes] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [
            self._embed(Shard(int(begin), int(end)), clips)
            for begin, end, clips in zip(batch["begin"], batch["end"], batch["clips"], strict=True)
        ]
        # An array of str would be cut to the longest; objects are not.
        reasons = np.array([one.reason for one in done], dtype=object)
        kinds = np.array([one.kind for one in done], dtype=object)
        return {"begin": batch["begin"], "end": batch["end"], "kind": kinds, "reason": reasons}

    def _embed(self, shard: Shard, clips: bytes) -> ShardOutcome:
        here = f"on node {socket.gethostname()}"
        try:
            embedder = self._ready()
        except (RootnoteError, OSError) as error:
            return ShardOutcome(shard, "setup", f"{here}: {error}")
        folder = self._job.folder
        try:
            if folder.has(shard):
                return ShardOutcome(shard, "done", "")
            table = pa.ipc.open_file(clips).read_all()
            if folder.count_try(shard, self._job.command) > _TRIES:
                first = table["path"][0].as_py()
                reason = f"{shard} (from {first}) crashed the worker {_TRIES} times, perhaps because memory ran out."
                return ShardOutcome(shard, "failed", reason)
            batches = embed_rows(table, self._job.audio_dir, embedder, self._job.projection, 0, table.num_rows)
            folder.write(shard, np.concatenate(list(batches)))
            return ShardOutcome(shard, "done", "")
        except (RootnoteError, OSError) as error:
            return ShardOutcome(shard, "failed", f"{here}: {error}")

    def _ready(self) -> Embedder:
        """The embedder, after a check of the storage.

        Raises:
            RootnoteError: if this machine does not see the storage, or would give other vectors than the others.
        """
        for path, visible in (
            (self._job.audio_dir, self._job.audio_dir.is_dir()),
            (self._job.folder.path, self._job.folder.is_seen()),
        ):
            if not visible:
                raise ResourceError(f"it does not see {path}; music and output must be on storage that all nodes see.")
        if self._embedder is None:
            self._slot = _keep_to(self._job.cores)
            embedder = self._job.load()
            found, wanted = Model.of(embedder), self._job.model
            if found != wanted:
                raise ResourceError(
                    f"it would run {found.name} with {found.running}, others with {wanted.running}; install the same "
                    "versions on all nodes, and choose one --backend."
                )
            self._embedder = embedder
        return self._embedder


def _keep_to(cores: int) -> IO[bytes] | None:
    """Restrict this process to `cores` cores; otherwise libraries start a thread for each core of the machine.

    Returns:
        A lock on these cores, which keeps other workers of this machine off them; `None` if no restriction is needed.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    for slot in range(len(allowed) // cores if len(allowed) > cores else 0):
        path = Path(tempfile.gettempdir()) / f"rootnote-cores-{os.getuid()}-{cores}-{slot}.lock"
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), allowed[slot * cores : (slot + 1) * cores])
        return lock
    return None
