"""Participants: their flow through the study, the exclusion rules, and how results depend on these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.preregistration.sensitivity import PLAN, Specification, in_words, sensitivity_analysis, to_frame
from analysis.presentation.tables import legend
from analysis.report.consort import ParticipantFlow, draw_participant_flow, participant_flow
from analysis.report.exclusions_text import describe_exclusions, describe_rules, describe_verification
from analysis.report.section import Report, ReportInputs, ReportSection
from study.design.bin_pairs import BIN_PAIRS

ALPHA = 0.05
PRINTED_INK = "#1f2328"


@dataclass(frozen=True)
class ExclusionsResult:
    """The flow of participants, and Table 1 under every set of exclusion rules."""

    flow: ParticipantFlow
    specifications: Sequence[Specification]


class ExclusionsSection(ReportSection):
    """The flow diagram, the rules in words, and the table of sensitivity to exclusions."""

    template = "exclusions.html.j2"

    def compute(self, inputs: ReportInputs) -> ExclusionsResult:
        return ExclusionsResult(
            participant_flow(inputs.responses), sensitivity_analysis(inputs.responses, inputs.alternative, inputs.test)
        )

    def values(self, result: ExclusionsResult, report: Report) -> Mapping[str, Any]:
        inputs = report.inputs
        return {
            "flow_figure": Markup(draw_participant_flow(result.flow)),  # noqa: S704 – our own drawing
            "excluded": describe_exclusions(inputs.responses),
            "verification": describe_verification(inputs.responses),
            "rules": describe_rules(inputs.responses, inputs.rules_source),
            "reading": in_words(result.specifications, ALPHA),
            "pairs": BIN_PAIRS,
            "plan": PLAN,
            "legend": legend(inputs.tables),
        }

    def files(self, result: ExclusionsResult, report: Report) -> Mapping[str, str]:
        return {"flow.svg": draw_participant_flow(result.flow, ink=PRINTED_INK)}

    def frames(self, result: ExclusionsResult) -> Mapping[str, pd.DataFrame]:
        return {"ladder.csv": to_frame(result.specifications)}
