"""The page of a report: everything the analysis found, in one self-contained HTML file.

It has no scripts and needs no other files. Everything that comes from the data is escaped. The same responses, bins
and note give the same page: the only dates on it are those of the responses.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from analysis.presentation.html import render
from analysis.presentation.tables import one_line
from analysis.presentation.versions import versions
from analysis.report.registry import SECTIONS
from analysis.report.section import Report, ReportSection
from analysis.responses.simulated import SIMULATED_NOTICE
from study.registry import template_folders


def to_html(report: Report, sections: Mapping[str, ReportSection]) -> str:
    """The page with all sections that have something to show."""
    inputs = report.inputs
    shown = [
        Markup(_render_section(section, report.results[name], report))
        for name, section in sections.items()
        if section.is_shown(report.results[name])
    ]
    warnings = [text for name, section in sections.items() for text in section.warnings(report.results[name])]
    return render(
        "report.html.j2",
        {
            "title": one_line(inputs.study) or "Listening study",
            "inputs": inputs,
            "responses": inputs.responses,
            "preregistration": inputs.preregistration,
            "simulated_notice": SIMULATED_NOTICE,
            "warnings": warnings,
            "sections": shown,
            "versions": versions(),
        },
    )


def _render_section(section: ReportSection, result: object, report: Report) -> str:
    values = {"result": result, "report": report, "inputs": report.inputs, **section.values(result, report)}
    return render(section.template, values, template_folders(SECTIONS))
