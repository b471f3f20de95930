"""The listeners' own scale: scores of the bins, from their answers alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.report.plain_data import plain
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.bradley_terry import Scale, in_words, listeners_scale


class ScaleSection(ReportSection):
    """Scores of the four bins for each embedder, and their correlation with the measure."""

    template = "scale.html.j2"

    def compute(self, inputs: ReportInputs) -> Sequence[Scale]:
        return listeners_scale(inputs.responses.frame, inputs.seed)

    def values(self, result: Sequence[Scale], report: Report) -> Mapping[str, Any]:
        return {"describe": in_words}

    def data(self, result: Sequence[Scale]) -> Mapping[str, Any]:
        return {"scale": plain([_as_data(scale) for scale in result])}

    def frames(self, result: Sequence[Scale]) -> Mapping[str, pd.DataFrame]:
        return {"scale.csv": pd.concat([scale.by_prompt for scale in result])}


def _as_data(scale: Scale) -> dict[str, Any]:
    """All fields except the scores by prompt, which have a file of their own."""
    fields = {field.name: getattr(scale, field.name) for field in dataclasses.fields(scale)}
    return {name: value for name, value in fields.items() if name != "by_prompt"} | {"in_words": in_words(scale)}
