"""Perturbing in processes of their own, which also embed where an embedder needs nothing but numpy.

Vectors are a thousandth of the clips they are of, so what a process embeds by itself need not be handed over.
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

from analysis.retrieval.robustness.perturbations import PERTURBATIONS, Perturbation, Samples, rng_for
from analysis.retrieval.targets import RATE, Pool
from embeddings.errors import RootnoteError
from embeddings.models.base import Embedder, Projection, Vectors, embed_clips

AT_ONCE = 16  # targets that a process perturbs at a time
Fitted = tuple[Embedder, Projection | None]
_inside: tuple[Fitted, ...] = ()  # of a process: the embedders that run in it


def _begin(waiting: Queue[tuple[Fitted, ...]]) -> None:
    global _inside
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _inside = waiting.get()


def _end_with_the_parent() -> None:
    """Where the parent is killed nobody tells this process to end: it would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass(frozen=True)
class Chunk:
    """What came of a task: the changed clips by sample rate, and their unit vectors by embedder."""

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
    """A few targets of one cell, to be perturbed by another process and handed back at these rates."""

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
    """Fresh processes, each with one thread for linear algebra: they share the cores among themselves.

    Args:
        inside: the embedders that run in them.

    Raises:
        RootnoteError: where one of them dies.
    """
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    context = multiprocessing.get_context("spawn")
    # By a queue: what a process is given to begin with goes through a pipe that it reads only when it has imported
    # everything, and until then none is started after it.
    waiting: Queue[tuple[Fitted, ...]] = context.Queue()
    waiting.cancel_join_thread()
    for _ in range(count):
        waiting.put(tuple(inside))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(waiting,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RootnoteError("a process that perturbs clips died; run the same command again to go on.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        waiting.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_order(pool: ProcessPoolExecutor, tasks: Iterable[Task], ahead: int) -> Iterator[Chunk]:
    """The results in the order of the tasks, at most `ahead` of them at work or waiting."""
    waiting: deque[Future[Chunk]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_do, task))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def embed(embedder: Embedder, projection: Projection | None, clips: Sequence[Samples]) -> Vectors:
    """Unit vectors of clips of one length (the last sample may be missing where rounding left it out)."""
    length = max(len(clip) for clip in clips)
    batch = np.stack([np.pad(clip, (0, length - len(clip))) for clip in clips])
    size = embedder.batch_size
    parts = [batch[begin : begin + size] for begin in range(0, len(batch), size)]
    return np.concatenate([embed_clips(embedder, projection, part) for part in parts])


def _resampled(clip: Samples, rate: int) -> Samples:
    return clip if rate == RATE else soxr.resample(clip, RATE, rate)
