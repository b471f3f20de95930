"""The cost of a corpus ten and a hundred times as large: time and memory of cutting, embedding and searching.

Usage: python benchmarks/growth.py [--hours 1 10 100] [--queries 200]
One track of six minutes is synthesised at 8 kHz and hard-linked ten times per hour of music, so that the pipeline
decodes and embeds every copy. The embedder is trivial (energies of 512 segments), so that everything except the network
is measured. Each size runs in its own process; memory is its peak (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embeddings.audio.corpus import CutSettings, cut, read_corpus, write_corpus
from embeddings.embed import embed_corpus
from embeddings.models.base import Vectors
from embeddings.search.exact import nearest

RATE = 8000
STAGES = ("cut", "embed", "nearest")


class Energies:
    """An embedder with almost no cost."""

    name, dim, sample_rate, fits, light, batch_size = "energies", 512, RATE, False, True, 64

    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    def runtime(self) -> dict[str, str]:
        return {}

    def embed(self, batch: Vectors) -> Vectors:
        parts = batch[:, : batch.shape[1] // self.dim * self.dim].reshape(len(batch), self.dim, -1)
        return np.asarray(np.sqrt((parts**2).mean(axis=2)) + 1e-3, np.float32)

    def fit(self, features: Vectors) -> None:
        """Nothing is fitted."""


def write_track(path: Path) -> None:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(6):
            loudness = np.repeat(rng.uniform(0.01, 0.3, 600), RATE // 10)
            file.write(loudness * rng.standard_normal(len(loudness)))


def run_stage(stage: str, folder: Path, queries: int) -> dict[str, float]:
    """Seconds and peak memory of this process."""
    music, table, out = folder / "music", folder / "corpus.parquet", folder / "energies.npy"
    began = time.perf_counter()
    if stage == "cut":
        write_corpus(table, cut(music, CutSettings(3.0, 3.0, -90.0)))
    elif stage == "embed":
        embed_corpus(*read_corpus(table), music, Energies(), out)
    else:
        vectors = np.load(out, mmap_mode="r")
        asked = np.array(vectors[np.random.default_rng(0).choice(1200, queries, replace=False)])
        nearest(vectors[:1200], asked, 50)
        began = time.perf_counter()  # after compilation
        nearest(vectors, asked, 50)
    seconds = time.perf_counter() - began
    text = Path("/proc/self/status").read_text()
    memory = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024
    return {"seconds": seconds, "mb": memory}


def measure(hours: int, track: Path, folder: Path, queries: int) -> None:
    (folder / "music").mkdir(parents=True)
    for number in range(10 * hours):
        os.link(track, folder / "music" / f"{number:05}.flac")
    command = [sys.executable, __file__, "--queries", str(queries), "--folder", str(folder), "--stage"]
    found = {}
    for stage in STAGES:
        ran = subprocess.run([*command, stage], check=True, capture_output=True, text=True)
        found[stage] = json.loads(ran.stdout)
    clips = len(np.load(folder / "energies.npy", mmap_mode="r"))
    cells = " | ".join(f"{one['seconds']:.2f} s, {one['mb']:,.0f} MB" for one in found.values())
    print(f"| {hours} | {clips:,} | {cells} | {clips / found['embed']['seconds']:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(run_stage(options.stage, options.folder, options.queries)))
        return
    print("| hours | clips | cut | embed | 50 nearest | clips/s embedded |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        track = Path(folder) / "track.flac"
        write_track(track)
        for hours in options.hours:
            measure(hours, track, Path(folder) / str(hours), options.queries)


if __name__ == "__main__":
    main()
