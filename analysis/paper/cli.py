"""`rootnote analysis beside`: one page with the paper's findings and ours side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from markupsafe import Markup

if TYPE_CHECKING:
    from analysis.paper import reference

SOURCE = click.Path(path_type=Path, exists=True)


@click.command("beside")
@click.option("--report", type=SOURCE, help="What `analysis report` wrote: for Table 1.")
@click.option("--robustness", type=SOURCE, help="What `analysis robustness` wrote: for Figure 1.")
@click.option("--attribution", type=SOURCE, help="What `analysis attribution` wrote: for Tables 2 and 3.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page (.html).")
def beside(report: Path | None, robustness: Path | None, attribution: Path | None, out: Path) -> None:
    """Lay Table 1, Figure 1, Tables 2 and 3 of the paper beside ours, in one page.

    Example: rootnote analysis beside --report report --robustness robustness --attribution attribution --out paper.html
    """
    from analysis.paper import reference
    from analysis.presentation.html import render
    from embeddings.provenance import replacing

    if not (report or robustness or attribution):
        raise click.UsageError("Give at least one of --report, --robustness and --attribution.")
    page = render("paper.html.j2", _values(reference.read_own_results(report, robustness, attribution)))
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"wrote {out}")


def _values(ours: reference.OwnResults) -> Mapping[str, Any]:
    from analysis.presentation.versions import versions
    from analysis.responses.simulated import SIMULATED_NOTICE

    return {
        "title": "Beside Exploring Musical Roots",
        "rehearsal_said": SIMULATED_NOTICE if ours.rehearsed else "",
        "table1": _table1(ours) if ours.table1 else None,
        "figure1": _figure1(ours) if ours.robustness is not None else None,
        "attribution": _attribution(ours) if ours.attribution else None,
        "versions": versions(),
        "settings": {},
    }


def _table1(ours: reference.OwnResults) -> Mapping[str, Any]:
    from analysis.paper import reference
    from analysis.paper.figures import draw_rates
    from analysis.presentation.tables import percent as cell_percent
    from analysis.presentation.tables import write_interval
    from study.design.bin_pairs import BIN_PAIRS

    assert ours.table1 is not None
    printed = reference.paper_table1()
    tables = [("the paper", printed), ("ours", ours.table1)]
    return {
        "figure": Markup(draw_rates(ours.table1, printed, "rates")),  # noqa: S704 – our own drawing
        "heads": [(name, whose) for whose, found in tables for name in found],
        "rows": [
            (f"{pair[0]}–{pair[1]}", [
                (cell_percent(cell := table.pairs[pair]), write_interval(cell), cell.n)
                for _, found in tables for table in found.values()
            ])
            for pair in BIN_PAIRS
        ],
    }  # fmt: skip


def _figure1(ours: reference.OwnResults) -> Mapping[str, Any]:
    from analysis.paper import reference
    from analysis.retrieval.robustness.figure import draw
    from analysis.retrieval.robustness.perturbations import PERTURBATIONS

    assert ours.robustness is not None
    names = set(ours.robustness["perturbation"])
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for claim in reference.claims():
        spans.setdefault(claim.perturbation, []).append((claim.low, claim.high, claim.embedder))
    left_out = [one.title for one in PERTURBATIONS.values() if one.in_paper and one.name not in names]
    return {
        "figure": Markup(draw(ours.robustness, prefix="figure1", spans=spans)),  # noqa: S704 – our own drawing
        "claims": [
            (claim, list(rows)) for claim, rows in groupby(reference.compare(ours.robustness), lambda row: row.claim)
        ],
        "titles": {name: one.title for name, one in PERTURBATIONS.items()},
        "units": {name: one.unit for name, one in PERTURBATIONS.items()},
        "left_out": left_out,
        "targets": int(ours.robustness["targets"].max()),
    }


def _attribution(ours: reference.OwnResults) -> Mapping[str, Any]:
    from analysis.paper import reference
    from analysis.paper.figures import draw_shares, draw_spreads

    assert ours.attribution is not None
    spreads, reached = reference.table2(ours.attribution), reference.table3(ours.attribution)
    return {
        "spreads": spreads,
        "spreads_figure": Markup(draw_spreads(spreads, "spreads")),  # noqa: S704 – our own drawing
        "reached": reached,
        "reached_figure": Markup(draw_shares(reached, "shares")),  # noqa: S704 – our own drawing
        "without": [name for name, own in ours.attribution.items() if not own["table3"]],
    }
