"""This study compared with others, such as the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.presentation.tables import rows_of
from analysis.report.compare_studies import StudyComparison, as_data, compare_studies, to_frame
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.agreement import Table1

THIS_STUDY = "this study"


@dataclass(frozen=True)
class OtherStudies:
    """This study's tables, and a comparison with each other study."""

    tables: Table1
    comparisons: tuple[StudyComparison, ...]


class OtherStudiesSection(ReportSection):
    """A table of contrasts for each other study and common embedder."""

    template = "other_studies.html.j2"

    def compute(self, inputs: ReportInputs) -> OtherStudies:
        return OtherStudies(inputs.tables, compare_studies(inputs.tables, THIS_STUDY, inputs.others))

    def is_shown(self, result: OtherStudies) -> bool:
        return bool(result.comparisons)

    def values(self, result: OtherStudies, report: Report) -> Mapping[str, Any]:
        return {"own_names": {name.lower() for name in result.tables}, "rows_of": rows_of}

    def data(self, result: OtherStudies) -> Mapping[str, Any]:
        return {"beside": as_data(result.comparisons)}

    def frames(self, result: OtherStudies) -> Mapping[str, pd.DataFrame]:
        if not result.comparisons:
            return {}
        return {"beside.csv": to_frame(THIS_STUDY, result.tables, result.comparisons)}
