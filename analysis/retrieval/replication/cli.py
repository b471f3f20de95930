"""`rootnote analysis replication`: which pieces copy part of a training corpus?"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from analysis.retrieval.options import FILE, FOLDER, ChoiceOf, CorpusOptions, corpus_options, read_bins_for


@dataclass(frozen=True, kw_only=True)
class ReplicationOptions(CorpusOptions):
    """The arguments and options of the command."""

    generated: Path
    folder: Path
    training: Path | None = None
    embedder_names: tuple[str, ...] = ()
    manifest: Path | None = None
    pairs_file: Path | None = None
    decide: str | None = None
    false_alarms: float = 0.01
    null_pieces: int = 200
    seed: int = 0
    beta: float = 0.5
    bias_k: int = 50
    alpha: float = 0.5
    ratio_n: int = 50
    parts: int = 4
    hop_seconds: float = 0.25
    bins_files: tuple[Path, ...] = ()
    duplicates: float | None = None
    compare: tuple[Path, ...] = ()
    examples: int = 20
    as_json: bool = False

    @property
    def deciding_score(self) -> tuple[str, str] | None:
        """Embedder and score of --decide; None: the default.

        Raises:
            click.UsageError: if it has another form than EMBEDDER:SCORE.
        """
        if not self.decide:
            return None
        embedder, _, score = self.decide.partition(":")
        if not score:
            raise click.UsageError("--decide takes EMBEDDER:SCORE, such as logmel:bias.")
        return embedder, score


@click.command("replication")
@click.argument("generated", type=FOLDER)
@corpus_options
@click.option("--training", type=FOLDER, help="A folder of training music to index under OUT, instead of a corpus.")
@click.option(
    "--embedder",
    "embedder_names",
    multiple=True,
    metavar="NAME",
    type=ChoiceOf("embeddings.models.registry:embedder_names"),
    help="With --training: embedder for the index; repeatable; default: logmel and melspec.",
)
@click.option("--out", "folder", type=FOLDER, required=True, help="Folder for tables and page.")
@click.option("--manifest", type=FILE, help="As for attribution; default: generations.csv in GENERATED.")
@click.option("--pairs", "pairs_file", type=FILE, help="Labelled pairs to set τ by (CSV: piece, reference, copy).")
@click.option("--decide", default=None, metavar="EMBEDDER:SCORE", help="The deciding score; default: logmel:bias.")
@click.option(
    "--false-alarms",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Largest share of pieces without copies that may be flagged.",
)
@click.option(
    "--null",
    "null_pieces",
    default=200,
    show_default=True,
    type=click.IntRange(10),
    help="Excerpts of the corpus used to set τ.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random draws.")
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
    help="Seconds between clips of a piece.",
)
@click.option(
    "--bins", "bins_files", type=FILE, multiple=True, help="An <embedder>.bins.json, for the verdict 'similar'."
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 1, min_open=True),
    help="Count clips of the corpus that are at least this similar to another clip.",
)
@click.option(
    "--compare", type=FILE, multiple=True, help="replication.json of a run with another corpus size; repeatable."
)
@click.option("--examples", default=20, show_default=True, type=click.IntRange(0), help="Pieces with audio.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def replication(**options: Any) -> None:
    """Find pieces in GENERATED that copy part of a training corpus, and what they copy.

    Example: rootnote analysis replication GENERATED --training MUSIC --out replication
    """
    run_replication(ReplicationOptions(**options))


def run_replication(options: ReplicationOptions) -> None:
    """Embed, score, decide, write and print; see `replication`.

    Raises:
        RootnoteError: if files are missing or do not belong together.
    """
    from analysis.retrieval.audio_files import PieceCutting
    from analysis.retrieval.corpora import index_folder
    from analysis.retrieval.generations import generations_in
    from analysis.retrieval.replication import report
    from analysis.retrieval.replication.run import ReplicationSettings, duplicate_share, read_pairs, replicate
    from analysis.retrieval.replication.scores import Parameters
    from embeddings.progress import showing

    generations = generations_in(options.generated, options.manifest)
    if options.training is not None:
        if options.study or options.corpus or options.vectors:
            raise click.UsageError("give either --training, or --study, --corpus and --vectors, not both.")
        embedders = options.embedder_names or ("logmel", "melspec")
        corpus, vectors = index_folder(options.training, embedders, options.folder / "index", options.checkpoints)
        options = replace(options, corpus=corpus, vectors=vectors)
    opened = options.open()
    decides = options.deciding_score
    parameters = Parameters(options.beta, options.bias_k, options.alpha, options.ratio_n, options.parts)
    settings = ReplicationSettings(parameters, options.false_alarms, options.null_pieces, options.seed)
    seconds, silence = float(opened.table["duration_s"][0].as_py()), float(opened.corpus.settings["silence_dbfs"])
    done = replicate(
        generations, opened.table, opened.subjects, PieceCutting(seconds, options.hop_seconds, silence), settings,
        showing, bins=read_bins_for(opened, options.bins_files),
        pairs=read_pairs(options.pairs_file) if options.pairs_file else (), decides=decides,
    )  # fmt: skip
    duplicates = None
    if options.duplicates:
        subject = next(one for one in opened.subjects if one.name == done.decides[0])
        clips, groups = duplicate_share(subject, options.duplicates, showing)
        duplicates = {"embedder": subject.name, "threshold": options.duplicates, "clips": clips, "groups": groups}
    paths = report.write(
        done, options.folder, examples=options.examples, duplicates=duplicates, compare=options.compare
    )
    data = report.as_data(done, duplicates)
    if options.as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(data, paths)


def _show(data: Mapping[str, Any], paths: Mapping[str, Path]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from analysis.presentation.formatting import count

    verdicts = ", ".join(f"{number:,} {name}" for name, number in data["verdicts"].items() if number)
    pieces, clips = count(data["pieces"], "piece"), count(data["clips_of_corpus"], "clip")
    click.echo(f"{pieces} compared with {clips}: {verdicts} (decided by {data['decides']}).")
    table = Table("embedder", "score", "τ", "flagged", box=SIMPLE_HEAD)
    for one in data["scores"]:
        threshold = "∞" if one["threshold"] is None else f"{one['threshold']:.3f}"
        table.add_row(one["embedder"], one["score"], threshold, f"{one['flagged']} of {one['tried']}")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for path in paths.values():
        console.print(Text(f"wrote {path}"), soft_wrap=True)
