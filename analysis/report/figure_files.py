"""Figures as files: SVG and PDF, on white, the same bytes for the same input."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from analysis.presentation.figures import INK, as_svg, styled
from analysis.report.section import Plot

PRINTED = "#1c2230"


def save_plots(plots: Mapping[str, Plot]) -> dict[str, bytes]:
    """Draw every plot as SVG and PDF: content by file name, such as "figures/table1.svg"."""
    files: dict[str, bytes] = {}
    for name, plot in plots.items():
        with styled("path"):
            figure = plot.draw()
            files[f"figures/{name}.svg"] = as_svg(figure, name, plot.label, PRINTED).encode()
            files[f"figures/{name}.pdf"] = _as_pdf(figure)
    return files


def _as_pdf(figure: Figure) -> bytes:
    # The ink is a placeholder for the page's colour; on paper it is nearly black.
    assert INK == "#010203"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()
