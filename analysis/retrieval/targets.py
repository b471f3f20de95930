"""Targets: the clips that a robustness run perturbs, decoded once and stored with the run.

Each target is a row of the corpus; its stored audio ends `AHEAD_SECONDS` after the clip. Its partner, which it may be
mixed with, is another target from another track ("corpus"), a clip of other music ("outside"), or a generation whose
prompt is the target ("generation"; then the prompts are the targets).
Conventions: samples are float32 at `RATE`, one row per target; files are .npy, so that processes can share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.retrieval.generations import Generation
from analysis.retrieval.robustness.perturbations import AHEAD_SECONDS, Partner, PerturbationInput
from embeddings.audio.corpus import CutSettings, cut, tracks_of
from embeddings.audio.decode import Samples, read_clips
from embeddings.errors import RootnoteError
from embeddings.provenance import replacing

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

RATE = 44_100


@dataclass(frozen=True)
class Pool:
    """Targets of one kind, on disk: `rows` `[n]` of the corpus, and the files of the clips and their partners."""

    rows: Rows
    clips: Path
    seconds: float
    others: Path | None = None

    def material(self, index: int, clips: Samples, others: Samples | None) -> PerturbationInput:
        """The input of a perturbation of target `index`."""
        length = round(self.seconds * RATE)
        ahead = np.asarray(clips[index])
        other = None if others is None else np.asarray(others[index][:length])
        return PerturbationInput(ahead[:length], ahead, RATE, other)

    def opened(self) -> tuple[Samples, Samples | None]:
        """Clips and partners, memory-mapped."""
        others = None if self.others is None else np.load(self.others, mmap_mode="r")
        return np.load(self.clips, mmap_mode="r"), others


def choose(table: pa.Table, count: int, seed: int) -> Rows:
    """Rows drawn at random from those whose recording continues long enough after the clip.

    Raises:
        RootnoteError: if no clip is followed by enough audio.
    """
    track, start = table["track"].to_numpy(), table["start_s"].to_numpy()
    seconds = float(table["duration_s"][0].as_py())
    last = np.flatnonzero(np.diff(track, append=-1))
    end = np.repeat(start[last] + seconds, np.diff(last, prepend=-1))
    eligible = np.flatnonzero(start + seconds + AHEAD_SECONDS <= end + 1e-6)
    if not len(eligible):
        raise RootnoteError("the corpus has no track with more than one clip; robustness needs audio after the clip.")
    drawn = np.random.default_rng(seed).permutation(eligible)[:count]
    return np.sort(drawn).astype(np.int64)


def decode(table: pa.Table, audio_dir: Path, rows: Rows, path: Path, extra: float, progress: Progress | None) -> Path:
    """Write the audio of `rows`, with `extra` seconds after each, to `path` (.npy `[n, samples]`)."""
    if path.exists():
        return path
    seconds = float(table["duration_s"][0].as_py()) + extra
    wanted = table.take(rows)
    order = np.lexsort((wanted["start_s"].to_numpy(), wanted["track"].to_numpy()))
    with replacing(path) as temporary:
        shape = (len(rows), round(seconds * RATE))
        file = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        done = 0
        for name, starts, _ in tracks_of(wanted.take(order)):
            for clip in read_clips(audio_dir / name, starts, seconds, RATE):
                file[order[done]] = clip
                done += 1
                if progress:
                    progress(done, len(rows))
        file.flush()
        del file
    return path


def partners(table: pa.Table, rows: Rows, seed: int) -> Rows:
    """For each target, the index of a random target from another track.

    Raises:
        RootnoteError: if all targets are from one track.
    """
    track = table["track"].to_numpy()[rows]
    if (track == track[0]).all():
        raise RootnoteError("all targets are from one track; a mash-up needs two.")
    rng = np.random.default_rng([seed, 1])
    chosen = rng.integers(0, len(rows), len(rows))
    while (same := track[chosen] == track).any():
        chosen[same] = rng.integers(0, len(rows), int(same.sum()))
    return chosen


def corpus_pool(
    table: pa.Table, audio_dir: Path, count: int, seed: int, folder: Path, progress: Progress | None = None
) -> Pool:
    """Targets drawn from the corpus; partners are other targets."""
    rows = choose(table, count, seed)
    clips = decode(table, audio_dir, rows, folder / "clips.npy", AHEAD_SECONDS, progress)
    others = folder / "others.npy"
    if len(np.unique(table["track"].to_numpy()[rows])) > 1 and not others.exists():
        _save(others, np.load(clips, mmap_mode="r")[partners(table, rows, seed)])
    seconds = float(table["duration_s"][0].as_py())
    return Pool(rows, clips, seconds, others if others.exists() else None)


def outside_pool(pool: Pool, outside: Path, seed: int, folder: Path) -> Pool:
    """The same targets; their partners are clips drawn from a folder of music that is not in the corpus."""
    path = folder / "outside.npy"
    if not path.exists():
        settings = CutSettings(clip_seconds=pool.seconds, hop_seconds=pool.seconds)
        table = cut(outside, settings).table
        drawn = np.random.default_rng([seed, 2]).choice(table.num_rows, len(pool.rows), table.num_rows < len(pool.rows))
        unique, back = np.unique(drawn, return_inverse=True)
        drawn_once = decode(table, outside, unique, folder / "outside-once.npy", 0.0, None)
        _save(path, np.load(drawn_once)[back])
        drawn_once.unlink()
    return Pool(pool.rows, pool.clips, pool.seconds, path)


def generation_pool(table: pa.Table, audio_dir: Path, generations: Sequence[Generation], folder: Path) -> Pool:
    """Targets are the prompts of generations that are clips of the corpus; partners are the generations.

    Raises:
        RootnoteError: if no generation has a prompt in the corpus.
    """
    found = [(prompt_row(table, audio_dir, one), one) for one in generations]
    used = [(row, one) for row, one in found if row is not None]
    if not used:
        raise RootnoteError("no generation in the manifest has a prompt (prompt_path) that is in the corpus.")
    seconds = float(table["duration_s"][0].as_py())
    rows = np.array([row for row, _ in used], np.int64)
    clips = decode(table, audio_dir, rows, folder / "prompts.npy", 0.0, None)
    path = folder / "generations.npy"
    if not path.exists():
        _save(path, np.stack([_first_clip(one, seconds) for _, one in used]))
    return Pool(rows, clips, seconds, path)


def prompt_row(table: pa.Table, audio_dir: Path, generation: Generation) -> int | None:
    """The row of the corpus that begins nearest to the generation's prompt, if its track is in the corpus."""
    if generation.prompt_path is None:
        return None
    try:
        name = generation.prompt_path.resolve().relative_to(audio_dir.resolve()).as_posix()
    except ValueError:
        return None
    rows = np.flatnonzero(np.asarray(table["path"].to_numpy(zero_copy_only=False)) == name)
    if not len(rows):
        return None
    starts = table["start_s"].to_numpy()[rows]
    return int(rows[np.abs(starts - generation.prompt_offset_s).argmin()])


def pools(
    wanted: Iterable[Partner | None],
    table: pa.Table,
    audio_dir: Path,
    count: int,
    seed: int,
    folder: Path,
    *,
    outside: Path | None = None,
    generations: Sequence[Generation] = (),
    progress: Progress | None = None,
) -> dict[Partner | None, Pool]:
    """The pools for these kinds of partner, as far as the inputs for them were given."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = set(wanted)
    made: dict[Partner | None, Pool] = {}
    if asked & {None, "corpus", "outside"}:
        plain = corpus_pool(table, audio_dir, count, seed, folder, progress)
        made[None] = plain
        if "corpus" in asked and plain.others is not None:
            made["corpus"] = plain
        if "outside" in asked and outside is not None:
            made["outside"] = outside_pool(plain, outside, seed, folder)
    if "generation" in asked and generations:
        made["generation"] = generation_pool(table, audio_dir, generations, folder)
    return made


def _first_clip(generation: Generation, seconds: float) -> Samples:
    """The generation's first clip after its prompt."""
    (clip,) = read_clips(generation.path, [generation.prefix_s], seconds, RATE)
    return clip


def _save(path: Path, samples: Samples) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(samples, dtype=np.float32))
