"""The workers that a Ray cluster has room for: their resources, and the results of their shards."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embeddings.distributed.ray_connection import first_line
from embeddings.distributed.shards import Shard
from embeddings.distributed.workers import EmbeddingWorker, Job, Model, ShardOutcome
from embeddings.errors import ResourceError, RootnoteError
from embeddings.models.base import Embedder

AGAIN = "fix this and run the same command again; finished work is kept"
_CORES = 8  # the most cores in a group
_FREE_SECONDS = 600
_COLUMNS = ["track", "path", "start_s", "duration_s"]


@dataclass(frozen=True)
class RayWorkers:
    """How many workers the cluster has room for, and the resources of each."""

    count: int
    cores: int
    gpus: int

    @classmethod
    def of(cls, ray: Any, backend: str, cores: int | None) -> RayWorkers:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        if backend == "cuda" and not with_gpus:
            raise ResourceError("--backend cuda: no node of the cluster has a GPU; use --backend auto.")
        if with_gpus and backend in ("auto", "cuda"):
            share = min(int(node.get("CPU", 0)) // int(node["GPU"]) for node in with_gpus)
            return cls(sum(int(node["GPU"]) for node in with_gpus), max(1, share), 1)
        processors = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        if not processors:
            raise ResourceError("no node of the cluster offers a processor core; add nodes to it.")
        group = cores or min(_CORES, min(processors))
        return cls(max(1, sum(count // group for count in processors)), group, 0)

    def describe(self, ray: Any, load: Callable[[], Embedder]) -> Model:
        """Ask a worker for its model: the driver's machine may run it differently, or not at all."""
        task = ray.remote(num_cpus=self.cores, num_gpus=self.gpus)(_describe).remote(load)
        try:
            model = ray.get(task, timeout=_FREE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(task)
            raise ResourceError(
                f"the cluster had no {self.cores} cores and {self.gpus} GPUs free for {_FREE_SECONDS // 60} minutes; "
                "wait for other work, or add nodes."
            ) from None
        except ray.exceptions.RayError as error:
            raise ResourceError(f"a worker could not load the model: {first_line(error)}.") from error
        if isinstance(model, str):
            raise ResourceError(model)
        return Model(**model)

    def embed(self, ray: Any, job: Job, table: pa.Table, shards: list[Shard]) -> Generator[ShardOutcome]:
        """Yield the outcome of each shard as it finishes."""
        items = [{"begin": one.begin, "end": one.end, "clips": _clips(table, one)} for one in shards]
        rows = self._rows_from_outside(ray, job, items) if _is_outside(ray) else self.rows(ray, job, items)
        try:
            for row in rows:
                yield ShardOutcome(Shard(row["begin"], row["end"]), row["kind"], row["reason"])
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise ResourceError(f"the cluster failed ({first_line(error)}); {AGAIN}.") from error

    def rows(self, ray: Any, job: Job, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield what workers return for items, as they finish; the caller must run inside the cluster."""
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=min(self.count, len(items)), max_tasks_in_flight_per_actor=2
        )
        done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            EmbeddingWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            compute=pool,
            num_cpus=self.cores,
            num_gpus=self.gpus,
        )
        rows: Iterator[dict[str, Any]] = iter(done.iter_rows())
        return rows

    def _rows_from_outside(self, ray: Any, job: Job, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        within = ray.remote(num_cpus=0)(_Within).remote(self, job, items)
        try:
            while (row := ray.get(within.next_row.remote())) is not None:
                yield row
        finally:
            ray.kill(within)


class _Within:
    """Makes the rows inside the cluster, because Ray's data sets do not work through its client, `ray://`."""

    def __init__(self, workers: RayWorkers, job: Job, items: list[dict[str, Any]]) -> None:
        import ray
        import ray.data

        self._rows = workers.rows(ray, job, items)

    def next_row(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def _is_outside(ray: Any) -> bool:
    """Whether this process is connected to the cluster through Ray's client."""
    return bool(ray.util.client.ray.is_connected())


def _describe(load: Callable[[], Embedder]) -> dict[str, Any] | str:
    try:
        return dataclasses.asdict(Model.of(load()))
    except RootnoteError as error:
        return f"on node {socket.gethostname()}: {error}"


def _clips(table: pa.Table, shard: Shard) -> bytes:
    """The columns of the table's rows that `embed_rows` needs, in compact form: paths are stored once."""
    part = table.select(_COLUMNS).slice(shard.begin, shard.end - shard.begin).replace_schema_metadata(None)
    part = part.set_column(1, "path", part["path"].combine_chunks().dictionary_encode())
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, part.schema, options=options) as writer:
        writer.write_table(part)
    content: bytes = sink.getvalue().to_pybytes()
    return content
