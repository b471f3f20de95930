"""`rootnote analysis robustness`, `attribution` and `replication`: what the validated measure is good for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analysis.retrieval.robustness.perturbations import PERTURBATIONS
from embeddings.errors import RootnoteError
from embeddings.models.registry import EMBEDDERS

if TYPE_CHECKING:
    from rich.table import Table

    from analysis.retrieval.corpora import SearchCorpus
    from analysis.retrieval.robustness.run import RobustnessResult
    from analysis.statistics.bins import Bins

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def subject_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which corpus, vectors and weights are meant."""
    from embeddings.models.base import BACKENDS

    for option in (
        click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS)),
        click.option(
            "--checkpoint", "checkpoints", multiple=True, metavar="EMBEDDER=PATH",
            help="Weights that the vectors were made with, where they are not in the cache; repeatable.",
        ),
        click.option(
            "--vectors", type=FILE, multiple=True, help="Vectors of the corpus (.npy), one embedder each; repeatable."
        ),
        click.option("--corpus", type=FILE, help="The table of clips that `embeddings cut` wrote."),
        click.option("--study", type=FOLDER, help="A study folder: gives corpus and vectors."),
    ):  # fmt: skip
        command = option(command)
    return command


def by_options(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say by which column tables are made."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        file = click.option("--metadata", type=FILE, help="A CSV file with path and the column of --by.")
        return click.option("--by", metavar="COLUMN", help=text)(file(command))

    return decorate


@click.command("robustness")
@subject_options
@click.option("--out", "folder", type=FOLDER, help="Folder for tables, figure and page.")
@click.option("--targets", default=500, show_default=True, type=click.IntRange(1), help="How many clips are perturbed.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option(
    "--perturbation",
    "names",
    multiple=True,
    type=click.Choice(list(PERTURBATIONS)),
    metavar="NAME",
    help="One of those that --list names; repeatable; default: all.",
)
@click.option("--paper", is_flag=True, help="Only the paper's own six.")
@click.option("--outside", type=FOLDER, help="Music that is not in the corpus, for mashup-outside.")
@click.option("--generations", type=FILE, help="A manifest of generations with prompts, for mashup-generation.")
@by_options("Also tables by this column (genre, artist, …) of the targets' tracks.")
@click.option("--save", default=0, type=click.IntRange(0), help="Write this many examples of every level as FLAC.")
@click.option("--list", "listing", is_flag=True, help="Name the perturbations and their levels, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def robustness(
    study: Path | None, corpus: Path | None, vectors: tuple[Path, ...], checkpoints: tuple[str, ...], backend: str,
    folder: Path | None, targets: int, seed: int, names: tuple[str, ...], paper: bool, outside: Path | None,
    generations: Path | None, by: str | None, metadata: Path | None, save: int, listing: bool, as_json: bool,
) -> None:  # fmt: skip
    """Perturb clips of a corpus and see whether each is still found (the paper's Figure 1).

    Broken off at any moment, the same command goes on where it stopped.

    Example: rootnote analysis robustness --study STUDY --out robustness
    """
    from rich.console import Console
    from rich.text import Text

    from analysis.retrieval.corpora import open_corpora
    from analysis.retrieval.generations import read_manifest
    from analysis.retrieval.metadata import values_of
    from analysis.retrieval.robustness.report import as_data, write
    from analysis.retrieval.robustness.run import RobustnessPlan, run, summarise
    from embeddings.progress import showing

    if listing:
        Console(highlight=False).print(_listing())
        return
    if folder is None:
        raise click.UsageError("Missing option '--out'.")
    if paper and names:
        raise click.UsageError("--paper and --perturbation exclude each other.")
    opened = open_corpora(study, corpus, vectors, checkpoints, backend)
    chosen = [one for one in PERTURBATIONS.values() if (one.name in names or not names) and (one.in_paper or not paper)]
    plan = RobustnessPlan(
        opened.table, opened.corpus, opened.subjects, chosen, targets, seed, outside,
        read_manifest(generations) if generations else (),
    )  # fmt: skip
    groups = {by: values_of(opened.table, by, metadata)} if by else {}
    with showing("Perturbing and looking for the clips", "levels") as progress:
        result = run(plan, folder, save=save, by=groups, progress=progress)
    paths = write(result, plan.settings, folder, by)
    if as_json:
        click.echo(json.dumps(as_data(result, summarise(result), plan.settings, by), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(_summary(result))
    for name, why in result.left_out.items():
        console.print(Text(f"{name} was not tried: {why}."))
    for path in paths.values():
        console.print(Text(f"wrote {path}"), soft_wrap=True)


@click.command("attribution")
@click.argument("generated", type=FOLDER)
@subject_options
@click.option("--out", "folder", type=FOLDER, required=True, help="Folder for tables and page.")
@click.option("--manifest", type=FILE, help="Which prompt each piece had; default: generations.csv in GENERATED.")
@click.option("--bins", "bins_files", type=FILE, multiple=True, help="An <embedder>.bins.json; repeatable.")
@click.option("--evidence", type=FILE, help="The table1.json of the study's report: what listeners say of the bins.")
@click.option(
    "--threshold",
    "thresholds",
    type=click.FloatRange(-1, 1),
    multiple=True,
    help="Of Table 3; repeatable; default: from the centre of bin 1 up in steps of 0.02.",
)
@click.option("--k", default=10, show_default=True, type=click.IntRange(10, 1000), help="Nearest clips to keep.")
@click.option("--hop-seconds", type=click.FloatRange(0.1, 600), help="From clip to clip; default: the clip length.")
@by_options("Tables by this column (genre, artist, …) of the nearest clip's track.")
@click.option("--examples", default=20, show_default=True, type=click.IntRange(0), help="Generations to hear.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def attribution(
    generated: Path, study: Path | None, corpus: Path | None, vectors: tuple[Path, ...], checkpoints: tuple[str, ...],
    backend: str, folder: Path, manifest: Path | None, bins_files: tuple[Path, ...], evidence: Path | None,
    thresholds: tuple[float, ...], k: int, hop_seconds: float | None, by: str | None, metadata: Path | None,
    examples: int, as_json: bool,
) -> None:  # fmt: skip
    """Say which clips of a corpus the pieces in GENERATED resemble (the paper's Tables 2 and 3).

    Example: rootnote analysis attribution GENERATED --study STUDY --out attribution
    """
    from analysis.retrieval.attribution import report as attribution_report
    from analysis.retrieval.attribution.run import attribute
    from analysis.retrieval.audio_files import PieceCutting
    from analysis.retrieval.corpora import open_corpora
    from analysis.retrieval.generations import generations_in
    from analysis.retrieval.listener_evidence import read_evidence
    from analysis.retrieval.metadata import values_of
    from embeddings.progress import showing

    generations = generations_in(generated, manifest)
    opened = open_corpora(study, corpus, vectors, checkpoints, backend)
    bins = _bins(opened, bins_files)
    told = read_evidence(evidence) if evidence else None
    groups = attribution_report.GroupBy(by, values_of(opened.table, by, metadata)) if by else None
    seconds = float(opened.table["duration_s"][0].as_py())
    cutting = PieceCutting(seconds, hop_seconds or seconds, float(opened.corpus.settings["silence_dbfs"]))
    done = attribute(
        generations, opened.table, opened.subjects, cutting, bins, showing, thresholds=thresholds, evidence=told, k=k
    )
    paths = attribution_report.write(done, folder, examples=examples, by=groups)
    data = attribution_report.as_data(done, groups)
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for outcome in done.outcomes:
        own = data["embedders"][outcome.name]
        click.echo(f"{outcome.name}: " + "; ".join(attribution_report.sentences(own, outcome.thresholds)) + ".")
        if own["left_out"]:
            first, why = next(iter(own["left_out"].items()))
            click.echo(f"  {len(own['left_out']):,} left out, such as {first}: {why}.")
    for path in paths.values():
        click.echo(f"wrote {path}")


def _bins(opened: SearchCorpus, files: tuple[Path, ...]) -> dict[str, Bins]:
    """The bins given, or those of the study."""
    from analysis.statistics.bins import read_bins

    study = opened.study
    asked = list(files) or [path for one in opened.subjects if study and (path := study.bins(one.name)).is_file()]
    found = {one.embedder: one for one in map(read_bins, asked)}
    unused = sorted(set(found) - {one.name for one in opened.subjects})
    if unused:
        raise RootnoteError(f"--bins gives those of {unused[0]}, and no vectors are of it.")
    return found


def _listing() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("name", "levels", "unit", "", box=SIMPLE_HEAD)
    for one in PERTURBATIONS.values():
        levels = ", ".join(f"{level:g}" for level in one.levels)
        table.add_row(one.name, levels, one.unit, "paper" if one.in_paper else "")
    return table


def _summary(result: RobustnessResult) -> Table:
    """A row a perturbation: over its levels, the hits at 1 of each embedder."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from analysis.presentation.html import percent
    from analysis.retrieval.robustness.run import summarise

    summary = summarise(result)
    embedders = list(summary["embedder"].unique())
    table = Table(box=SIMPLE_HEAD, caption="Found first, % of targets, at each level", caption_justify="left")
    table.add_column("perturbation")
    table.add_column("level", justify="right")
    for name in embedders:
        table.add_column(name, justify="right")
    for name in summary["perturbation"].unique():
        rows = summary[summary["perturbation"] == name]
        first: Any = PERTURBATIONS[name]
        for level in dict.fromkeys(rows["level"]):
            here = rows[rows["level"] == level].set_index("embedder")["hit1"]
            shown = [percent(here[one]) if one in here.index else "" for one in embedders]
            table.add_row(first.title if first else "", f"{level:g} {PERTURBATIONS[name].unit}", *shown)
            first = None
    return table


@click.command("replication")
@click.argument("generated", type=FOLDER)
@subject_options
@click.option("--training", type=FOLDER, help="A folder of training music, indexed under OUT, in place of a corpus.")
@click.option(
    "--embedder",
    "embedder_names",
    multiple=True,
    type=click.Choice(sorted(EMBEDDERS)),
    help="With --training: what to index by; repeatable; default: logmel and melspec.",
)
@click.option("--out", "folder", type=FOLDER, required=True, help="Folder for tables and page.")
@click.option("--manifest", type=FILE, help="As for attribution; default: generations.csv in GENERATED.")
@click.option("--pairs", "pairs_file", type=FILE, help="Labelled pairs (CSV: piece, reference, copy) to draw τ by.")
@click.option("--decide", default=None, metavar="EMBEDDER:SCORE", help="What decides; default: logmel:bias.")
@click.option(
    "--false-alarms", default=0.01, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True)
)
@click.option(
    "--null",
    "null_pieces",
    default=200,
    show_default=True,
    type=click.IntRange(10),
    help="Pieces of the corpus that draw τ.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--beta", default=0.5, show_default=True, type=click.FloatRange(0), help="β of the score bias.")
@click.option("--bias-k", default=50, show_default=True, type=click.IntRange(1), help="K of the score bias.")
@click.option(
    "--alpha", default=0.5, show_default=True, type=click.FloatRange(0, min_open=True), help="α of the score ratio."
)
@click.option("--ratio-n", default=50, show_default=True, type=click.IntRange(1), help="n of the score ratio.")
@click.option("--parts", default=4, show_default=True, type=click.IntRange(2, 64), help="C of split and cross.")
@click.option(
    "--hop-seconds",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0.01, 600),
    help="From clip to clip of a piece.",
)
@click.option(
    "--bins", "bins_files", type=FILE, multiple=True, help="An <embedder>.bins.json, for the verdict 'similar'."
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 1, min_open=True),
    help="Count clips of the corpus that are this near to another.",
)
@click.option(
    "--compare", type=FILE, multiple=True, help="replication.json of a run against another size of corpus; repeatable."
)
@click.option("--examples", default=20, show_default=True, type=click.IntRange(0), help="Pieces to hear.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def replication(
    generated: Path, study: Path | None, corpus: Path | None, vectors: tuple[Path, ...], checkpoints: tuple[str, ...],
    backend: str, training: Path | None, embedder_names: tuple[str, ...], folder: Path, manifest: Path | None,
    pairs_file: Path | None, decide: str | None, false_alarms: float, null_pieces: int, seed: int, beta: float,
    bias_k: int, alpha: float, ratio_n: int, parts: int, hop_seconds: float, bins_files: tuple[Path, ...],
    duplicates: float | None, compare: tuple[Path, ...], examples: int, as_json: bool,
) -> None:  # fmt: skip
    """Say which pieces in GENERATED copy something of a training corpus, and what.

    Example: rootnote analysis replication GENERATED --training MUSIC --out replication
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from analysis.retrieval.audio_files import PieceCutting
    from analysis.retrieval.corpora import index_folder, open_corpora
    from analysis.retrieval.generations import generations_in
    from analysis.retrieval.replication import report as replication_report
    from analysis.retrieval.replication.run import ReplicationSettings, duplicate_share, read_pairs, replicate
    from analysis.retrieval.replication.scores import Parameters
    from embeddings.progress import showing

    generations = generations_in(generated, manifest)
    if training is not None:
        if study or corpus or vectors:
            raise click.UsageError("--training excludes --study, --corpus and --vectors.")
        corpus, vectors = index_folder(training, embedder_names or ("logmel", "melspec"), folder / "index", checkpoints)
    opened = open_corpora(study, corpus, vectors, checkpoints, backend)
    embedder, _, score = (decide or "").partition(":")
    if decide and not score:
        raise click.UsageError("--decide takes EMBEDDER:SCORE, such as logmel:bias.")
    settings = ReplicationSettings(Parameters(beta, bias_k, alpha, ratio_n, parts), false_alarms, null_pieces, seed)
    cutting = PieceCutting(
        float(opened.table["duration_s"][0].as_py()), hop_seconds, float(opened.corpus.settings["silence_dbfs"])
    )
    done = replicate(
        generations, opened.table, opened.subjects, cutting, settings, showing, bins=_bins(opened, bins_files),
        pairs=read_pairs(pairs_file) if pairs_file else (), decides=(embedder, score) if decide else None,
    )  # fmt: skip
    twice = None
    if duplicates:
        subject = next(one for one in opened.subjects if one.name == done.decides[0])
        clips, groups = duplicate_share(subject, duplicates, showing)
        twice = {"embedder": subject.name, "threshold": duplicates, "clips": clips, "groups": groups}
    paths = replication_report.write(done, folder, examples=examples, duplicates=twice, compare=compare)
    data = replication_report.as_data(done, twice)
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    verdicts = ", ".join(f"{count:,} {name}" for name, count in data["verdicts"].items() if count)
    click.echo(
        f"{data['pieces']:,} pieces against {data['clips_of_corpus']:,} clips: {verdicts} (by {data['decides']})."
    )
    table = Table("embedder", "score", "τ", "flagged", box=SIMPLE_HEAD)
    for one in data["scores"]:
        shown = "∞" if one["threshold"] is None else f"{one['threshold']:.3f}"
        table.add_row(one["embedder"], one["score"], shown, f"{one['flagged']} of {one['tried']}")
    console.print(table)
    for path in paths.values():
        console.print(Text(f"wrote {path}"), soft_wrap=True)
