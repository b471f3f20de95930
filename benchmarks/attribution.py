"""Attribution at full size: Tables 2 and 3 of many generations against a large corpus of synthetic vectors.

The baseline is the plain float32 product of all generations with all rows, in blocks, in numpy, in the same run. Times
are wall-clock and CPU times (all threads): on a shared machine, compare the CPU times.

    python benchmarks/attribution.py [--clips 1000000] [--generations 10000] [--dim 512] [--rounds 3]

Every block costs the same: `--product-clips 1000000` multiplies only that many rows and scales the time up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from analysis.retrieval.attribution.tables import Attributed, best_of, influence, table2, table3
from embeddings.search.exact import nearest

BLOCK = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--product-clips", type=int, default=0, help="0: all of them")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        centres = unit(rng.standard_normal((200, given.dim)).astype(np.float32))
        path = Path(folder) / "vectors.npy"
        write(path, given.clips, centres, rng)
        vectors = np.load(path, mmap_mode="r")
        queries = near(centres, given.generations, rng)
        tracks = np.arange(given.clips) // 60
        nearest(vectors[:BLOCK], queries[:100], 10)  # so that numba compiles before the measurement
        own, product = [], []
        some = given.product_clips or given.clips
        with Memory() as memory:
            for _ in range(given.rounds):
                own.append(timed(lambda: attribute(vectors, queries, tracks)))
                memory.stop()
                product.append(timed(lambda: multiply(vectors[:some], queries)))
    print(f"{given.generations:,} generations, {given.clips:,} clips, {given.dim} dimensions")
    for index, clock in enumerate(("wall clock", "CPU")):
        tables, alone = (statistics.median(one[index] for one in times) for times in (own, product))
        alone *= given.clips / some
        print(f"Tables 2 and 3: {tables:.1f} s {clock}; the product alone: {alone:.1f} s; {tables / alone:.2f} x")
    print(f"memory of the whole process, without pages of the mapped file: {memory.most / 2**20:.0f} MiB")


def attribute(vectors: np.ndarray, queries: np.ndarray, tracks: np.ndarray) -> None:
    found = nearest(vectors, queries, 10)
    count = len(queries)
    rows, scores, clips = best_of(np.arange(count), found, count, 10)
    attributed = Attributed("synthetic", rows, scores, clips, scores[:, 9])
    table2(attributed)
    table3(attributed, [0.875, 0.895, 0.915, 0.935, 0.955])
    influence(attributed, tracks)


def multiply(vectors: np.ndarray, queries: np.ndarray) -> None:
    for begin in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[begin : begin + BLOCK])
        for first in range(0, len(queries), 1000):
            queries[first : first + 1000] @ block.T


def write(path: Path, count: int, centres: np.ndarray, rng: np.random.Generator) -> None:
    file = np.lib.format.open_memmap(path, "w+", np.float32, (count, centres.shape[1]))
    for begin in range(0, count, BLOCK):
        end = min(count, begin + BLOCK)
        file[begin:end] = near(centres, end - begin, rng)
    file.flush()


def near(centres: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((count, centres.shape[1]), np.float32) / np.sqrt(centres.shape[1], dtype=np.float32)
    return unit(centres[rng.integers(0, len(centres), count)] + 0.8 * noise)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    begin, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - used


class Memory:
    """The peak anonymous memory (RssAnon) of this process in bytes, sampled ten times per second until `stop`."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.most = max(self.most, 1024 * kib)

    def stop(self) -> None:
        self._over.set()

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()


if __name__ == "__main__":
    main()
