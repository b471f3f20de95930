"""Drawings: the figures of a report as files, SVG and PDF, on white, the same bytes for the same input."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from functools import partial

from matplotlib.figure import Figure

from analysis.presentation.figures import INK, as_svg, plot_curves, plot_forest, plot_histogram, plot_table1, styled
from analysis.presentation.tables import one_line
from analysis.report.results import ReportResults
from analysis.statistics.agreement import Table1
from analysis.statistics.bins import Bins

PRINTED = "#1c2230"


def drawings(tables: Table1, bins: Mapping[str, Bins], findings: ReportResults) -> dict[str, bytes]:
    """Content by file name: table1, a forest and a histogram of each embedder, the curves."""
    plots: dict[str, tuple[str, Callable[[], Figure]]] = {"table1": ("Table 1", partial(plot_table1, tables, bins))}
    for number, (name, table) in enumerate(tables.items(), start=1):
        own = f"{number}-{slug(name)}"
        plots[f"forest-{own}"] = (
            f"Agreement of {one_line(name)}",
            partial(plot_forest, table, findings.dependence.get(name, ())),
        )
        if name in bins:
            plots[f"bins-{own}"] = (f"Bins of {one_line(name)}", partial(plot_histogram, bins[name]))
    if findings.curves:
        plots["curves"] = ("Psychometric curves", partial(plot_curves, findings.curves))
        plots["curves-z"] = ("Psychometric curves, standardised", partial(plot_curves, findings.curves, as_z=True))
    found: dict[str, bytes] = {}
    for name, (label, plot) in plots.items():
        with styled("path"):
            figure = plot()
            found[f"figures/{name}.svg"] = as_svg(figure, name, label, PRINTED).encode()
            found[f"figures/{name}.pdf"] = _as_pdf(figure)
    return found


def _as_pdf(figure: Figure) -> bytes:
    # The ink is a colour that stands for the page's; on paper it is nearly black anyway.
    assert INK == "#010203"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


def slug(name: str) -> str:
    """A file name of an embedder's: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40] or "embedder"
