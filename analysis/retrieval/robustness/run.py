"""Robustness: does an embedder still find a clip after it was perturbed (Section 5.1 and Figure 1 of the paper)?

Targets are drawn from the corpus. Each is changed by every perturbation at every level, embedded like the corpus, and
compared with all clips; `analysis.retrieval.ranking` defines ranks and hits.
Processes perturb, and embed where the embedder runs on numpy alone; networks run in this process meanwhile
(analysis.retrieval.robustness.workers). A **cell** is one perturbation at one level; each is kept as soon as it is
done, so an interrupted run continues where it stopped. The same seed gives the same targets, changes and ranks.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from analysis.retrieval.generations import Generation
from analysis.retrieval.ranking import KS, Found, hit_rate, ranks, sharing
from analysis.retrieval.robustness.perturbations import Partner, Perturbation, Samples
from analysis.retrieval.robustness.workers import AT_ONCE, Chunk, Task, embed, in_order, perturbed, processes
from analysis.retrieval.targets import RATE, Pool, pools
from embeddings.audio.corpus import audio_dir_of, require_audio
from embeddings.models.base import Embedder, Projection, Vectors
from embeddings.provenance import Provenance, digest, replacing
from embeddings.threads import cores

Progress = Callable[[int, int], None]

VERSION = 2
_AHEAD = 8  # tasks queued per process, so that none waits while this process embeds


@dataclass(frozen=True)
class EmbeddedCorpus:
    """An embedder and its vectors of the corpus: float32 or float16 `[clips, dim]` unit rows."""

    embedder: Embedder
    projection: Projection | None
    vectors: npt.NDArray[Any]
    provenance: Provenance

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def light(self) -> bool:
        """Whether it runs on numpy alone, and so in any process."""
        return self.embedder.light


@dataclass(frozen=True)
class RobustnessPlan:
    """What a run does; a digest of the settings names the folder of its intermediate files."""

    table: pa.Table
    corpus: Provenance
    subjects: Sequence[EmbeddedCorpus]
    perturbations: Sequence[Perturbation]
    targets: int = 500
    seed: int = 0
    outside: Path | None = None
    generations: Sequence[Generation] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON-able data."""
        return {
            "version": VERSION,
            "corpus": self.corpus.fingerprint,
            "vectors": {one.name: one.provenance.fingerprint for one in self.subjects},
            "perturbations": {one.name: list(one.levels) for one in self.perturbations},
            "targets": self.targets,
            "seed": self.seed,
            "outside": None if self.outside is None else str(self.outside.resolve()),
            "generations": [one.id for one in self.generations],
        }


@dataclass(frozen=True)
class RobustnessResult:
    """Ranks by target, and what was skipped.

    `ranks` has the columns embedder, perturbation, level, target (row of the corpus), similarity, rank, track_rank;
    `seconds` and `hop_seconds` say how the corpus is cut.
    """

    ranks: pd.DataFrame
    clips: int
    tracks: int
    seed: int
    left_out: Mapping[str, str]
    seconds: float = 3.0
    hop_seconds: float = 3.0

    @property
    def overlaps(self) -> bool:
        """Whether clips of the corpus overlap, so that several may count as a target."""
        return self.hop_seconds < self.seconds


def run(
    plan: RobustnessPlan,
    folder: Path,
    *,
    save: int = 0,
    by: Mapping[str, npt.NDArray[Any]] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RobustnessResult:
    """Compute every cell of the plan; intermediate files are kept in `folder` until all are done.

    Args:
        by: columns to add to the ranks (such as the genre of each target): by name, a value for every clip.
        save: write this many targets of every cell as FLAC files under `folder`/examples.

    Raises:
        RootnoteError: if audio is missing or changed, or a process dies; finished cells are kept.
    """
    audio = audio_dir_of(plan.table)
    require_audio(plan.table, audio)
    parts = folder / f"robustness.{digest(plan.settings)[:8]}.part"
    made = pools(
        [one.partner for one in plan.perturbations], plan.table, audio, plan.targets, plan.seed, parts,
        outside=plan.outside, generations=plan.generations,
    )  # fmt: skip
    usable = [one for one in plan.perturbations if one.partner in made]
    cells = [(one, level) for one in usable for level in one.levels]
    tracks = plan.table["track"].to_numpy()
    _fill(cells, made, plan, parts, tracks, workers or cores(), progress)
    frame = pd.concat([_read(_file(parts, one, level), one, level) for one, level in cells], ignore_index=True)
    if save:
        save_examples(usable, made, plan.seed, folder / "examples", save)
    for name, values in (by or {}).items():
        frame[name] = values[frame["target"].to_numpy()]
    result = RobustnessResult(
        frame, len(tracks), len(np.unique(tracks)), plan.seed, _left_out(plan.perturbations, made),
        float(plan.corpus.settings["clip_seconds"]), float(plan.corpus.settings["hop_seconds"]),
    )  # fmt: skip
    shutil.rmtree(parts)
    return result


def summarise(result: RobustnessResult, by: str | None = None) -> pd.DataFrame:
    """One row a cell: targets, hit rates at 1, 5 and 10 of clip and track with Wilson's intervals, ranks, similarity.

    Columns: embedder, perturbation, level, `by`, targets, then `hit<k>`, `hit<k>_low`, `hit<k>_high`,
    `track_hit<k>`, … (shares), mean_rank, median_rank, mean_track_rank, mean_similarity.

    Args:
        by: another column of `result.ranks` (such as the targets' genre): one row for each of its values.
    """
    keys = ["embedder", "perturbation", "level", *([by] if by else [])]
    rows = []
    for values, cell in result.ranks.groupby(keys, sort=False):
        row: dict[str, Any] = {**dict(zip(keys, values, strict=True)), "targets": len(cell)}
        for prefix, column in (("hit", "rank"), ("track_hit", "track_rank")):
            for k in KS:
                rate = hit_rate(cell[column].to_numpy(), k)
                row |= {f"{prefix}{k}": rate.rate, f"{prefix}{k}_low": rate.low, f"{prefix}{k}_high": rate.high}
        row["mean_rank"] = cell["rank"].mean()
        row["median_rank"] = cell["rank"].median()
        row["mean_track_rank"] = cell["track_rank"].mean()
        row["mean_similarity"] = cell["similarity"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def save_examples(
    perturbations: Sequence[Perturbation], made: Mapping[Partner | None, Pool], seed: int, folder: Path, count: int
) -> None:
    """Write `count` targets of every cell as FLAC, with the unchanged targets."""
    import soundfile

    def write(path: Path, samples: Samples) -> None:
        # Samples beyond full scale would be clipped in the file, so such an example is made quieter.
        peak = max(1.0, float(np.abs(samples).max()))
        with replacing(path) as temporary:
            soundfile.write(temporary, samples / peak, RATE, format="FLAC")

    for one in perturbations:
        pool = made[one.partner]
        clips, others = pool.opened()
        for index in range(min(count, len(pool.rows))):
            here = folder / one.name / f"clip-{pool.rows[index]}"
            write(here / "target.flac", pool.material(index, clips, others).clip)
            for level in one.levels:
                write(here / f"{level:g}.flac", perturbed(one, level, pool, [index], seed)[0])


def _fill(
    cells: Sequence[tuple[Perturbation, float]],
    made: Mapping[Partner | None, Pool],
    plan: RobustnessPlan,
    parts: Path,
    tracks: npt.NDArray[np.int64],
    workers: int,
    progress: Progress | None,
) -> None:
    todo = [cell for cell in cells if not _file(parts, *cell).exists()]
    inside = tuple((one.embedder, one.projection) for one in plan.subjects if one.light)
    rates = sorted({one.embedder.sample_rate for one in plan.subjects if not one.light})
    tasks = [
        Task(one.name, level, made[one.partner], begin, plan.seed, rates)
        for one, level in todo
        for begin in range(0, len(made[one.partner].rows), AT_ONCE)
    ]
    done = len(cells) - len(todo)
    if progress:
        progress(done, len(cells))
    with processes(min(workers, max(1, len(tasks))), inside) as pool:
        results = in_order(pool, tasks, _AHEAD * workers)
        for one, level in todo:
            rows = made[one.partner].rows
            chunks = list(itertools.islice(results, -(-len(rows) // AT_ONCE)))
            found = {}
            for subject in plan.subjects:
                queries = _vectors(subject, chunks)
                found[subject.name] = ranks(subject.vectors, tracks, queries, rows, sharing(plan.table, rows))
            _write(_file(parts, one, level), rows, found)
            done += 1
            if progress:
                progress(done, len(cells))


def _vectors(subject: EmbeddedCorpus, chunks: Sequence[Chunk]) -> Vectors:
    """Unit vectors of a cell's clips: from the worker processes, or by a network in this process."""
    if subject.light:
        return np.concatenate([chunk.vectors[subject.name] for chunk in chunks])
    clips = [clip for chunk in chunks for clip in chunk.clips[subject.embedder.sample_rate]]
    return embed(subject.embedder, subject.projection, clips)


def _file(parts: Path, perturbation: Perturbation, level: float) -> Path:
    return parts / f"{perturbation.name}_{level:g}.json"


def _write(path: Path, rows: npt.NDArray[np.int64], found: Mapping[str, Found]) -> None:
    content = {
        name: {
            "similarity": [float(value) for value in one.similarity],
            "rank": one.rank.tolist(),
            "track_rank": one.track_rank.tolist(),
        }
        for name, one in found.items()
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"target": rows.tolist(), "found": content}))


def _read(path: Path, perturbation: Perturbation, level: float) -> pd.DataFrame:
    content = json.loads(path.read_text())
    cell = {"perturbation": perturbation.name, "level": level}
    frames = [
        pd.DataFrame({**cell, "embedder": name, "target": content["target"], **one})
        for name, one in content["found"].items()
    ]
    return pd.concat(frames, ignore_index=True)


def _left_out(perturbations: Sequence[Perturbation], made: Mapping[Partner | None, Pool]) -> dict[str, str]:
    why = {
        "corpus": "all targets are from one track",
        "outside": "no folder of other music was given (--outside)",
        "generation": "no generations with prompts were given (--generations)",
    }
    return {one.name: why[one.partner] for one in perturbations if one.partner and one.partner not in made}
