"""Participant flow: how many people arrived, consented, were screened, finished and are analysed, and who left when.

Follows the CONSORT diagram (Schulz, Altman and Moher 2010, BMJ 340, c332): a column of stages, and at each stage the
people who went no further, by reason. Stages before the analysis come from listeners.csv next to the responses and
from export.json; without them the flow starts with the listeners in the file of responses.
Conventions: numbers are listeners (rows of listeners.csv) unless a line says responses; a listener excluded by several
rules is counted under the first; arrivals count how often the information page was shown, not people.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.presentation.formatting import count
from analysis.report.listeners_file import read_listeners
from analysis.responses.exclusions import Mask, mask_of, rules_in_force
from analysis.responses.load import Responses
from embeddings.errors import RootnoteError
from study.export_manifest import ExportManifest, read_manifest

FINISHED = ("finished", "submitted", "approved", "paid")
# Final states of people who left, in words; people in other states are still taking part.
LEFT = {
    "screened_out": "failed the prescreen", "technical": "could not play the audio", "withdrawn": "withdrew",
    "returned": "returned the task", "expired": "did not return",
}  # fmt: skip
UNDER_WAY = "still taking part"


@dataclass(frozen=True)
class Stage:
    """A stage: its name, how many people reached it, further lines, and who went no further.

    `left` has pairs of a reason and a number as text.
    """

    name: str
    number: int
    lines: tuple[str, ...] = ()
    left_name: str = ""
    left: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ParticipantFlow:
    """The stages from the first to the analysis, and notes on the numbers."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()


def participant_flow(read: Responses) -> ParticipantFlow:
    """The flow that led to a file of responses.

    listeners.csv and export.json next to the file are used if they belong to it; if not, a note says why.
    """
    notes: list[str] = []
    listeners = read_listeners(read, ("listener", "state", "prescreen"))
    people = listeners.rows
    if listeners.problem:
        notes.append(f"{listeners.problem}. The flow therefore starts with the listeners in {read.path.name}.")
    exported = _export_of(read)
    erased = exported.erased if exported else 0
    if erased:
        notes.append(
            f"{count(erased, 'more person', 'more people')} took part and had all of their answers erased; they are in "
            "no file."
        )
    stages: list[Stage] = []
    if people:
        stages += _before_analysis(people, exported.arrived if exported else {}, erased)
        finished = {person["listener"] for person in people if person["state"] in FINISHED}
    else:
        finished = set(map(str, read.everything["listener"].unique()))
    left = _left_out(read, finished)
    if people:
        stages.append(Stage("Finished", len(finished), (), "Excluded from the analysis", left))
    else:
        responses = count(read.rows_read, "response")
        stages.append(Stage("Listeners in the file", len(finished), (responses,), "Excluded from the analysis", left))
    stages.append(_analysed(read, finished))
    return ParticipantFlow(tuple(stages), tuple(notes))


def _export_of(read: Responses) -> ExportManifest | None:
    """The export's manifest, if the file is as it was exported."""
    try:
        exported = read_manifest(read.path.resolve().parent)
    except RootnoteError:
        return None  # reported where the file is compared with the export
    return exported if exported and read.sha256 in exported.files.values() else None


def _before_analysis(people: Sequence[Mapping[str, str]], arrived: Mapping[str, int], erased: int = 0) -> list[Stage]:
    """The stages before the analysis: arrived (if counted), consented, passed the prescreen."""
    passed = [person for person in people if person["prescreen"] == "passed"]
    others = Counter(_why_left(person["state"]) for person in people if person["prescreen"] != "passed")
    midway = Counter(_why_left(person["state"]) for person in passed if person["state"] not in FINISHED)
    stages = []
    if arrived:
        informed = arrived.get("informed", 0)
        left = [("study was full", arrived["not_let_in"])] if arrived.get("not_let_in") else []
        left += [("came by a damaged link", arrived["damaged_link"])] if arrived.get("damaged_link") else []
        left += [("had their answers erased", erased)] if erased else []
        began = len(people) + erased
        left += [("did not consent", informed - began)] if informed > began else []
        stages.append(
            Stage(
                "Arrived", sum(arrived.values()), ("times the page was opened",), "Did not start", _nonzero(dict(left))
            )
        )
    stages.append(Stage("Consented", len(people), (), "Did not pass the prescreen", _nonzero(others)))
    stages.append(Stage("Passed the prescreen", len(passed), (), "Did not finish", _nonzero(midway)))
    return stages


def _why_left(state: str) -> str:
    return LEFT.get(state, UNDER_WAY)


def _nonzero(numbers: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{number:,}") for name, number in numbers.items() if number)


def _left_out(read: Responses, finished: set[str]) -> tuple[tuple[str, str], ...]:
    """By rule: finished listeners with no responses left, and single responses of listeners who remain."""
    frame = read.everything
    rows = np.asarray(frame["kind"] == "scored", np.bool_) if "kind" in frame else np.ones(len(frame), np.bool_)
    people = finished & _listeners(frame, rows)
    lines = [("no scored answer in the file", f"{len(finished - people):,}")] if finished - people else []
    for rule in rules_in_force(frame, read.plan):
        mask = mask_of(frame, rule, read.plan.thresholds)
        if mask is None:
            continue
        staying = finished & _listeners(frame, rows & ~mask)
        single = int((rows & mask & np.asarray(frame["listener"].isin(staying), np.bool_)).sum())
        lost, people, rows = len(people - staying), staying, rows & ~mask
        numbers = [f"{lost:,}"] * bool(lost) + [count(single, "response")] * bool(single)
        if numbers:
            lines.append((rule.replace("_", " "), " and ".join(numbers)))
    return tuple(lines)


def _listeners(frame: pd.DataFrame, rows: Mask) -> set[str]:
    return set(map(str, frame["listener"][rows].unique()))


def _analysed(read: Responses, finished: set[str]) -> Stage:
    lines = [count(len(read.frame), "response")]
    beyond = set(map(str, read.frame["listener"].unique())) - finished
    if beyond:
        lines.append(f"{len(beyond):,} of them had not finished")
    if len(read.embedders) > 1:
        for name, own in read.frame.groupby("embedder", observed=True):
            lines.append(f"{name}: {own['listener'].nunique():,}, {count(len(own), 'response')}")
    return Stage("Analysed", read.listeners, tuple(lines))


def as_data(flow: ParticipantFlow) -> list[Mapping[str, Any]]:
    """The flow as plain data."""
    return [
        {"stage": stage.name, "number": stage.number, "lines": list(stage.lines), "left": dict(stage.left)}
        for stage in flow.stages
    ]


def in_words(flow: ParticipantFlow) -> str:
    """The flow as one sentence, for people who cannot see the figure."""
    stages = []
    for stage in flow.stages:
        left = ", ".join(f"{number} {name}" for name, number in stage.left)
        stages.append(f"{stage.name}: {stage.number:,}" + (f" ({stage.left_name.lower()}: {left})" if left else ""))
    return "; ".join(stages) + "."


# ------------------------------------------------------------------ the figure

WIDTH, MAIN, SIDE_AT, LINE, PAD, GAP = 580, 236, 296, 19, 11, 30
SIDE = WIDTH - SIDE_AT - 1


def draw_participant_flow(flow: ParticipantFlow, prefix: str = "flow", ink: str = "currentColor") -> str:
    """The flow as SVG: stages in the left column, people who left in the right.

    Args:
        prefix: of ids, so that several figures can share a page.
        ink: colour of lines and text.
    """
    parts: list[str] = []
    top, middle = 1.0, MAIN / 2
    for index, stage in enumerate(flow.stages):
        height = _box(parts, 1, top, MAIN, [f"{stage.name}: {stage.number:,}", *stage.lines], middle)
        bottom = top + height
        if index == len(flow.stages) - 1:
            top = bottom
            break
        gap = GAP
        if stage.left:
            lines = [stage.left_name, *(f"{number}  {name}" for name, number in stage.left)]
            wrapped = [piece for line in lines for piece in textwrap.wrap(line, 38, subsequent_indent="    ") or [""]]
            side = _height(wrapped)
            gap = int(side + 16)
            _box(parts, SIDE_AT, bottom + 8, SIDE, wrapped, None)
            across = bottom + 8 + side / 2
            parts.append(_arrow(middle, across, SIDE_AT - 2, across, prefix))
        parts.append(_arrow(middle, bottom, middle, bottom + gap - 2, prefix))
        top = bottom + gap
    label = _escape(f"Participant flow. {in_words(flow)}")
    head = (
        f'<marker id="{prefix}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{ink}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {WIDTH} {top + 1:.0f}" width="{WIDTH}" height="{top + 1:.0f}" '
        f'font-family="system-ui, Arial, sans-serif" font-size="14" fill="{ink}" stroke="none"><defs>{head}</defs>'
        + "".join(parts).replace("INK", ink)
        + "</svg>\n"
    )


def _height(lines: Sequence[str]) -> float:
    return len(lines) * LINE + 2 * PAD - 4


def _box(parts: list[str], x: float, y: float, width: float, lines: Sequence[str], middle: float | None) -> float:
    """A box with its first line bold, centred on `middle` or set to the left; returns its height."""
    height = _height(lines)
    faint = "" if middle else ' stroke-opacity="0.45"'
    parts.append(
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="none" stroke="INK" '
        f'stroke-width="1.2"{faint}/>'
    )
    for number, line in enumerate(lines):
        at = f'x="{middle:g}" text-anchor="middle"' if middle else f'x="{x + PAD:g}"'
        indent = f' dx="{14 if line.startswith("    ") else 0}"' if not middle else ""
        weight = ' font-weight="600"' if not number else ""
        baseline = y + PAD + number * LINE + 11
        parts.append(f'<text {at} y="{baseline:g}"{indent}{weight}>{_escape(line.strip())}</text>')
    return height


def _arrow(x1: float, y1: float, x2: float, y2: float, prefix: str) -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="INK" stroke-width="1.2" '
        f'marker-end="url(#{prefix}-head)"/>'
    )


def _escape(text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
