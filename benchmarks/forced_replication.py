"""Forced replication: part of a piece is pasted from a corpus. Which scores find it, at which false alarm rate?

The method follows MiRA's validation of its measures (5, 10, 15, 25 and 50 % of a track). A fifth of the tracks are held
out of the corpus. Pieces are excerpts of these, and in half of them a passage is replaced by a passage of a corpus
track
from another position. τ is set from excerpts of the corpus, as in `rootnote analysis replication`. A copy is found if
the piece is flagged with the right track. False alarms are flagged pieces without a copy.

    python benchmarks/forced_replication.py MUSIC_DIR [--checkpoint musicnn=FILE] [--pieces 40] [--mp3 64]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from analysis.retrieval.audio_files import PieceCutting
from analysis.retrieval.corpora import index_folder, open_corpora
from analysis.retrieval.generations import Generation
from analysis.retrieval.replication.run import Replication, ReplicationSettings, replicate
from analysis.retrieval.replication.scores import Parameters
from analysis.retrieval.robustness.codecs import through
from embeddings.audio.decode import Samples, Track, find_audio
from embeddings.progress import showing

SHARES = (0.0, 0.05, 0.10, 0.15, 0.25, 0.50)
SECONDS, RATE = 30.0, 44_100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", type=Path)
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--pieces", type=int, default=40, help="number of pieces for each share")
    parser.add_argument("--mp3", type=float, help="encode the pieces at this many kbit/s")
    parser.add_argument("--null", type=int, default=199)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracks = {path: samples(given.music / path) for path in find_audio(given.music)}
        tracks = {
            path: one for path, one in tracks.items() if len(one) > (SECONDS + 5) * RATE and np.abs(one).max() > 0
        }
        held = list(tracks)[::5]
        for path in tracks.keys() - set(held):
            (folder / "corpus" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(given.music / path, folder / "corpus" / path)
        names = ["melspec", "logmel", *(text.partition("=")[0] for text in given.checkpoint)]
        corpus, vectors = index_folder(folder / "corpus", names, folder / "index", given.checkpoint)
        opened = open_corpora(None, corpus, vectors, given.checkpoint)
        made = [
            make(folder / "pieces", share, number, tracks, held, rng, given.mp3)
            for share in SHARES
            for number in range(given.pieces * (3 if share == 0 else 1))
        ]
        result = replicate(
            [Generation(path.stem, path) for path, _ in made], opened.table, opened.subjects, PieceCutting(3.0, 0.25),
            ReplicationSettings(Parameters(), 0.01, given.null, given.seed), showing,
        )  # fmt: skip
        print(f"{opened.table.num_rows:,} clips of {len(tracks) - len(held)} tracks; pieces of {SECONDS:g} s")
        show(result, [source for _, source in made])


def samples(path: Path) -> Samples:
    with Track(path) as track:
        return np.concatenate(list(track.blocks(RATE)))


def make(
    folder: Path, share: float, number: int, tracks: dict[str, Samples], held: list[str], rng: np.random.Generator,
    mp3: float | None,
) -> tuple[Path, str]:  # fmt: skip
    """Write a piece; returns its path and the corpus track that it copies ("" for none)."""
    base = tracks[held[rng.integers(len(held))]]
    length = round(SECONDS * RATE)
    begin = rng.integers(0, len(base) - length + 1)
    piece = base[begin : begin + length].copy()
    source = ""
    if share:
        others = [path for path in tracks if path not in held]
        source = others[rng.integers(len(others))]
        copied = round(share * length)
        at, place = rng.integers(0, len(tracks[source]) - copied), rng.integers(0, length - copied)
        piece[place : place + copied] = tracks[source][at : at + copied]
    if mp3:
        piece = through("mp3", piece, RATE, mp3)
    path = folder / f"{share:.2f}-{number:03}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(piece, -1, 1), RATE)
    return path, source


def show(result: Replication, sources: list[str]) -> None:
    shares = np.array([float(one.id.split("-")[0]) for one in result.generations])
    paths = result.table["path"].to_pylist()
    copies = [f"{100 * share:g} %" for share in SHARES if share]
    print("| embedder | score | τ | false alarms | " + " | ".join(copies) + " |")
    print("|---|---|---|---|" + "---|" * len(copies))
    for (embedder, name), line in result.lines.items():
        right = np.array([paths[row] == source for row, source in zip(line.scored.row, sources, strict=True)])
        false = line.flagged[shares == 0].mean()
        found = [f"{100 * (line.flagged & right)[shares == share].mean():.0f} %" for share in SHARES if share]
        print(f"| {embedder} | {name} | {line.threshold:.3f} | {100 * false:.1f} % | " + " | ".join(found) + " |")


if __name__ == "__main__":
    main()
