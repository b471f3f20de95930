"""The report: everything the analysis found, as one self-contained HTML page.

It has no script and asks for no other file. Everything that comes from the data is escaped. The same
responses, bins and note give the same page: the only dates in it are those of the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.preregistration.deviations import PreregistrationCheck
from analysis.preregistration.sensitivity import Specification, in_words
from analysis.presentation.figures import BIN_COLOURS, draw_curves, draw_forest, draw_histogram
from analysis.presentation.tables import (
    COLUMNS,
    LEGEND,
    ROWS,
    one_line,
    percent,
    rows_of,
    sidedness,
    stars,
    write_interval,
    write_p,
    write_wilson,
)
from analysis.presentation.versions import versions
from analysis.report.compare_studies import StudyComparison
from analysis.report.consort import ParticipantFlow, draw_participant_flow
from analysis.report.methods_text import conclude, count, many_answers, methods, warnings, write_figure, write_icc
from analysis.report.reliability_text import in_words as reliability_in_words
from analysis.report.results import ReportResults, compute_results
from analysis.responses.load import Responses
from analysis.responses.simulated import SIMULATED_NOTICE
from analysis.statistics.agreement import CHANCE, Cell, EmbedderTable, Table1
from analysis.statistics.bins import Bins
from analysis.statistics.bradley_terry import in_words as scale_in_words
from analysis.statistics.comparison import Contrast, write_difference, write_newcombe
from study.design.bin_pairs import BIN_PAIRS

ALPHA = 0.05
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Report:
    """What the page is made of."""

    responses: Responses
    tables: Table1
    bins: Mapping[str, Bins]
    study: str = ""
    note: str = ""
    notes: Sequence[str] = ()
    contrasts: Sequence[Contrast] = ()
    rungs: Sequence[Specification] = ()
    rules_from: str = ""
    registered: PreregistrationCheck | None = None
    findings: ReportResults | None = None
    flow: ParticipantFlow | None = None
    beside: Sequence[StudyComparison] = ()


def read_in_words(table: EmbedderTable) -> str:
    """The result of one embedder as a short paragraph.

    A pair differs from chance where its Holm-corrected p is below 0.05.
    """
    name = one_line(table.embedder)
    tested = {pair: cell for pair, cell in table.pairs.items() if cell.n}
    certain = {pair: cell for pair, cell in tested.items() if (cell.p_holm or 0.0) < ALPHA}
    above = [pair for pair, cell in certain.items() if (cell.rate or 0.0) > CHANCE]
    below = [pair for pair in certain if pair not in above]
    open_ = [pair for pair in tested if pair not in certain]
    sentences = [_say_above(name, above, len(tested))]
    if below:
        sentences.append(
            f"In {_pairs(below)} they chose the less similar clip more often than chance: "
            f"there {name} and listeners disagree."
        )
    if open_:
        many = len(open_) > 1
        sentences.append(
            f"For {_pairs(open_)} the answers do not differ detectably from chance, "
            f"which does not show that {'they are' if many else 'it is'} at chance; see the "
            f"interval{'s' if many else ''}."
        )
    sentences.append(_say_range(table, tested))
    if len(tested) < len(BIN_PAIRS):
        empty = [pair for pair in BIN_PAIRS if pair not in tested]
        sentences.append(f"There are no responses for {_pairs(empty)}.")
    return " ".join(filter(None, sentences))


def _say_above(name: str, above: list[tuple[int, int]], tested: int) -> str:
    what = f"listeners chose the clip that {name} calls more similar more often than chance"
    if not above:
        return f"In no bin pair did {what.replace('chose', 'choose')}."
    if len(above) == tested:
        every = f"all {_NUMBERS[tested]} bin pairs" if tested > 1 else "the one bin pair with responses"
        return f"In {every} {what}."
    return f"In {_NUMBERS[len(above)]} of {_NUMBERS[tested]} bin pairs ({_pairs(above)}) {what}."


def _say_range(table: EmbedderTable, tested: Mapping[tuple[int, int], Cell]) -> str:
    least = min(tested, key=lambda pair: (tested[pair].rate or 0.0, pair))
    most = max(tested, key=lambda pair: (tested[pair].rate or 0.0, pair))
    total = table.totals[1]
    first = f"Clips of bin 1 were preferred to any other in {percent(total)} % of {total.n} trials. " if total.n else ""
    if least == most:
        return first.strip()
    return (
        f"{first}Agreement runs from {percent(tested[least])} % (bins {_bins(least)}) "
        f"to {percent(tested[most])} % (bins {_bins(most)})."
    )


def _bins(pair: tuple[int, int]) -> str:
    return f"{pair[0]} and {pair[1]}"


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    named = [f"{high}–{low}" for high, low in pairs]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + f" and {named[-1]}"
    return f"bin pair{'s' if len(named) > 1 else ''} {listed}"


def exclusions_in_words(responses: Responses) -> str:
    """What was read, what was left out and why, what remains."""
    read = f"{count(responses.rows_read, 'response')} of {count(responses.listeners_read, 'listener')} were read."
    left = [item for item in responses.exclusions if item.rows]
    if not responses.plan.rules and not left:
        return f"{read} No rule of exclusion holds, so all of them count."
    if not responses.exclusions:
        return f"{read} The file does not say who is to be left out, so all of them count."
    if not left:
        return f"{read} None had to be left out."
    said = [
        f"{count(item.rows, 'response')}"
        + (f" and with them {count(item.listeners, 'listener')}" if item.listeners else "")
        + f" ({item.reason})"
        for item in left
    ]
    remain = f"{count(len(responses.frame), 'response')} of {count(responses.listeners, 'listener')} remain."
    return f"{read} Left out, in this order: {'; '.join(said)}. {remain}"


def rules_in_words(responses: Responses, source: str) -> list[str]:
    """The rules that hold, where they come from, and those that could not be applied."""
    if not source:
        return []
    rules = ", ".join(name.replace("_", " ") for name in responses.plan.rules) or "none"
    return [
        f"Rules of exclusion ({source}): {rules}.",
        *(f"The rule {name} could not be applied, because {why}." for name, why in responses.not_applied.items()),
    ]


def to_html(report: Report) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        stars=stars,
        p=write_p,
        interval=write_interval,
        wilson=write_wilson,
        line=one_line,
        difference=write_difference,
        newcombe=write_newcombe,
        icc=write_icc,
        figure=write_figure,
    )
    findings = report.findings or compute_results(report.responses, report.bins)
    sections = [
        {
            "table": table,
            "bins": report.bins.get(name),
            "reading": read_in_words(table),
            "histogram": _histogram(report.bins.get(name), index),
            "forest": Markup(draw_forest(table, f"forest{index}", findings.dependence.get(name, ()))),
        }
        for index, (name, table) in enumerate(report.tables.items())
    ]
    return environment.get_template("report.html.j2").render(
        rehearsal_said=SIMULATED_NOTICE,
        title=one_line(report.study) or "Listening study",
        report=report,
        responses=report.responses,
        sections=sections,
        excluded=exclusions_in_words(report.responses),
        rules_said=rules_in_words(report.responses, report.rules_from),
        registered=report.registered,
        flow=report.flow,
        flow_figure=Markup(draw_participant_flow(report.flow)) if report.flow else None,
        rungs=report.rungs,
        ladder_pairs=BIN_PAIRS,
        ladder_reading=in_words(list(report.rungs), ALPHA) if report.rungs else "",
        many_answers=many_answers(report.responses),
        methods=methods(report.responses, report.tables, report.bins, findings, report.rules_from),
        curves=Markup(draw_curves(findings.curves)) if findings.curves else "",
        curves_z=Markup(draw_curves(findings.curves, as_z=True, prefix="curvesz")) if findings.curves else "",
        scale_words=scale_in_words,
        reliability_words=reliability_in_words(findings.reliability),
        warnings=warnings(findings, len(report.registered.departures) if report.registered else 0),
        beside=report.beside,
        here={name.lower() for name in report.tables},
        findings=findings,
        conclusions={name: conclude(cells) for name, cells in findings.dependence.items()},
        versions=versions(),
        legend=LEGEND,
        rows=ROWS,
        columns=COLUMNS,
        rows_of=rows_of,
        sided=sidedness(report.tables),
        colours=BIN_COLOURS,
    )


def _histogram(bins: Bins | None, index: int) -> Markup | None:
    return Markup(draw_histogram(bins, f"histogram{index}")) if bins else None
