"""What can be claimed, for a reader in a hurry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.report.claims_text import claims, primary_data
from analysis.report.plain_data import plain
from analysis.report.section import ReportInputs, ReportSection


class ClaimsSection(ReportSection):
    """A paragraph for each embedder, and the test that it rests on."""

    template = "claims.html.j2"

    def compute(self, inputs: ReportInputs) -> dict[str, Any]:
        return {"claims": claims(inputs), "primary_test": primary_data(inputs)}

    def data(self, result: dict[str, Any]) -> Mapping[str, Any]:
        return {"claims": result["claims"], "primary_test": plain(result["primary_test"])}
