"""The page that compares the paper's findings with your own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from markupsafe import Markup

from analysis.paper import reference
from analysis.paper.figures import draw_rates, draw_shares, draw_spreads
from analysis.presentation.html import render
from analysis.presentation.tables import percent as cell_percent
from analysis.presentation.tables import write_interval
from analysis.presentation.versions import versions
from analysis.responses.simulated import SIMULATED_NOTICE
from analysis.retrieval.robustness.figure import draw
from analysis.retrieval.robustness.registry import PERTURBATIONS
from study.design.bin_pairs import BIN_PAIRS


def to_html(own: reference.OwnResults) -> str:
    """The page: a section for each of Table 1, Figure 1, Tables 2 and 3 that there are results for."""
    return render("paper.html.j2", _values(own))


def _values(own: reference.OwnResults) -> Mapping[str, Any]:
    return {
        "title": "Comparison with Exploring Musical Roots",
        "simulated_notice": SIMULATED_NOTICE if own.rehearsed else "",
        "table1": _table1(own) if own.table1 else None,
        "figure1": _figure1(own) if own.robustness is not None else None,
        "attribution": _attribution(own) if own.attribution else None,
        "versions": versions(),
        "settings": {},
    }


def _table1(own: reference.OwnResults) -> Mapping[str, Any]:
    assert own.table1 is not None
    printed = reference.paper_table1()
    tables = [("the paper", printed), ("this study", own.table1)]
    return {
        "figure": Markup(draw_rates(own.table1, printed, "rates")),  # noqa: S704 – our own drawing
        "heads": [(name, whose) for whose, found in tables for name in found],
        "rows": [
            (f"{pair[0]}–{pair[1]}", [
                (cell_percent(cell := table.pairs[pair]), write_interval(cell), cell.n)
                for _, found in tables for table in found.values()
            ])
            for pair in BIN_PAIRS
        ],
    }  # fmt: skip


def _figure1(own: reference.OwnResults) -> Mapping[str, Any]:
    assert own.robustness is not None
    names = set(own.robustness["perturbation"])
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for claim in reference.claims():
        spans.setdefault(claim.perturbation, []).append((claim.low, claim.high, claim.embedder))
    left_out = [one.title for one in PERTURBATIONS.values() if one.in_paper and one.name not in names]
    return {
        "figure": Markup(draw(own.robustness, prefix="figure1", spans=spans)),  # noqa: S704 – our own drawing
        "claims": [
            (claim, list(rows)) for claim, rows in groupby(reference.compare(own.robustness), lambda row: row.claim)
        ],
        "titles": {name: one.title for name, one in PERTURBATIONS.items()},
        "units": {name: one.unit for name, one in PERTURBATIONS.items()},
        "left_out": left_out,
        "targets": int(own.robustness["targets"].max()),
    }


def _attribution(own: reference.OwnResults) -> Mapping[str, Any]:
    assert own.attribution is not None
    spreads, reached = reference.table2(own.attribution), reference.table3(own.attribution)
    return {
        "spreads": spreads,
        "spreads_figure": Markup(draw_spreads(spreads, "spreads")),  # noqa: S704 – our own drawing
        "reached": reached,
        "reached_figure": Markup(draw_shares(reached, "shares")),  # noqa: S704 – our own drawing
        "without": [name for name, own in own.attribution.items() if not own["table3"]],
    }
