"""The methods in words, with every number filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.report.methods_text import methods
from analysis.report.section import Report, ReportInputs, ReportSection


class MethodsSection(ReportSection):
    """Paragraphs as for the methods section of a paper; made from the results of the other sections."""

    template = "methods.html.j2"

    def compute(self, inputs: ReportInputs) -> bool:
        return True

    def values(self, result: bool, report: Report) -> Mapping[str, Any]:
        return {"paragraphs": methods(report)}
