"""Worker processes that perturb clips, and embed them if an embedder needs only numpy.

Vectors are a thousand times smaller than their clips, so clips embedded in a worker need not be sent back.
Conventions: targets are perturbed `AT_ONCE` at a time, always the same ones together; clips are float32.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue

import numpy as np
import soxr

from analysis.retrieval.robustness.perturbations import Perturbation, Samples, rng_for
from analysis.retrieval.robustness.registry import PERTURBATIONS
from analysis.retrieval.targets import RATE, Pool
from embeddings.errors import RootnoteError
from embeddings.models.base import Embedder, Projection, Vectors, embed_clips

AT_ONCE = 16  # targets per task
Fitted = tuple[Embedder, Projection | None]
_inside: tuple[Fitted, ...] = ()  # in a worker process: the embedders that run in it


def _begin(waiting: Queue[tuple[Fitted, ...]]) -> None:
    global _inside
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _inside = waiting.get()


def _end_with_the_parent() -> None:
    """End this process when its parent is killed; it would otherwise wait for the next task forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass(frozen=True)
class Chunk:
    """The result of a task: the changed clips by sample rate, and their unit vectors by embedder."""

    clips: Mapping[int, list[Samples]]
    vectors: Mapping[str, Vectors]


def perturbed(perturbation: Perturbation, level: float, pool: Pool, indices: Iterable[int], seed: int) -> list[Samples]:
    """The changed clips of these targets, at `RATE`."""
    clips, others = pool.opened()
    return [
        perturbation.apply(
            pool.material(index, clips, others), level, rng_for(seed, perturbation.name, level, int(pool.rows[index]))
        )
        for index in indices
    ]


@dataclass(frozen=True)
class Task:
    """A few targets of one cell, to be perturbed in a worker process and returned at these sample rates."""

    name: str
    level: float
    pool: Pool
    begin: int
    seed: int
    rates: Sequence[int]

    def __call__(self) -> Chunk:
        indices = range(self.begin, min(self.begin + AT_ONCE, len(self.pool.rows)))
        changed = perturbed(PERTURBATIONS[self.name], self.level, self.pool, indices, self.seed)
        wanted = {*self.rates, *(embedder.sample_rate for embedder, _ in _inside)}
        clips = {rate: [_resampled(clip, rate) for clip in changed] for rate in wanted}
        vectors = {one.name: embed(one, fitted, clips[one.sample_rate]) for one, fitted in _inside}
        return Chunk({rate: clips[rate] for rate in self.rates}, vectors)


def _do(task: Task) -> Chunk:
    return task()


@contextmanager
def processes(count: int, inside: Sequence[Fitted] = ()) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, each with one thread for linear algebra.

    Args:
        inside: the embedders that run in them.

    Raises:
        RootnoteError: if one of them dies.
    """
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    context = multiprocessing.get_context("spawn")
    # Through a queue: a process reads its start-up arguments only after all its imports, and until then no other
    # process is started.
    waiting: Queue[tuple[Fitted, ...]] = context.Queue()
    waiting.cancel_join_thread()
    for _ in range(count):
        waiting.put(tuple(inside))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(waiting,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RootnoteError("a worker process died; run the same command again to continue.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        waiting.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_order(pool: ProcessPoolExecutor, tasks: Iterable[Task], ahead: int) -> Iterator[Chunk]:
    """The results in the order of the tasks, with at most `ahead` tasks running or waiting."""
    waiting: deque[Future[Chunk]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_do, task))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def embed(embedder: Embedder, projection: Projection | None, clips: Sequence[Samples]) -> Vectors:
    """Unit vectors `[clips, dim]` of clips of one length (rounding may make some one sample shorter)."""
    length = max(len(clip) for clip in clips)
    batch = np.stack([np.pad(clip, (0, length - len(clip))) for clip in clips])
    size = embedder.batch_size
    parts = [batch[begin : begin + size] for begin in range(0, len(batch), size)]
    return np.concatenate([embed_clips(embedder, projection, part) for part in parts])


def _resampled(clip: Samples, rate: int) -> Samples:
    return clip if rate == RATE else soxr.resample(clip, RATE, rate)
