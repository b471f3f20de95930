"""Embedders compared with each other, per bin pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.report.section import ReportInputs, ReportSection
from analysis.statistics.comparison import Contrast, compare_embedders, contrasts_as_data


class ContrastsSection(ReportSection):
    """A table for each pair of embedders."""

    template = "contrasts.html.j2"

    def compute(self, inputs: ReportInputs) -> tuple[Contrast, ...]:
        return compare_embedders(inputs.responses.frame)

    def data(self, result: tuple[Contrast, ...]) -> Mapping[str, Any]:
        return {"contrasts": contrasts_as_data(result)}
