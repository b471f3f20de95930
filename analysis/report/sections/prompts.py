"""The prompts that could be used: how many, from how many tracks, and how they differ from those that could not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.report.section import EligiblePrompts, Report, ReportInputs, ReportSection

MOST_SHOWN = 10  # differences of an embedder on the page; all are in the CSV file


class PromptsSection(ReportSection):
    """A sentence and a table for each embedder whose build is next to the responses or in the study."""

    template = "prompts.html.j2"

    def compute(self, inputs: ReportInputs) -> Mapping[str, EligiblePrompts]:
        return {name: inputs.prompts[name] for name in inputs.responses.embedders if name in inputs.prompts}

    def values(self, result: Mapping[str, EligiblePrompts], report: Report) -> Mapping[str, Any]:
        return {"most_shown": MOST_SHOWN}

    def data(self, result: Mapping[str, EligiblePrompts]) -> Mapping[str, Any]:
        if not result:
            return {}
        return {
            "prompts": {
                name: {
                    "prompts": len(one.prompts.rows),
                    "eligible": int(one.prompts.eligible.sum()),
                    "chosen": int(one.prompts.chosen.sum()),
                    "largest_difference": max((abs(d.difference) for d in _finite(one)), default=None),
                }
                for name, one in result.items()
            }
        }

    def frames(self, result: Mapping[str, EligiblePrompts]) -> Mapping[str, pd.DataFrame]:
        rows = [
            {
                "embedder": name,
                "property": one.tag,
                "value": one.value,
                "prompts": one.prompts,
                "eligible_share": one.eligible,
                "standardised_difference": one.difference,
            }
            for name, found in result.items()
            for one in found.differences
        ]
        return {"eligible_prompts.csv": pd.DataFrame(rows)} if rows else {}


def _finite(found: EligiblePrompts) -> list[Any]:
    return [one for one in found.differences if math.isfinite(one.difference)]
