"""Exact neighbours: Rootnote in both forms, faiss `IndexFlatIP`, and the plain float32 matrix product, in one run.

Usage: python benchmarks/neighbours.py [--rows 300000 1000000] [--k 10000 50] [--queries 1000] [--repeats 3]
Rows are clustered unit vectors of 512 dimensions in a memory-mapped file; faiss and the product get them in memory. The
product is the faster of torch's and numpy's. Contenders take turns. The output has medians and their ratio to the
product, and for Rootnote the increase of anonymous memory (RssAnon, without the page cache).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embeddings.search.scan_bounds import fastest_form
from embeddings.search.scan_cpu import scan
from embeddings.threads import cores

DIM, BLOCK = 512, 65_536
Vectors = npt.NDArray[np.float32]


def write_rows(path: Path, count: int) -> None:
    """Write clustered unit vectors with a common direction, which is typical of embeddings."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, DIM), dtype=np.float32)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIM))
    for begin in range(0, count, BLOCK):
        size = min(BLOCK, count - begin)
        noise = rng.standard_normal((size, DIM), dtype=np.float32)
        block = centres[rng.integers(0, 2000, size)] + np.float32(1.5) * noise + np.float32(0.5)
        rows[begin : begin + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()


def product_of(multiply: Callable[[Any, Any], Any], rows: Any, queries: Any) -> None:
    for begin in range(0, len(rows), BLOCK):
        multiply(queries, rows[begin : begin + BLOCK].T)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def anonymous_mb() -> float:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")) / 1024


def peak_of(work: Callable[[], Any]) -> float:
    """The peak increase of memory in MB while `work` runs."""
    before, peak, done = anonymous_mb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(0.0, peak - before)


def compare(path: Path, count: int, queries: int, ks: list[int], repeats: int) -> None:
    write_rows(path, count)
    mapped = np.load(path, mmap_mode="r")
    asked = np.array(mapped[np.random.default_rng(1).choice(count, queries, replace=False)])
    whole = np.array(mapped)
    tensors = torch.from_numpy(whole), torch.from_numpy(asked)
    index = faiss.IndexFlatIP(DIM)
    index.add(whole)
    scan(mapped[:BLOCK], asked, 10)
    works: dict[str, Callable[[], Any]] = {
        "product, torch": lambda: product_of(torch.matmul, *tensors),
        "product, numpy": lambda: product_of(np.matmul, whole, asked),
    }
    for k in ks:
        works[f"Rootnote bf16, k={k}"] = lambda k=k: scan(mapped, asked, k, "bf16")
        works[f"Rootnote fp32, k={k}"] = lambda k=k: scan(mapped, asked, k, "fp32")
        works[f"faiss, k={k}"] = lambda k=k: index.search(asked, k)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(timed(work))
    medians = {name: statistics.median(found) for name, found in times.items()}
    product = min(medians["product, torch"], medians["product, numpy"])
    for name, seconds in medians.items():
        memory = f"{peak_of(works[name]):,.0f}" if name.startswith("Rootnote") else ""
        print(f"| {count:,} | {name} | {seconds:.2f} | {seconds / product:.2f} | {memory} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--k", type=int, nargs="+", default=[10_000, 50])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder for the rows; default: a temporary folder")
    options = parser.parse_args()
    print(f"{cores()} cores, torch {torch.__version__}, faiss {faiss.__version__}; chosen form: {fastest_form()}")
    print("| rows | what | s | of the product | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in options.rows:
            compare(Path(folder) / "rows.npy", count, options.queries, options.k, options.repeats)


if __name__ == "__main__":
    main()
