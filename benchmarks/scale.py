"""The overhead of Ray and Milvus on one machine: start-up and speed of Ray, insertion and search of Milvus.

Usage: python benchmarks/scale.py [--tracks 96] [--rows 50000] [--dim 512] [--only ray|milvus]
Ray: logmel over synthetic tracks of 200 s, on this machine alone, compared with `embed_corpus`; the two files must be
equal. Milvus: the embedded store in a temporary folder, compared with `nearest` on the file; the results must be equal.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embeddings import embed
from embeddings.audio.corpus import cut
from embeddings.distributed.embed import embed_on_cluster
from embeddings.distributed.ray_connection import connected
from embeddings.embed import embed_corpus
from embeddings.models.base import ModelOptions
from embeddings.models.registry import load_embedder
from embeddings.provenance import Provenance
from embeddings.search.exact import nearest
from embeddings.search.milvus import nearest_in, put_vectors
from embeddings.threads import cores

Line = tuple[str, str]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def ray_lines(folder: Path, tracks: int) -> list[Line]:
    """Start-up time, and clips/s without Ray and with a cluster on the same machine."""
    rng = np.random.default_rng(0)
    (folder / "music").mkdir()
    for track in range(tracks):
        noise = 0.1 * rng.standard_normal(200 * 22_050).cumsum() / 50
        soundfile.write(folder / "music" / f"{track:04}.flac", np.sin(noise).astype(np.float32), 22_050)
    corpus = cut(folder / "music")
    clips = corpus.table.num_rows
    embed.FIT_CLIPS = 256  # the fit is not measured
    arguments = corpus.table, corpus.provenance, folder / "music"
    one, many = folder / "one" / "v.npy", folder / "many" / "v.npy"
    alone, _ = timed(lambda: embed_corpus(*arguments, load_embedder("logmel"), one))
    lines = [("`embed_corpus`, logmel, one process", f"{clips:,} clips in {alone:.1f} s: {clips / alone:.0f} clips/s")]
    begun = time.perf_counter()
    with connected("local"):
        lines.append(("Ray's start (`--cluster local`)", f"{time.perf_counter() - begun:.1f} s"))
        seen: list[tuple[float, int]] = []

        def note(done: int, total: int) -> None:
            if total == clips:
                seen.append((time.perf_counter(), done))

        def on_cluster(rows: int) -> None:
            embed_on_cluster(
                *arguments,
                "logmel",
                ModelOptions(),
                many,
                address="local",
                shard_rows=rows,
                cores_per_worker=1,
                progress=note,
            )

        for what, rows in (("first", 256), ("second", 64)):
            seen.clear()
            many.unlink(missing_ok=True)
            seconds, _ = timed(lambda rows=rows: on_cluster(rows))  # type: ignore[misc]
            steady = (seen[-1][1] - seen[1][1]) / max(1e-9, seen[-1][0] - seen[1][0])
            lines.append(
                (
                    f"{what} `embed_on_cluster`, {cores()} workers of one core, {-(-clips // rows)} shards of {rows}",
                    f"{seconds:.1f} s in total; {seen[1][0] - seen[0][0]:.1f} s to the first shard, "
                    f"then {steady:.0f} clips/s, {steady / rows:.1f} shards/s",
                )
            )
            if many.read_bytes() != one.read_bytes():
                raise SystemExit("the files differ")
    return lines


def clustered(rows: int, dim: int) -> npt.NDArray[np.float32]:
    """Unit rows around 200 centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, dim)).astype(np.float32)
    vectors = centres[rng.integers(0, 200, rows)] + 0.7 * rng.standard_normal((rows, dim), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def milvus_lines(folder: Path, rows: int, dim: int) -> list[Line]:
    """Insertion and search in the embedded store, compared with the file."""
    np.save(folder / "v.npy", clustered(rows, dim))
    vectors = np.load(folder / "v.npy", mmap_mode="r")
    store = f"milvus:{folder}/vectors.db"
    provenance = Provenance("vectors", {"embedder": "benchmark"}, {})
    put, _ = timed(lambda: put_vectors(store, vectors, provenance))
    lines = [(f"Milvus (embedded), {rows:,} × {dim} copied", f"{put:.1f} s: {rows / put:,.0f} rows/s")]
    nearest(vectors, vectors[:1], 10)  # so that numba compiles before the measurement
    for count, k in ((1, 10), (1, 1000), (1, 10_000), (100, 10)):
        queries = np.array(vectors[:: max(1, rows // count)][:count])
        stored, found = timed(lambda q=queries, k=k: nearest_in(store, provenance, vectors, q, k))  # type: ignore[misc]
        read, expected = timed(lambda q=queries, k=k: nearest(vectors, q, k))  # type: ignore[misc]
        same = (found.rows == expected.rows).all() and found.scores.tobytes() == expected.scores.tobytes()
        lines.append(
            (
                f"{count} quer{'y' if count == 1 else 'ies'}, k = {k:,}: opened, searched and scored again",
                f"{stored:.2f} s; from the file {read:.2f} s; {'the same' if same else 'NOT the same'} result",
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=96)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--only", choices=["ray", "milvus"])
    given = parser.parse_args()
    lines: list[Line] = []
    for name, work in (
        ("ray", lambda folder: ray_lines(folder, given.tracks)),
        ("milvus", lambda folder: milvus_lines(folder, given.rows, given.dim)),
    ):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                lines += work(Path(folder))
    print(f"{cores()} of {os.cpu_count()} cores\n\n| what | figure |\n|---|---|")
    print("\n".join(f"| {what} | {figure} |" for what, figure in lines))


if __name__ == "__main__":
    main()
