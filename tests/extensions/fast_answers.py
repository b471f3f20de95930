"""A section of the report: how many answers came within a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.report.section import ReportInputs, ReportSection


class FastAnswersSection(ReportSection):
    """A sentence, a number and a row for each embedder; no section where no times were recorded."""

    template = "fast_answers.html.j2"

    def compute(self, inputs: ReportInputs) -> pd.DataFrame | None:
        frame = inputs.responses.frame
        if "response_ms" not in frame:
            return None
        fast = frame["response_ms"] < 1000
        return fast.groupby(frame["embedder"]).mean().rename("fast").reset_index()

    def is_shown(self, result: pd.DataFrame | None) -> bool:
        return result is not None

    def data(self, result: pd.DataFrame | None) -> Mapping[str, Any]:
        return {} if result is None else {"fast_answers": dict(zip(result["embedder"], result["fast"], strict=True))}

    def frames(self, result: pd.DataFrame | None) -> Mapping[str, pd.DataFrame]:
        return {} if result is None else {"fast_answers.csv": result}
