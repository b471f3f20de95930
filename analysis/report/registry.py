"""The sections of the report by name, in the order of the page: one file and one line here for each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.report.section import ReportSection

# name -> "module:class", a subclass of analysis.report.section.ReportSection. Imported only when a report is made.
SECTIONS: dict[str, str] = {
    "tables": "analysis.report.sections.tables:TablesSection",
    "contrasts": "analysis.report.sections.contrasts:ContrastsSection",
    "preregistration": "analysis.report.sections.preregistration:PreregistrationSection",
    "dependence": "analysis.report.sections.dependence:DependenceSection",
    "agreement_by": "analysis.report.sections.agreement_by:AgreementBySection",
    "curves": "analysis.report.sections.curves:CurvesSection",
    "scale": "analysis.report.sections.scale:ScaleSection",
    "reliability": "analysis.report.sections.reliability:ReliabilitySection",
    "other_studies": "analysis.report.sections.other_studies:OtherStudiesSection",
    "exclusions": "analysis.report.sections.exclusions:ExclusionsSection",
    "methods": "analysis.report.sections.methods:MethodsSection",
}


def load_sections() -> dict[str, ReportSection]:
    """An instance of every section, by name, in the order of the page."""
    loaded = {}
    for name, target in SECTIONS.items():
        module, _, attribute = target.partition(":")
        loaded[name] = getattr(import_module(module), attribute)()
    return loaded
