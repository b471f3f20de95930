"""Table 1 and its tests, for each embedder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from analysis.presentation.figures import draw_forest, draw_histogram, plot_forest, plot_histogram, plot_table1
from analysis.presentation.latex import to_latex
from analysis.presentation.tables import (
    COLUMNS,
    PRIMARY_NAMES,
    ROWS,
    as_data,
    legend,
    one_line,
    rows_of,
    to_csv,
    to_json,
    to_markdown,
)
from analysis.report.claims_text import describe_range
from analysis.report.section import Plot, Report, ReportInputs, ReportSection
from analysis.statistics.agreement import EmbedderTable, Table1
from analysis.statistics.bins import Bins
from analysis.statistics.primary import PairVerdict

INTERVAL_NAMES = {
    "two_way_holm": "for other listeners and prompts",
    "mixed_holm": "of the mixed model’s marginal rate",
    "exact_holm": "exact, of the pooled answers",
}
DECIDED = {
    "of interest": "of interest", "above": "above 50 %", "below": "below 50 %", "equivalent": "near 50 %",
    "undecided": "undecided",
}  # fmt: skip


@dataclass(frozen=True)
class EmbedderPanel:
    """What the page shows of one embedder."""

    table: EmbedderTable
    bins: Bins | None
    description: str
    histogram: Markup | None
    forest: Markup
    verdicts: Mapping[tuple[int, int], PairVerdict]


class TablesSection(ReportSection):
    """Table 1 in the paper's layout, a forest plot, the tests, and the bins where they are known."""

    template = "tables.html.j2"

    def compute(self, inputs: ReportInputs) -> Table1:
        return inputs.tables

    def values(self, result: Table1, report: Report) -> Mapping[str, Any]:
        panels = []
        for index, (name, table) in enumerate(result.items()):
            bins = report.inputs.bins.get(name)
            intervals = report.inputs.intervals(name)
            histogram = draw_histogram(bins, f"histogram{index}") if bins else None
            forest = draw_forest(table, f"forest{index}", intervals)
            panels.append(
                EmbedderPanel(
                    table,
                    bins,
                    describe_range(report.inputs, name),
                    Markup(histogram) if histogram else None,  # noqa: S704 – our own drawing
                    Markup(forest),  # noqa: S704 – our own drawing
                    report.inputs.verdicts.get(name, {}),
                )
            )
        test = report.inputs.test
        return {
            "least": f"{100 * (0.5 + test.smallest_effect):g}",
            "most_below": f"{100 * (0.5 - test.smallest_effect):g}",
            "primary_name": PRIMARY_NAMES[test.primary],
            "interval_name": INTERVAL_NAMES[test.primary],
            "panels": panels,
            "legend": legend(result),
            "rows": ROWS,
            "columns": COLUMNS,
            "rows_of": rows_of,
            "decided": DECIDED,
        }

    def data(self, result: Table1) -> Mapping[str, Any]:
        return {"table1": as_data(result)}

    def files(self, result: Table1, report: Report) -> Mapping[str, str]:
        bins, rehearsed = report.inputs.bins, report.inputs.responses.rehearsed
        return {
            "table1.csv": to_csv(result),
            "table1.json": to_json(result, rehearsed),
            "table1.md": to_markdown(result, bins, rehearsed),
            "table1.tex": to_latex(result, bins, rehearsed),
        }

    def plots(self, result: Table1, report: Report) -> Mapping[str, Plot]:
        bins = report.inputs.bins
        found = {"table1": Plot("Table 1", partial(plot_table1, result, bins))}
        for number, (name, table) in enumerate(result.items(), start=1):
            file = f"{number}-{slug(name)}"
            intervals = report.inputs.intervals(name)
            found[f"forest-{file}"] = Plot(f"Agreement of {one_line(name)}", partial(plot_forest, table, intervals))
            if name in bins:
                found[f"bins-{file}"] = Plot(f"Bins of {one_line(name)}", partial(plot_histogram, bins[name]))
        return found


def slug(name: str) -> str:
    """A part of a file name from an embedder's name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40] or "embedder"
