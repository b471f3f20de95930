"""Reliability of the listeners, and biases in their responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report.plain_data import plain
from analysis.report.reliability_text import in_words
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.responses.exclusions import without_unconfirmed
from analysis.statistics.reliability import Reliability, reliability
from analysis.statistics.two_way_variance import LEVEL


class ReliabilitySection(ReportSection):
    """Sentences on agreement between listeners, repeats, catch trials, sides, order, times and the prescreen."""

    template = "reliability.html.j2"

    def compute(self, inputs: ReportInputs) -> Reliability:
        read = inputs.responses
        return reliability(read.frame, read.kept, without_unconfirmed(read.everything))

    def values(self, result: Reliability, report: Report) -> Mapping[str, Any]:
        return {"sentences": in_words(result)}

    def data(self, result: Reliability) -> Mapping[str, Any]:
        return {"reliability": plain(dataclasses.asdict(result)), "reliability_in_words": in_words(result)}

    def warnings(self, result: Reliability) -> Sequence[str]:
        found = []
        if result.side and result.side.p < LEVEL:
            found.append(f"Side A was chosen in {100 * result.side.rate:.1f} % of trials: listeners favour one side.")
        if result.order and result.order.trend_p < LEVEL:
            found.append("Agreement changes with the position of a trial.")
        if result.repeats and result.repeats.ceiling is None:
            found.append("In repeated trials, listeners contradict themselves more often than chance would.")
        return found
