"""`rootnote analysis attribution`: which clips of a corpus do generated pieces resemble?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from analysis.retrieval.options import FILE, FOLDER, CorpusOptions, by_options, corpus_options, read_bins_for


@dataclass(frozen=True, kw_only=True)
class AttributionOptions(CorpusOptions):
    """The arguments and options of the command."""

    generated: Path
    folder: Path
    manifest: Path | None = None
    bins_files: tuple[Path, ...] = ()
    evidence: Path | None = None
    thresholds: tuple[float, ...] = ()
    k: int = 10
    hop_seconds: float | None = None
    by: str | None = None
    metadata: Path | None = None
    examples: int = 20
    as_json: bool = False


@click.command("attribution")
@click.argument("generated", type=FOLDER)
@corpus_options
@click.option("--out", "folder", type=FOLDER, required=True, help="Folder for tables and page.")
@click.option("--manifest", type=FILE, help="The prompt of each piece; default: generations.csv in GENERATED.")
@click.option("--bins", "bins_files", type=FILE, multiple=True, help="An <embedder>.bins.json; repeatable.")
@click.option("--evidence", type=FILE, help="table1.json of the study's report: how listeners judged the bins.")
@click.option(
    "--threshold",
    "thresholds",
    type=click.FloatRange(-1, 1),
    multiple=True,
    help="Similarity for Table 3; repeatable; default: the centre of bin 1, then steps of 0.02.",
)
@click.option("--k", default=10, show_default=True, type=click.IntRange(10, 1000), help="Nearest clips to keep.")
@click.option(
    "--hop-seconds", type=click.FloatRange(0.1, 600), help="Seconds between clips of a piece; default: clip length."
)
@by_options("Make tables by this column (genre, artist, …) of the nearest clip's track.")
@click.option("--examples", default=20, show_default=True, type=click.IntRange(0), help="Generations with audio.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def attribution(**options: Any) -> None:
    """Find the clips of a corpus that the pieces in GENERATED resemble (the paper's Tables 2 and 3).

    Example: rootnote analysis attribution GENERATED --study STUDY --out attribution
    """
    run_attribution(AttributionOptions(**options))


def run_attribution(options: AttributionOptions) -> None:
    """Embed, search, write and print; see `attribution`.

    Raises:
        RootnoteError: if files are missing or do not belong together.
    """
    from analysis.presentation.formatting import count
    from analysis.retrieval.attribution import report
    from analysis.retrieval.attribution.run import attribute
    from analysis.retrieval.audio_files import PieceCutting
    from analysis.retrieval.generations import generations_in
    from analysis.retrieval.listener_evidence import read_evidence
    from analysis.retrieval.metadata import values_of
    from embeddings.progress import showing

    generations = generations_in(options.generated, options.manifest)
    opened = options.open()
    bins = read_bins_for(opened, options.bins_files)
    evidence = read_evidence(options.evidence) if options.evidence else None
    groups = report.GroupBy(options.by, values_of(opened.table, options.by, options.metadata)) if options.by else None
    seconds = float(opened.table["duration_s"][0].as_py())
    cutting = PieceCutting(seconds, options.hop_seconds or seconds, float(opened.corpus.settings["silence_dbfs"]))
    done = attribute(
        generations, opened.table, opened.subjects, cutting, bins, showing, thresholds=options.thresholds,
        evidence=evidence, k=options.k,
    )  # fmt: skip
    paths = report.write(done, options.folder, examples=options.examples, by=groups)
    data = report.as_data(done, groups)
    if options.as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for outcome in done.outcomes:
        own = data["embedders"][outcome.name]
        click.echo(f"{outcome.name}: " + "; ".join(report.sentences(own, outcome.thresholds)) + ".")
        if own["left_out"]:
            name, reason = next(iter(own["left_out"].items()))
            click.echo(f"  {count(len(own['left_out']), 'piece')} skipped, for example {name}: {reason}.")
    for path in paths.values():
        click.echo(f"wrote {path}")
