"""A report: the result of every section, and the content of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.preregistration.deviations import check_preregistration
from analysis.preregistration.plan import apply_plan, find_plan
from analysis.preregistration.sensitivity import as_data as sensitivity_data
from analysis.presentation.tables import as_data as table_data
from analysis.presentation.versions import versions
from analysis.report.claims_text import claims, primary_data
from analysis.report.compare_studies import read_study
from analysis.report.consort import as_data as flow_data
from analysis.report.figure_files import save_plots
from analysis.report.find_bins import find_bins
from analysis.report.html import to_html
from analysis.report.registry import load_sections
from analysis.report.section import Plot, Report, ReportInputs, ReportSection
from analysis.responses.load import Responses, describe, read_responses
from analysis.statistics.agreement import Alternative, table1
from analysis.statistics.bayesian import require_numpyro
from analysis.statistics.comparison import contrasts_as_data
from analysis.statistics.primary import verdicts, with_verdicts
from embeddings.errors import RootnoteError
from embeddings.provenance import replacing
from study.config import Study
from study.export_manifest import read_manifest
from study.leaks import find_leaks

if TYPE_CHECKING:
    from analysis.report.cli import ReportOptions


def read_inputs(options: ReportOptions) -> ReportInputs:
    """Read everything that a report is made from.

    Raises:
        RootnoteError: naming the file and what is wrong with it.
    """
    if options.bayes:
        require_numpyro()
    planned = find_plan(options.responses, options.study, options.rules)
    read = read_responses(options.responses, planned.exclusions)
    planned, read = apply_plan(planned, read, options.study is not None)
    found = find_bins(read, options.study, options.bins_files)
    test = replace(planned.test, alternative="greater") if options.one_sided else planned.test
    results = verdicts(read.frame, test)
    alternative: Alternative = "greater" if test.alternative == "greater" else "two-sided"
    return ReportInputs(
        responses=read,
        tables=with_verdicts(table1(read.frame, alternative), results, test.primary),
        bins=found.bins,
        verdicts=results,
        test=test,
        planned=planned.frozen is not None,
        study=found.study or ", ".join(read.studies),
        note=options.note.strip(),
        notes=(*read.notes, *planned.notes, *found.notes),
        rules_source=planned.source,
        preregistration=check_preregistration(read, planned.study, planned.frozen, test.alternative),
        others=[read_study(other) for other in options.compare],
        by=options.by,
        prompts=found.prompts,
        leaks=_leaks(read, planned.study),
        bayes=options.bayes,
    )


def _leaks(read: Responses, study: Study | None) -> tuple[str, ...]:
    """What the build revealed, by the export; exports of earlier versions do not say, so by the study folder too."""
    try:
        exported = read_manifest(read.path.resolve().parent)
    except RootnoteError:
        exported = None  # analysis.preregistration.deviations reports a damaged manifest
    return (exported.leaks if exported else ()) or (find_leaks(study) if study else ())


def compute_report(inputs: ReportInputs, sections: Mapping[str, ReportSection] | None = None) -> Report:
    """Compute every section.

    Args:
        sections: by name; default: all in the registry.

    Raises:
        RootnoteError: if a section cannot be computed from the inputs, such as --by with an unknown column.
    """
    sections = load_sections() if sections is None else sections
    return Report(inputs, {name: section.compute(inputs) for name, section in sections.items()})


def render_files(report: Report, sections: Mapping[str, ReportSection] | None = None) -> dict[str, str | bytes]:
    """The content of every file of a report by name, with "/" for folders."""
    sections = load_sections() if sections is None else sections
    texts: dict[str, str | bytes] = {}
    plots: dict[str, Plot] = {}
    for name, section in sections.items():
        result = report.results[name]
        texts |= section.files(result, report)
        texts |= {file: frame.to_csv(index=False) for file, frame in section.frames(result).items()}
        plots |= section.plots(result, report)
    numbers = json.dumps(numbers_data(report, sections), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return {**texts, "numbers.json": numbers, **save_plots(plots), "report.html": to_html(report, sections)}


def numbers_data(report: Report, sections: Mapping[str, ReportSection]) -> dict[str, Any]:
    """The content of numbers.json."""
    read = report.inputs.responses
    data: dict[str, Any] = {
        "responses_sha256": read.sha256,
        "rehearsed": read.rehearsed,
        "versions": versions("statsmodels", "krippendorff"),
    }
    for name, section in sections.items():
        data |= section.data(report.results[name])
    return data


def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Write all files of a report to `folder`; every file is computed before the first is written.

    Raises:
        RootnoteError: if `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RootnoteError(f"{folder} is a file; give a folder with --out.")
    files = render_files(report)
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return {name: folder / name for name in files}


def as_data(report: Report, paths: Mapping[str, Path]) -> dict[str, Any]:
    """What `rootnote analysis report --json` prints."""
    inputs, results = report.inputs, report.results
    read = inputs.responses
    return {
        "claims": claims(inputs),
        "primary_test": primary_data(inputs),
        "table1": table_data(inputs.tables),
        "contrasts": contrasts_as_data(results["contrasts"]),
        "responses": len(read.frame),
        "listeners": read.listeners,
        "rehearsed": read.rehearsed,
        "rules": read.plan.as_data() | {"from": inputs.rules_source, "not_applied": dict(read.not_applied)},
        "left_out": describe(read.exclusions),
        "flow": flow_data(results["exclusions"].flow),
        "plan": inputs.preregistration.as_data() if inputs.preregistration else None,
        "ladder": sensitivity_data(results["exclusions"].specifications),
        "notes": list(inputs.notes),
        "files": {name: str(path) for name, path in paths.items()},
    }
