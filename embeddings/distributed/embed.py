"""Embedding on a Ray cluster: workers embed shards of the corpus, and the result is the same as on one machine.

A worker has one model and one GPU, or a group of CPU cores; it embeds one shard at a time with
`pipeline.embed_rows` and writes it once (see `shards`). The driver appends finished shards in corpus order to the
same `.part` that one machine writes, so the two can continue each other's work. Shards begin where batches do, and
all workers must run the model alike (backend, precision, versions), so the bytes do not depend on their number.

Conventions: music, checkpoint and output are on storage that all nodes see under the same path, and Rootnote is
installed on every node. If a worker dies, it is replaced and its shard is tried again, up to three times in total.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pyarrow as pa

from embeddings.audio.corpus import Progress, require_audio
from embeddings.distributed.pool import AGAIN, RayWorkers
from embeddings.distributed.ray_connection import connected
from embeddings.distributed.shards import Shard, ShardFolder, shards_of
from embeddings.distributed.workers import Job, ShardOutcome
from embeddings.embed import Dtype, EmbeddingRun, RowSource, fit_projection
from embeddings.errors import ConfigError, ResourceError
from embeddings.models.base import ModelOptions
from embeddings.models.registry import load_embedder
from embeddings.provenance import Provenance

_BATCHES, _LARGEST_COUNT = 64, 10_000  # batches in a shard, unless that made more shards than this
_VISIBLE_SECONDS = 60


def embed_on_cluster(
    table: pa.Table,
    corpus: Provenance,
    audio_dir: Path,
    name: str,
    options: ModelOptions,
    out: Path,
    *,
    address: str,
    shard_rows: int | None = None,
    cores_per_worker: int | None = None,
    dtype: Dtype = "float32",
    progress: Progress | None = None,
) -> Provenance:
    """Write the same bytes as `embed.embed_corpus`, on the machines of a Ray cluster.

    Args:
        address: "auto" (the cluster this machine is part of), "local" (a new cluster on this machine alone),
            "HOST:PORT" or "ray://HOST:PORT".
        shard_rows: a multiple of the embedder's batch size.
        cores_per_worker: of a worker without a GPU.

    Raises:
        RootnoteError: if Ray is missing or cannot be reached, a node does not see the storage or runs the model
            differently, or a shard failed each time. Finished shards are kept, and the next call continues.
    """
    if out.suffix != ".npy":
        raise ConfigError(f"{out} must end in .npy.")
    require_audio(table, audio_dir)
    audio_dir, out = audio_dir.absolute(), out.absolute()
    load = functools.partial(load_embedder, name, _absolute(options))
    with connected(address) as ray:
        workers = RayWorkers.of(ray, options.backend, cores_per_worker)
        model = workers.describe(ray, load)
        run = EmbeddingRun.of(table, corpus, model, out, dtype)
        with run.locked():
            # Fitting reads only a sample of the corpus, so the driver does it.
            projection = fit_projection(table, audio_dir, load(), run, progress=progress) if model.fits else None
            folder = ShardFolder(out.with_name(f"{out.stem}.{run.name}.shards"), run.name, model.dim, dtype)
            job = Job(load, model, audio_dir, projection, folder, workers.cores, secrets.token_hex(4))
            rows_each = shard_rows or _shard_rows(table.num_rows, model.batch_size)
            with folder.made(), RowSource(run.part, (table.num_rows, model.dim), dtype, model.batch_size) as rows:
                merge = _Merge(folder, list(shards_of(table.num_rows, rows_each)), rows, progress)
                for _ in range(2):  # shards that failed by accident, or were damaged on disk, get a second try
                    if todo := merge.missing():
                        merge.collect(workers.embed(ray, job, table, todo))
                merge.require_all()
            run.finish(projection)
            # Shards of other runs (another backend, an older corpus) are no longer needed, like their part files.
            for path in out.parent.glob(f"{out.stem}.*.shards"):
                shutil.rmtree(path, ignore_errors=True)
    return run.provenance


class _Merge:
    """Appends finished shards to the rows in corpus order and removes their files."""

    def __init__(self, folder: ShardFolder, shards: list[Shard], rows: RowSource, progress: Progress | None) -> None:
        self._folder, self._rows, self._progress = folder, rows, progress
        self._shards = [one for one in shards if one.end > rows.done]
        self._total = shards[-1].end if shards else 0
        self._finished = {one for one in self._shards if folder.has(one)}
        self._failed: dict[Shard, str] = {}
        self._append()

    def missing(self) -> list[Shard]:
        """The shards that are still to be embedded."""
        return [one for one in self._shards if one not in self._finished]

    def collect(self, outcomes: Generator[ShardOutcome]) -> None:
        """Process the results of shards."""
        self._failed.clear()
        with contextlib.closing(outcomes):
            for one in outcomes:
                if one.kind == "setup":
                    raise ResourceError(f"{one.reason.rstrip('.')}; {AGAIN}.")
                if one.kind == "failed":
                    self._failed[one.shard] = one.reason
                elif one.shard.end > self._rows.done:
                    self._finished.add(one.shard)
                    self._append()
        deadline = time.monotonic() + _VISIBLE_SECONDS
        # Network storage may show another machine's files late.
        while self._shards and self._shards[0] in self._finished and time.monotonic() < deadline:
            time.sleep(0.2)
            self._append()

    def require_all(self) -> None:
        """Check that no shard is missing."""
        if self._failed:
            _, reason = min(self._failed.items())
            more = f" ({len(self._failed):,} shards failed)" if len(self._failed) > 1 else ""
            raise ResourceError(f"{reason.rstrip('.')}{more}; {AGAIN}.")
        if self._shards:
            raise ResourceError(
                f"{self._shards[0]} were embedded, but {self._folder.path} does not show them; it must be on storage "
                f"that all nodes see; {AGAIN}."
            )

    def _append(self) -> None:
        while self._shards and self._shards[0] in self._finished and self._folder.has(self._shards[0]):
            shard = self._shards[0]
            found = self._folder.read(shard)
            if found is None:  # damaged: it has to be embedded again
                self._finished.discard(shard)
                break
            self._rows.append(found[self._rows.done - shard.begin :])
            self._folder.remove(shard)
            self._finished.discard(shard)
            self._shards.pop(0)
        if self._progress:
            waiting = sum(one.end - one.begin for one in self._finished)
            self._progress(self._rows.done + waiting, self._total)


def _shard_rows(rows: int, batch: int) -> int:
    return batch * max(_BATCHES, -(-rows // (batch * _LARGEST_COUNT)))


def _absolute(options: ModelOptions) -> ModelOptions:
    """The options with an absolute path of the checkpoint, because workers run in other directories."""
    if options.checkpoint is None or not Path(options.checkpoint).exists():
        return options
    return dataclasses.replace(options, checkpoint=str(Path(options.checkpoint).absolute()))
