"""`rootnote analysis robustness`: is a clip still found after it was perturbed?"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analysis.retrieval.options import FILE, FOLDER, ChoiceOf, CorpusOptions, by_options, corpus_options

if TYPE_CHECKING:
    from rich.table import Table

    from analysis.retrieval.robustness.run import RobustnessResult


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions(CorpusOptions):
    """The options of the command."""

    folder: Path | None = None
    targets: int = 500
    seed: int = 0
    names: tuple[str, ...] = ()
    paper: bool = False
    outside: Path | None = None
    generations: Path | None = None
    by: str | None = None
    metadata: Path | None = None
    save: int = 0
    listing: bool = False
    as_json: bool = False


@click.command("robustness")
@corpus_options
@click.option("--out", "folder", type=FOLDER, help="Folder for tables, figure and page.")
@click.option("--targets", default=500, show_default=True, type=click.IntRange(1), help="Number of clips to perturb.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random draws.")
@click.option(
    "--perturbation",
    "names",
    multiple=True,
    type=ChoiceOf("analysis.retrieval.robustness.registry:PERTURBATIONS"),
    metavar="NAME",
    help="A perturbation from --list; repeatable; default: all.",
)
@click.option("--paper", is_flag=True, help="Only the six perturbations of the paper.")
@click.option("--outside", type=FOLDER, help="Music that is not in the corpus, for mashup-outside.")
@click.option("--generations", type=FILE, help="A manifest of generations with prompts, for mashup-generation.")
@by_options("Also make tables by this column (genre, artist, …) of the targets' tracks.")
@click.option("--save", default=0, type=click.IntRange(0), help="Write this many examples of every level as FLAC.")
@click.option("--list", "listing", is_flag=True, help="List the perturbations and their levels, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def robustness(**options: Any) -> None:
    """Perturb clips of a corpus and measure whether each is still found (the paper's Figure 1).

    If the command is interrupted, run it again to continue where it stopped.

    Example: rootnote analysis robustness --study STUDY --out robustness
    """
    run_robustness(RobustnessOptions(**options))


def run_robustness(options: RobustnessOptions) -> None:
    """Perturb, search, write and print; see `robustness`.

    Raises:
        RootnoteError: if files are missing or do not belong together, or a process dies.
    """
    from rich.console import Console
    from rich.text import Text

    from analysis.retrieval.generations import read_manifest
    from analysis.retrieval.metadata import values_of
    from analysis.retrieval.robustness.registry import PERTURBATIONS
    from analysis.retrieval.robustness.report import as_data, write
    from analysis.retrieval.robustness.run import RobustnessPlan, run, summarise
    from embeddings.progress import showing

    if options.listing:
        Console(highlight=False).print(_perturbation_table())
        return
    if options.folder is None:
        raise click.UsageError("Missing option '--out'.")
    if options.paper and options.names:
        raise click.UsageError("give either --paper or --perturbation, not both.")
    opened = options.open()
    chosen = [
        one
        for one in PERTURBATIONS.values()
        if (one.name in options.names or not options.names) and (one.in_paper or not options.paper)
    ]
    generations = read_manifest(options.generations) if options.generations else ()
    plan = RobustnessPlan(
        opened.table, opened.corpus, opened.subjects, chosen, options.targets, options.seed, options.outside,
        generations,
    )  # fmt: skip
    groups = {options.by: values_of(opened.table, options.by, options.metadata)} if options.by else {}
    with showing("Perturbing and searching", "levels") as progress:
        result = run(plan, options.folder, save=options.save, by=groups, progress=progress)
    paths = write(result, plan.settings, options.folder, options.by)
    if options.as_json:
        data = as_data(result, summarise(result), plan.settings, options.by)
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(_summary_table(result))
    for name, reason in result.left_out.items():
        console.print(Text(f"{name} was skipped: {reason}."))
    for path in paths.values():
        console.print(Text(f"wrote {path}"), soft_wrap=True)


def _perturbation_table() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from analysis.retrieval.robustness.registry import PERTURBATIONS

    table = Table("name", "levels", "unit", "", box=SIMPLE_HEAD)
    for one in PERTURBATIONS.values():
        levels = ", ".join(f"{level:g}" for level in one.levels)
        table.add_row(one.name, levels, one.unit, "paper" if one.in_paper else "")
    return table


def _summary_table(result: RobustnessResult) -> Table:
    """One row per perturbation and level: the hits at 1 of each embedder."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from analysis.presentation.formatting import share_percent
    from analysis.retrieval.robustness.registry import PERTURBATIONS
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
        title = PERTURBATIONS[name].title
        for level in dict.fromkeys(rows["level"]):
            rates = rows[rows["level"] == level].set_index("embedder")["hit1"]
            shown = [share_percent(rates[one]) if one in rates.index else "" for one in embedders]
            table.add_row(title, f"{level:g} {PERTURBATIONS[name].unit}", *shown)
            title = ""
    return table
