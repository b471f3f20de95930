"""`rootnote analysis`: responses in, Table 1 and a report out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from embeddings.lazy_group import LazyGroup

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.report.html import Report
    from analysis.responses.load import Responses
    from analysis.statistics.agreement import Alternative, Table1
    from analysis.statistics.bins import Bins

SECTIONS = {
    "Commands": {
        "power": ("analysis.power_cli:power", "Simulate how often a study would find an effect."),
        "robustness": ("analysis.retrieval.cli:robustness", "Perturb clips and see whether each is still found."),
        "attribution": ("analysis.retrieval.cli:attribution", "Find the clips that a model's generations resemble."),
        "replication": ("analysis.retrieval.cli:replication", "Find pieces that copy part of a training corpus."),
        "beside": ("analysis.paper.cli:beside", "Compare the paper's tables and Figure 1 with ours, on one page."),
    }
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def cli() -> None:
    """Turn responses into Table 1, tests and a report; apply the measure to generated music."""


@cli.command()
@click.argument("responses", type=click.Path(path_type=Path))
@click.option("--out", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
@click.option("--study", type=click.Path(path_type=Path), help="Study folder: gives the bins and the title.")
@click.option(
    "--bins", "bins_files", type=click.Path(path_type=Path), multiple=True, help="An <embedder>.bins.json; repeatable."
)
@click.option("--rules", help='Exclusion rules instead of the study\'s, separated by commas; "none": no rule.')
@click.option("--note", default="", help="A sentence shown at the top of the report.")
@click.option("--one-sided", is_flag=True, help="Test for more agreement than chance only, in every binomial test.")
@click.option(
    "--compare", multiple=True, metavar="OTHER", help='Put beside: responses, counts, or "paper"; repeatable.'
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def report(
    responses: Path,
    folder: Path,
    study: Path | None,
    bins_files: tuple[Path, ...],
    rules: str | None,
    note: str,
    one_sided: bool,
    compare: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write report.html, Table 1, figures and all numbers from RESPONSES (.csv or .parquet).

    Needed columns: embedder, listener, prompt, bin_high, bin_low, agreed; of the rest of the export what is
    there is used. Without --study or --bins, the bins are looked for in build/ beside RESPONSES, and the rules of
    exclusion in the study.toml there.
    """
    from analysis.preregistration.deviations import check_preregistration
    from analysis.preregistration.plan import apply_plan, find_plan
    from analysis.preregistration.sensitivity import sensitivity_analysis
    from analysis.report.compare_studies import compare_studies, read_study
    from analysis.report.consort import participant_flow
    from analysis.report.html import Report
    from analysis.report.results import compute_results
    from analysis.responses.load import read_responses
    from analysis.statistics.agreement import table1
    from analysis.statistics.comparison import compare_embedders

    planned = find_plan(responses, study, rules)
    planned, read = apply_plan(planned, read_responses(responses, planned.exclusions), study is not None)
    found = _find_bins(read, study, bins_files)
    alternative: Alternative = "greater" if one_sided else "two-sided"
    tables = table1(read.frame, alternative)
    content = Report(
        responses=read,
        tables=tables,
        bins=found.bins,
        study=found.study or ", ".join(read.studies),
        note=note.strip(),
        contrasts=compare_embedders(read.frame),
        notes=(*read.notes, *planned.notes, *found.notes),
        rungs=sensitivity_analysis(read, alternative),
        rules_from=planned.source,
        flow=participant_flow(read),
        registered=check_preregistration(read, planned.study, planned.frozen, alternative),
        findings=compute_results(read, found.bins, alternative=alternative),
        beside=compare_studies(tables, "this study", [read_study(other) for other in compare]),
    )
    paths = _write(folder, content)
    if as_json:
        click.echo(json.dumps(_as_data(content, paths), indent=2, ensure_ascii=False))
    else:
        _show(content, paths)


@dataclass(frozen=True)
class _Found:
    """The bins of the embedders in the responses, the study's name and what should be said about either."""

    bins: Mapping[str, Bins]
    study: str
    notes: tuple[str, ...]


def _find_bins(read: Responses, study: Path | None, files: tuple[Path, ...]) -> _Found:
    """Bins that are asked for must fit the responses; those that merely lie beside them are left out if not."""
    from analysis.statistics.bins import misfit, read_bins
    from study.config import load_study

    name, notes, bins = "", [], {}
    asked = list(files)
    if study is not None:
        loaded = load_study(study)
        name = loaded.config.study.name
        asked += sorted(loaded.build.glob("*.bins.json"))
        if read.studies and read.studies != (name,):
            notes.append(f"The responses are of {', '.join(read.studies)}; the bins and title are of {name}.")
    beside = [] if asked or study else sorted((read.path.parent / "build").glob("*.bins.json"))
    for path in [*asked, *beside]:
        one = read_bins(path)
        if one.embedder not in read.embedders:
            if path in files:
                raise RootnoteError(
                    f"{path} holds the bins of {one.embedder!r}, of which {read.path} has no responses "
                    f"(it has {', '.join(read.embedders)})."
                )
            continue
        problem = misfit(one, read.frame)
        if problem and path in asked:
            raise RootnoteError(f"{path} does not belong to {read.path}: {problem}; give the bins the study ran with.")
        if problem:
            notes.append(f"{path.name} beside the responses is not shown, because {problem}.")
            continue
        bins[one.embedder] = one
    return _Found(bins, name, tuple(notes))


def _write(folder: Path, content: Report) -> dict[str, Path]:
    """Compute every file before the first is written, so that an error leaves nothing behind."""
    from analysis.preregistration.sensitivity import to_frame
    from analysis.presentation.latex import to_latex
    from analysis.presentation.tables import to_csv, to_json, to_markdown
    from analysis.report.consort import draw_participant_flow
    from analysis.report.figure_files import drawings
    from analysis.report.html import to_html
    from embeddings.provenance import replacing

    if folder.exists() and not folder.is_dir():
        raise RootnoteError(f"{folder} is a file; give a folder with --out.")
    assert content.findings is not None
    files: dict[str, str | bytes] = {
        "table1.csv": to_csv(content.tables),
        "table1.json": to_json(content.tables, content.responses.rehearsed),
        "table1.md": to_markdown(content.tables, content.bins, content.responses.rehearsed),
        "table1.tex": to_latex(content.tables, content.bins, content.responses.rehearsed),
        **({"flow.svg": draw_participant_flow(content.flow, ink="#1f2328")} if content.flow else {}),
        "ladder.csv": to_frame(list(content.rungs)).to_csv(index=False),
        **_numbers(content),
        **drawings(content.tables, content.bins, content.findings),
        "report.html": to_html(content),
    }
    for name, what in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(what.encode() if isinstance(what, str) else what)
    return {name: folder / name for name in files}


def _numbers(content: Report) -> dict[str, str]:
    """Every number as JSON and CSV."""
    from analysis.presentation.tables import as_data
    from analysis.presentation.versions import versions
    from analysis.report.compare_studies import as_data as beside_data
    from analysis.report.compare_studies import to_frame as beside_frame
    from analysis.report.results import as_data as findings_data
    from analysis.report.results import frames
    from analysis.statistics.comparison import contrasts_as_data

    assert content.findings is not None
    tables = frames(content.findings)
    if content.beside:
        tables["beside.csv"] = beside_frame("this study", content.tables, content.beside)
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    data = {
        "responses_sha256": content.responses.sha256,
        "rehearsed": content.responses.rehearsed,
        "versions": versions("statsmodels", "krippendorff"),
        "table1": as_data(content.tables),
        "contrasts": contrasts_as_data(content.contrasts),
        "beside": beside_data(content.beside),
        **findings_data(content.findings),
    }
    return texts | {"numbers.json": json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"}


def _as_data(content: Report, paths: Mapping[str, Path]) -> dict[str, Any]:
    from analysis.preregistration.sensitivity import as_data as ladder_data
    from analysis.presentation.tables import as_data
    from analysis.report.consort import as_data as flow_data
    from analysis.responses.load import describe
    from analysis.statistics.comparison import contrasts_as_data

    read = content.responses
    return {
        "table1": as_data(content.tables),
        "contrasts": contrasts_as_data(content.contrasts),
        "responses": len(read.frame),
        "listeners": read.listeners,
        "rehearsed": read.rehearsed,
        "rules": read.plan.as_data() | {"from": content.rules_from, "not_applied": dict(read.not_applied)},
        "left_out": describe(read.exclusions),
        "flow": flow_data(content.flow) if content.flow else None,
        "plan": content.registered.as_data() if content.registered else None,
        "ladder": ladder_data(list(content.rungs)),
        "notes": list(content.notes),
        "files": {name: str(path) for name, path in paths.items()},
    }


def _show(content: Report, paths: Mapping[str, Path]) -> None:
    from rich.console import Console
    from rich.text import Text

    from analysis.presentation.tables import LEGEND, one_line
    from analysis.report.html import exclusions_in_words, rules_in_words
    from analysis.responses.simulated import SIMULATED_NOTICE
    from analysis.statistics.two_way import survival

    console = Console(highlight=False, soft_wrap=False)
    _show_tables(console, content.tables, content.bins)
    said = [SIMULATED_NOTICE] if content.responses.rehearsed else []
    said += rules_in_words(content.responses, content.rules_from)
    if content.registered:
        said += content.registered.in_words()
    for text in (LEGEND, exclusions_in_words(content.responses), *said, *content.notes, content.note):
        if text:
            console.print(Text(text))
    if content.findings:
        for name, cells in content.findings.dependence.items():
            everything = next(cell for cell in cells if cell.label == "all")
            console.print(Text(f"{one_line(name)}, other listeners and prompts: {survival(everything)}"))
    for name, path in paths.items():
        # Never wrapped: a path is there to be copied.
        if not name.startswith("figures/"):
            console.print(Text(f"wrote {path}"), soft_wrap=True)
    figures = next(path.parent for name, path in paths.items() if name.startswith("figures/"))
    console.print(
        Text(f"wrote {figures}/ ({sum(name.startswith('figures/') for name in paths)} figures)"), soft_wrap=True
    )


def _show_tables(console: Console, tables: Table1, bins: Mapping[str, Bins]) -> None:
    from analysis.presentation.tables import to_terminal

    for name, table in tables.items():
        console.print(to_terminal(table, bins.get(name)))
