"""The sections of the report by name, in the order of the page: one file and one line here for each.

An installed package adds its own, which come last, through an entry point of the group "rootnote.report_sections".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.registry import Registry

if TYPE_CHECKING:
    from analysis.report.section import ReportSection

# name -> "module:class", a subclass of analysis.report.section.ReportSection. Imported only when a report is made.
SECTIONS: Registry[type[ReportSection]] = Registry(
    "rootnote.report_sections",
    {
        "claims": "analysis.report.sections.claims:ClaimsSection",
        "tables": "analysis.report.sections.tables:TablesSection",
        "contrasts": "analysis.report.sections.contrasts:ContrastsSection",
        "preregistration": "analysis.report.sections.preregistration:PreregistrationSection",
        "blinding": "analysis.report.sections.blinding:BlindingSection",
        "dependence": "analysis.report.sections.dependence:DependenceSection",
        "bayes": "analysis.report.sections.bayes:BayesSection",
        "agreement_by": "analysis.report.sections.agreement_by:AgreementBySection",
        "curves": "analysis.report.sections.curves:CurvesSection",
        "scale": "analysis.report.sections.scale:ScaleSection",
        "reliability": "analysis.report.sections.reliability:ReliabilitySection",
        "other_studies": "analysis.report.sections.other_studies:OtherStudiesSection",
        "prompts": "analysis.report.sections.prompts:PromptsSection",
        "data_quality": "analysis.report.sections.data_quality:DataQualitySection",
        "exclusions": "analysis.report.sections.exclusions:ExclusionsSection",
        "methods": "analysis.report.sections.methods:MethodsSection",
    },
)


def load_sections() -> dict[str, ReportSection]:
    """An instance of every section, by name, in the order of the page."""
    return {name: section() for name, section in SECTIONS.items()}
