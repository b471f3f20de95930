"""Data quality of the runs: components and their distribution; the table of runs is a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.data_quality import RunQuality, data_quality, summary, to_frame

FILE = "data_quality.csv"


class DataQualitySection(ReportSection):
    """How attentive the runs look, all of them; it leaves none out."""

    template = "data_quality.html.j2"

    def compute(self, inputs: ReportInputs) -> list[RunQuality]:
        return [one for one in data_quality(inputs.responses.everything) if one.score is not None]

    def values(self, result: list[RunQuality], report: Report) -> Mapping[str, Any]:
        scores = [one.score for one in result if one.score is not None]
        return {
            "runs": len(result),
            "median": median(scores) if scores else None,
            "lowest": min(scores, default=None),
            "parts": summary(result),
            "file": FILE,
        }

    def data(self, result: list[RunQuality]) -> Mapping[str, Any]:
        return {"data_quality": summary(result)}

    def frames(self, result: Sequence[RunQuality]) -> Mapping[str, pd.DataFrame]:
        return {FILE: to_frame(result)} if result else {}
