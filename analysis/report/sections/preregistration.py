"""The frozen plan: whether the analysis follows it, and whether the file is as exported."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.preregistration.deviations import PreregistrationCheck
from analysis.report.section import ReportInputs, ReportSection


class PreregistrationSection(ReportSection):
    """The verdict on the plan and every deviation from it."""

    template = "preregistration.html.j2"

    def compute(self, inputs: ReportInputs) -> PreregistrationCheck | None:
        return inputs.preregistration

    def is_shown(self, result: PreregistrationCheck | None) -> bool:
        return result is not None and result.has_study

    def warnings(self, result: PreregistrationCheck | None) -> Sequence[str]:
        return [result.verdict] if result is not None and result.deviations else []
