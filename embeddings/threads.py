"""Threads: the number of cores, results in order, and linear algebra on one thread."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Yield `work(item)` for each item in order; at most `2 * threads` results are started or held at a time.

    Args:
        initializer: called once in each thread.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within the context, torch computes on the calling thread alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the context, torch and numpy's BLAS compute on the calling thread alone."""
    from threadpoolctl import threadpool_limits

    with one_torch_thread(), threadpool_limits(1, user_api="blas"):
        yield
