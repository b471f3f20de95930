"""`rootnote analysis report`: from a file of responses to Table 1, tests, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from analysis.report.section import Report


@dataclass(frozen=True)
class ReportOptions:
    """The arguments and options of the command."""

    responses: Path
    folder: Path
    study: Path | None = None
    bins_files: tuple[Path, ...] = ()
    rules: str | None = None
    note: str = ""
    one_sided: bool = False
    compare: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    bayes: bool = False
    as_json: bool = False


@click.command()
@click.argument("responses", type=click.Path(path_type=Path))
@click.option("--out", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
@click.option("--study", type=click.Path(path_type=Path), help="Study folder: gives the bins and the title.")
@click.option(
    "--bins", "bins_files", type=click.Path(path_type=Path), multiple=True, help="An <embedder>.bins.json; repeatable."
)
@click.option("--rules", help='Exclusion rules to use instead of the study\'s, separated by commas, or "none".')
@click.option("--note", default="", help="A sentence shown at the top of the report.")
@click.option("--one-sided", is_flag=True, help="Test only for more agreement than chance.")
@click.option(
    "--compare", multiple=True, metavar="OTHER", help='Compare with responses, counts, or "paper"; repeatable.'
)
@click.option(
    "--by", multiple=True, metavar="COLUMN", help="Agreement by a column of listeners.csv or RESPONSES; repeatable."
)
@click.option("--bayes", is_flag=True, help="Add a Bayesian mixed model; takes some minutes and needs the extra bayes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def report(**options: Any) -> None:
    """Write report.html, Table 1, figures and all numbers from RESPONSES (.csv or .parquet).

    Required columns: embedder, listener, prompt, bin_high, bin_low, agreed; other columns of the export are used if
    present. Without --study or --bins, bins are looked up in build/ next to RESPONSES, and exclusion rules in the
    study.toml there.
    """
    run_report(ReportOptions(**options))


def run_report(options: ReportOptions) -> None:
    """Read, compute, write and print; see `report`.

    Raises:
        RootnoteError: naming the file and what is wrong with it.
    """
    from analysis.report.build import as_data, compute_report, read_inputs, write_report

    made = compute_report(read_inputs(options))
    paths = write_report(made, options.folder)
    if options.as_json:
        click.echo(json.dumps(as_data(made, paths), indent=2, ensure_ascii=False))
    else:
        _show(made, paths)


def _show(report: Report, paths: Mapping[str, Path]) -> None:
    from rich.console import Console
    from rich.text import Text

    from analysis.presentation.tables import legend, to_terminal
    from analysis.report.claims_text import claims
    from analysis.report.exclusions_text import describe_exclusions, describe_rules
    from analysis.responses.simulated import SIMULATED_NOTICE
    from embeddings.wording import counted

    inputs = report.inputs
    console = Console(highlight=False, soft_wrap=False)
    for text in claims(inputs):
        console.print(Text(text), Text(""), sep="\n")
    for name, table in inputs.tables.items():
        console.print(to_terminal(table, inputs.bins.get(name)))
    lines = [legend(inputs.tables), describe_exclusions(inputs.responses)]
    lines += [SIMULATED_NOTICE] if inputs.responses.rehearsed else []
    lines += describe_rules(inputs.responses, inputs.rules_source)
    lines += inputs.preregistration.in_words() if inputs.preregistration else []
    lines += [*inputs.notes, inputs.note]
    for line in filter(None, lines):
        console.print(Text(line))
    page = paths["report.html"]
    # Never wrapped, so that the path can be copied.
    console.print(Text(f"Open {page}"), soft_wrap=True)
    console.print(Text(f"In the same folder: {counted(len(paths) - 1, 'file')} with tables, numbers and figures."))
