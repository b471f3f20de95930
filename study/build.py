"""The build of a study: music → corpus → vectors → bins → triplets → schedule → stimuli.

Every stage compares the provenance that its artefact would have now with the one it has. If they are equal and the
artefact is complete, the stage is skipped; otherwise the artefact is made again. An interrupted build continues where
it stopped.

Schedule and stimuli are drawn from the study's secret key, which the first build writes. Those of earlier versions,
which had no key, are kept as long as they are up to date, because people may have taken part; `redraw` replaces them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings.audio.corpus import CutSettings, corpus_provenance, cut, write_corpus
from embeddings.embed import embed_corpus
from embeddings.errors import ArtefactError, ConfigError, DataError, ResourceError, RootnoteError
from embeddings.models.base import ModelOptions
from embeddings.models.registry import load_embedder
from embeddings.provenance import Provenance, read_json, read_table, write_json, write_table
from embeddings.vectors import read_vectors, vectors_provenance
from embeddings.wording import counted
from study.config import Study
from study.config_sections import ClmrConfig
from study.design.bin_fit import describe_fit
from study.design.bins import (
    NONE,
    PromptNeighbours,
    Rows,
    bins_provenance,
    describe_bins,
    find_neighbours,
    fit_bins,
    prompt_random_means,
    random_scores,
    read_bins,
    write_bins,
)
from study.design.disagreement import draw_disagreements
from study.design.eligibility import describe_prompts, prompts_provenance, write_prompts
from study.design.schedule import make_schedule
from study.design.triplets import EmbedderClips, draw_triplets, require_tracks, triplets_provenance
from study.leaks import describe_leaks, is_keyed, leaks_of
from study.secret_key import SecretKey, draw_key, read_key, write_key
from study.trial_plan import BUILD, require_key_of, schedule_provenance, stimuli_provenance
from study.trials import ROLES, PlannedTrial, Triplet, read_trials, read_triplets, schedule_table, triplets_table

Progress = Callable[[str, int, int], None]
GAUSSIAN = {1: "µ + 2σ", 2: "µ + σ", 3: "µ", 4: "random"}
PLACES = {
    "gaussian": GAUSSIAN,
    "quantile": {1: "97.7 %", 2: "84.1 %", 3: "50 %", 4: "random"},
    "per_prompt": GAUSSIAN,
}


@dataclass(frozen=True)
class BuildReporter:
    """The output of the build: `line` takes a finished line, `progress` takes (stage, done, total)."""

    line: Callable[[str], None]
    progress: Progress

    def stage(self, name: str, text: str, seconds: float | None) -> None:
        timing = "up to date" if seconds is None else f"{seconds:.1f} s"
        self.line(f"{name:<10} {text}  ({timing})")

    def note(self, text: str) -> None:
        """A sentence about the stage, wrapped for a terminal of 80 columns."""
        for line in textwrap.wrap(text, 78, initial_indent=" " * 11, subsequent_indent=" " * 13):
            self.line(line)


def build(study: Study, reporter: BuildReporter, *, redraw: bool = False) -> None:
    """Bring every artefact of a study up to date.

    Args:
        redraw: draw a new secret key, and with it new lists and new stimuli.

    Raises:
        RootnoteError: if a stage fails; what was finished before it is kept.
    """
    if not study.audio.is_dir():
        raise ConfigError(f"{study.audio} is not a directory; set corpus.audio in {study.folder / 'study.toml'}.")
    with _locked(study.build), _remembering_refusal(study):
        corpus, table = _corpus(study, reporter)
        require_tracks(table["track"].to_numpy(), study.config.design)
        left_out = _left_out(study, table)
        found = _Neighbours(study, left_out, table)
        bins = {}
        for name in study.config.embedding.embedders:
            vectors = _vectors(study, name, corpus, table, reporter)
            bins[name] = _bins(study, name, vectors, found, reporter)
        triplets = _triplets(study, bins, found, table, reporter)
        if redraw:
            _forget_draws(study)
        kept = _kept_of_earlier_version(study, triplets[0], corpus)
        key = None if "stimuli" in kept else _key(study, reporter)
        schedule = _schedule(study, triplets, None if "schedule" in kept else key, reporter)
        _stimuli(study, corpus, table, schedule, key, reporter)


class _Neighbours:
    """The prompts' nearest clips by embedder: searched at most once per build, when a stage needs them."""

    def __init__(self, study: Study, left_out: Rows, table: pa.Table) -> None:
        self._study, self.left_out = study, left_out
        self.tracks: Rows | None = None if study.config.design.same_track else table["track"].to_numpy()
        self.of_all_clips: set[str] = set()  # embedders whose bins an earlier version fitted
        self._found: dict[str, PromptNeighbours] = {}

    def of(self, name: str) -> PromptNeighbours:
        if name not in self._found:
            array = np.load(self._study.vectors(name), mmap_mode="r")
            config = self._study.config
            tracks = None if name in self.of_all_clips else self.tracks
            self._found[name] = find_neighbours(array, config.bins, config.study.seed, self.left_out, tracks)
        return self._found[name]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the build folder, so that only one build writes to it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"another build is running in {folder}; wait until it finishes.") from None
        _sweep(folder)
        yield


@contextlib.contextmanager
def _remembering_refusal(study: Study) -> Iterator[None]:
    """Store why a build was refused, so that `study check` can repeat it."""
    study.refusal.unlink(missing_ok=True)
    try:
        yield
    except (ConfigError, DataError) as error:
        write_json(study.refusal, {"reason": str(error)}, Provenance("refusal", {}, {}))
        raise


def _sweep(folder: Path) -> None:
    """Remove what a killed build left half-written: every hidden file except the lock."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)


def _is_fresh(read: Callable[[], Provenance], expected: Provenance) -> bool:
    """Whether `read` finds a complete artefact, made from the present inputs and settings."""
    try:
        return read().fingerprint == expected.fingerprint
    except ArtefactError:
        return False


# ------------------------------------------------------------------ the secret key


def _forget_draws(study: Study) -> None:
    """Delete what was drawn from the key, and the key: the key last, so that an interrupted redraw is repeated."""
    for path in (study.stimuli_index, study.schedule, study.key):
        path.unlink(missing_ok=True)


def _kept_of_earlier_version(study: Study, triplets: Provenance, corpus: Provenance) -> tuple[str, ...]:
    """Which of "schedule" and "stimuli" are up to date and of a version that had no secret key."""
    schedule = schedule_provenance(study.config, triplets.fingerprint, keyed=False)
    if not _is_fresh(lambda: read_table(study.schedule, "schedule", BUILD)[1], schedule):
        return ()
    stimuli = stimuli_provenance(study.config, schedule.fingerprint, corpus.fingerprint, keyed=False)
    return ("schedule", "stimuli") if _is_fresh(lambda: _whole_stimuli(study), stimuli) else ("schedule",)


def _key(study: Study, reporter: BuildReporter) -> SecretKey:
    """The study's key; the first build draws and writes it.

    Raises:
        ArtefactError: if the study was built with a key that is missing, or with another one.
    """
    index, drawn = _drawn(study)
    if not study.key.exists() and not drawn:
        write_key(study.key, draw_key())
        reporter.line(f"{'key':<10} drew secret.key, which sides, order and file names follow from")
        reporter.note("Keep it with the study folder, and show it to nobody who takes part.")
    key = read_key(study.key)
    if index:
        require_key_of(index, study, key)
    return key


def _drawn(study: Study) -> tuple[dict[str, Any], bool]:
    """The index of the stimuli if they were drawn from a key (else empty); whether anything was."""
    index: dict[str, Any] = {}
    drawn = False
    with contextlib.suppress(ArtefactError):
        drawn = is_keyed(read_table(study.schedule, "schedule", BUILD)[1])
    with contextlib.suppress(ArtefactError):
        content, provenance = read_json(study.stimuli_index, "stimuli", BUILD)
        index = content if is_keyed(provenance) else {}
    return index, drawn or bool(index)


# ------------------------------------------------------------------ stages


def _corpus(study: Study, reporter: BuildReporter) -> tuple[Provenance, pa.Table]:
    config = study.config.corpus
    settings = CutSettings(config.clip_seconds, config.hop_seconds, config.silence_dbfs)
    metadata = study.folder / config.metadata if config.metadata else None
    expected = corpus_provenance(study.audio, settings, metadata)
    started = time.perf_counter()
    fresh = _is_fresh(lambda: read_table(study.corpus, "corpus", BUILD)[1], expected)
    if not fresh:
        made = cut(
            study.audio,
            settings,
            metadata=metadata,
            progress=lambda done, of: reporter.progress("cut", done, of),
        )
        for skipped in made.summary.skipped:
            reporter.line(f"           skipped {skipped.path}: {skipped.reason}")
        for damaged in made.summary.damaged:
            reporter.line(f"           damaged {damaged.path}: {damaged.reason}")
        write_corpus(study.corpus, made)
    table, provenance = read_table(study.corpus, "corpus", BUILD)
    tracks = len(table["track"].unique())
    hours = table.num_rows * config.clip_seconds / 3600
    text = f"{counted(tracks, 'track')}, {counted(table.num_rows, 'clip')}, {hours:.2f} hours"
    reporter.stage("cut", text, None if fresh else time.perf_counter() - started)
    return provenance, table


def _left_out(study: Study, table: pa.Table) -> Rows:
    """The rows of the copies that `corpus.duplicates` lists, ascending."""
    name = study.config.corpus.duplicates
    if not name:
        return NONE
    from embeddings.search.duplicates import (
        read_left_out,  # imports torch, which a study without duplicates does not need
    )

    try:
        rows = np.array(sorted(read_left_out(study.folder / name, table)), np.int64)
    except RootnoteError as error:
        raise ConfigError(f"corpus.duplicates: {error}") from error
    return rows


def _vectors(study: Study, name: str, corpus: Provenance, table: pa.Table, reporter: BuildReporter) -> Provenance:
    path = study.vectors(name)
    embedder = load_embedder(name, model_options(study, name))
    expected = vectors_provenance(embedder, corpus)
    started = time.perf_counter()
    fresh = _is_fresh(lambda: read_vectors(path, BUILD)[1], expected)
    if not fresh:
        embed_corpus(
            table,
            corpus,
            study.audio,
            embedder,
            path,
            dtype=study.config.embedding.dtype,
            progress=lambda done, of: reporter.progress(f"embed {name}", done, of),
        )
    rows, dim = np.load(path, mmap_mode="r").shape
    reporter.stage(
        "embed",
        f"{name}: {counted(rows, 'vector')} of {dim} dimensions",
        None if fresh else time.perf_counter() - started,
    )
    return expected


def model_options(study: Study, name: str) -> ModelOptions:
    """The options of a model in study.toml; the backend is this machine's fastest and not part of the design."""
    model = study.config.embedding.models.get(name)
    if model is None:
        return ModelOptions()
    path = study.folder / Path(model.checkpoint).expanduser()
    windows = model.windows if isinstance(model, ClmrConfig) else None
    return ModelOptions(str(path) if path.exists() else model.checkpoint, windows)


def _bins(study: Study, name: str, vectors: Provenance, neighbours: _Neighbours, reporter: BuildReporter) -> Provenance:
    config, seed = study.config.bins, study.config.study.seed
    expected = bins_provenance(config, seed, vectors.fingerprint, neighbours.left_out, neighbours.tracks is None)
    started = time.perf_counter()
    fresh = _is_fresh(lambda: read_bins(study.bins(name))[2], expected)
    # Until 0.2.0 bins were fitted to all clips; those of a study that exists are kept.
    earlier = bins_provenance(config, seed, vectors.fingerprint, neighbours.left_out)
    if not fresh and _is_fresh(lambda: read_bins(study.bins(name))[2], earlier):
        neighbours.of_all_clips.add(name)
        expected, fresh = earlier, True
    if not fresh:
        array = np.load(study.vectors(name), mmap_mode="r")
        found = neighbours.of(name)
        try:
            random = random_scores(array, config.random_clips, seed, neighbours.left_out, neighbours.tracks)
            bins = fit_bins(found.neighbours.scores, random, config.half_width, config.method)
        except RootnoteError as error:
            raise DataError(f"{name}: {error}") from error
        write_bins(study.bins(name), describe_bins(bins, found, random, name, config, seed), expected)
    bins, content, _ = read_bins(study.bins(name))
    text = f"{name}: {counted(content['prompts'], 'prompt')} × {counted(content['neighbours'], 'nearest clip')}"
    reporter.stage("bins", text, None if fresh else time.perf_counter() - started)
    for number, centre in bins.centres.items():
        place = PLACES[config.method][number]
        contents = f"{content['counts'][str(number)]:>10,} of the nearest clips"
        if number == 4:
            contents = f"{content['random']['in_bin_4']:>10,} of {content['random']['pairs']:,} random pairs"
        centre_text = f"{round(centre, 3) + 0.0:6.3f} ± {bins.half_width:g}"
        reporter.line(f"           bin {number}  {centre_text}  {place:<7} {contents}")
    if name in neighbours.of_all_clips:
        reporter.note(
            f"An earlier version fitted these bins, also to clips of the prompt's own track, which are never drawn. "
            f"Before anyone takes part, you can delete {study.bins(name).name} in {study.build} and build again."
        )
    if config.method == "per_prompt":
        reporter.note("These are the bins of all prompts together; every prompt has its own.")
    for sentence in describe_fit(content):
        reporter.note(sentence)
    return expected


def _triplets(
    study: Study,
    bins: dict[str, Provenance],
    neighbours: _Neighbours,
    table: pa.Table,
    reporter: BuildReporter,
) -> tuple[Provenance, pa.Table]:
    config = study.config
    expected = triplets_provenance(config, {name: found.fingerprint for name, found in bins.items()})
    started = time.perf_counter()
    fresh = _is_fresh(lambda: read_table(study.triplets, "triplets", BUILD)[1], expected)
    if not fresh:
        sources = [_clips_of(study, name, neighbours) for name in bins]
        triplets: list[Triplet] = []
        tracks = table["track"].to_numpy()
        for together in [[one] for one in sources] if config.design.comparison == "separate" else [sources]:
            if config.design.comparison == "disagreement":
                made = draw_disagreements(together, tracks, config.design, config.study.seed)
            else:
                made = draw_triplets(together, tracks, config.design, config.study.seed, len(triplets))
            for source, drawn in zip(together, made, strict=True):
                triplets += drawn.triplets
                provenance = prompts_provenance(source.embedder, expected.fingerprint)
                write_prompts(study.prompts(source.embedder), drawn.prompts, provenance)
        write_table(study.triplets, triplets_table(triplets), expected)
    table_drawn, _ = read_table(study.triplets, "triplets", BUILD)
    prompts = table_drawn.group_by(["embedder", "prompt"]).aggregate([]).num_rows
    text = f"{counted(table_drawn.num_rows, 'triplet')} of {counted(prompts, 'prompt')}"
    reporter.stage("triplets", text, None if fresh else time.perf_counter() - started)
    for name in bins:
        for sentence in describe_prompts(study.prompts(name), table):
            reporter.note(f"{name}: {sentence}.")
    return expected, table_drawn


def _clips_of(study: Study, name: str, neighbours: _Neighbours) -> EmbedderClips:
    """What the triplets of an embedder are drawn from."""
    vectors = np.load(study.vectors(name), mmap_mode="r")
    found, config = neighbours.of(name), study.config
    means = None
    if config.bins.method == "per_prompt":
        means = prompt_random_means(vectors, config.bins, config.study.seed, found)
    return EmbedderClips(name, vectors, found, read_bins(study.bins(name))[0], means)


def _schedule(
    study: Study, triplets: tuple[Provenance, pa.Table], key: SecretKey | None, reporter: BuildReporter
) -> tuple[Provenance, list[PlannedTrial]]:
    config = study.config
    expected = schedule_provenance(config, triplets[0].fingerprint, keyed=key is not None)
    started = time.perf_counter()
    fresh = _is_fresh(lambda: read_table(study.schedule, "schedule", BUILD)[1], expected)
    if key is not None and not fresh:
        trials = make_schedule(read_triplets(triplets[1]), config.design, key.rng("schedule"))
        write_table(study.schedule, schedule_table(trials), expected)
    trials = read_trials(read_table(study.schedule, "schedule", BUILD)[0])
    lists = len({trial.list for trial in trials})
    text = f"{counted(lists, 'listener')} × {counted(len(trials) // max(lists, 1), 'trial')}"
    reporter.stage("schedule", text, None if fresh else time.perf_counter() - started)
    return expected, trials


def _stimuli(
    study: Study,
    corpus: Provenance,
    table: pa.Table,
    schedule: tuple[Provenance, list[PlannedTrial]],
    key: SecretKey | None,
    reporter: BuildReporter,
) -> None:
    config = study.config
    expected = stimuli_provenance(config, schedule[0].fingerprint, corpus.fingerprint, keyed=key is not None)
    started = time.perf_counter()
    fresh = _is_fresh(lambda: _whole_stimuli(study), expected)
    if key is not None and not fresh:
        from study.stimuli.render import ClipSource, render_all  # imports scipy's filters

        names = {trial.stimulus_key(role) for trial in schedule[1] for role in ROLES}
        catch = {int(name.split("/")[0]) for name in names if "/" in name}
        wanted = sorted({int(name.split("/")[0]) for name in names})
        chosen = table.select(["path", "start_s"]).take(wanted).to_pylist()
        sources = [
            ClipSource(row, study.audio / clip["path"], clip["start_s"])
            for row, clip in zip(wanted, chosen, strict=True)
        ]
        # Stimuli without an index do not count, so an interrupted build leaves nothing that looks finished.
        study.stimuli_index.unlink(missing_ok=True)
        index = render_all(
            study.stimuli,
            sources,
            catch,
            config.stimuli,
            config.corpus.clip_seconds,
            key,
            lambda done: reporter.progress("stimuli", done, len(names)),
        )
        size = (study.stimuli / next(iter(index.values()))["file"]).stat().st_size
        write_json(study.stimuli_index, {"bytes": size, "clips": index}, expected)
    content, _ = read_json(study.stimuli_index, "stimuli", BUILD)
    entries = content["clips"].values()
    by_rms = sum(entry["loudness"] == "RMS" for entry in entries)
    text = f"{counted(len(entries), 'clip')} at {config.stimuli.loudness_lufs:g} LUFS"
    text += f", {by_rms:,} of them matched by RMS" if by_rms else ""
    reporter.stage("stimuli", text, None if fresh else time.perf_counter() - started)
    if leaks := leaks_of(schedule[0], expected):
        reporter.line(f"           built by an earlier version: {describe_leaks(leaks)}")
        reporter.line(f"           before anyone takes part, build it again: {BUILD} {study.folder} --redraw")


def _whole_stimuli(study: Study) -> Provenance:
    """The provenance of the stimuli, after a check that every file is as it was rendered.

    Raises:
        ArtefactError: if the index or a file is missing or damaged.
    """
    content, provenance = read_json(study.stimuli_index, "stimuli", BUILD)
    for entry in content["clips"].values():
        path = study.stimuli / entry["file"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise ArtefactError(f"{path} is missing or damaged; run `{BUILD}`.")
    return provenance
