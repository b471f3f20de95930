"""The export: what leaves the server for the analysis.

`responses` has one row per answered trial, with the columns of study.columns; `listeners` has one row per assignment;
export.json has the SHA-256 of every file, so that the analysis can detect an edited one. People appear under
pseudonyms only. No file contains completion codes, because a marketplace can link them to a person.
"""

from __future__ import annotations

import csv
import importlib
import io
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from embeddings.provenance import Provenance, replacing, write_table
from server.assignments.steps import effective_state
from server.audit import hash_chain
from server.db.enums import RunVerification
from server.db.models import (
    Answer,
    ArrivalCount,
    Assignment,
    AssignmentState,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
)
from server.export.computed import ResponseContext, iso_time
from study.columns import LISTENER_COLUMNS, RESPONSE_COLUMNS, arrow_schema
from study.config import Study
from study.export_manifest import write_manifest
from study.preregistration.document import read_frozen
from study.prescreen.steps import graded_steps
from study.questions.base import BaseQuestion
from study.trial_plan import Plan

FORMULA_SIGNS = frozenset("=+-@|\u2212")


@dataclass(frozen=True)
class ExportResult:
    """The files that were written, and the numbers of responses and of completed runs that count."""

    csv: Path
    parquet: Path
    listeners: Path
    manifest: Path
    responses: int
    completed: int


def export(session: Session, study: Study, plan: Plan, folder: Path, *, rehearsal: bool = False) -> ExportResult:
    """Write responses.csv, responses.parquet, listeners.csv and export.json, each atomically, for their owner only.

    Args:
        rehearsal: whether the listeners were simulated; recorded in export.json.
    """
    rows = list(response_rows(session, study, plan))
    people = listener_rows(session, study)
    paths = [folder / name for name in ("responses.csv", "responses.parquet", "listeners.csv")]
    write_csv(paths[0], tuple(RESPONSE_COLUMNS), rows, private=True)
    provenance = Provenance("responses", {"study": study.config.study.name}, {"schedule": plan.schedule_fingerprint})
    write_table(paths[1], pa.Table.from_pylist(rows, schema=arrow_schema(RESPONSE_COLUMNS)), provenance, private=True)
    write_csv(paths[2], tuple(people[0]) if people else tuple(LISTENER_COLUMNS), people, private=True)
    counted = [row for row in rows if row["verification"] != RunVerification.UNCONFIRMED]
    completed = len({row["assignment"] for row in counted if row["completed"]})
    frozen = read_frozen(study.folder)
    manifest = write_manifest(
        folder,
        study.config.study.name,
        plan.schedule_fingerprint,
        frozen.hash if frozen else "",
        paths,
        arrived(session),
        erased(session),
        str(hash_chain.end(session)),
        rehearsal=rehearsal,
        leaks=plan.leaks,
    )
    manifest.chmod(0o600)
    return ExportResult(paths[0], paths[1], paths[2], manifest, len(rows), completed)


def arrived(session: Session) -> dict[str, int]:
    """Number of arrivals, by the page that was shown."""
    counted = session.execute(select(ArrivalCount.shown, func.sum(ArrivalCount.number)).group_by(ArrivalCount.shown))
    return {shown: int(number) for shown, number in counted}


def erased(session: Session) -> int:
    """Number of runs whose answers were erased; no file contains them."""
    return session.scalar(select(func.count()).select_from(Assignment).where(Assignment.erased_at.is_not(None))) or 0


def response_rows(session: Session, study: Study, plan: Plan) -> Iterable[dict[str, Any]]:
    """The rows of `responses`, in the order of lists and positions, with the columns of study.columns."""
    query = select(Response, Assignment).join(Assignment, Response.assignment_id == Assignment.id)
    ordered = query.order_by(Assignment.list_number, Assignment.id, Response.position)
    # A listener who failed a step that is not required may continue.
    failed = {assignment for (assignment, _), result in _prescreen_results(session).items() if not result.passed}
    readers = {name: _reader(name, column.source) for name, column in RESPONSE_COLUMNS.items()}
    for response, assignment in session.execute(ordered):
        trial = plan.lists[assignment.list_number][response.position - 1]
        passed = assignment.screened_at is not None and assignment.id not in failed
        context = ResponseContext(study, trial, response, assignment, passed)
        yield {name: read(context) for name, read in readers.items()}


def _reader(name: str, source: str) -> Callable[[ResponseContext], Any]:
    """The function that finds a column's value."""
    match source:
        case "trial":
            return lambda context: getattr(context.trial, name)
        case "response":
            return lambda context: getattr(context.response, name)
    module, _, function = source.partition(":")
    found: Callable[[ResponseContext], Any] = getattr(importlib.import_module(module), function)
    return found


def listener_rows(session: Session, study: Study) -> list[dict[str, Any]]:
    """One row per assignment, with the answers to the questions as q_<id>."""
    rows = []
    answers = _answers(session)
    counts = _counts(session)
    places = set(session.scalars(select(Place.assignment_id).where(Place.assignment_id.is_not(None))))
    tried = select(PrescreenItem.assignment_id, func.max(PrescreenItem.attempt)).group_by(PrescreenItem.assignment_id)
    attempts = {row[0]: row[1] for row in session.execute(tried)}
    results = _prescreen_results(session)
    not_erased = select(Assignment).where(Assignment.erased_at.is_(None))
    for assignment in session.scalars(not_erased.order_by(Assignment.id)):
        count, late = counts.get(assignment.id, (0, 0))
        ended = assignment.ended_at
        row = {
            "assignment": assignment.pseudonym,
            "listener": assignment.listener.pseudonym,
            "list": assignment.list_number,
            "state": effective_state(assignment, assignment.id in places).value,
            "prescreen": _prescreen_outcome(assignment),
            "attempts": attempts.get(assignment.id, 0),
            "responses": count,
            "late_responses": late,
            "duration_seconds": round((ended - assignment.consented_at).total_seconds(), 1) if ended else None,
            "consent_version": assignment.consent_version,
            "language": assignment.language,
            "consented_at": iso_time(assignment.consented_at),
        }
        for step in graded_steps(study.config):
            result = results.get((assignment.id, step))
            row[f"{step}_passed"] = None if result is None else int(result.passed)
            row[f"{step}_correct"] = None if result is None else result.correct
        given = answers.get(assignment.id, {})
        rows.append(row | {f"q_{q.id}": _exported(q, given.get(q.id, "")) for q in study.config.questions})
    return rows


def _prescreen_outcome(assignment: Assignment) -> str:
    if assignment.screened_at is not None:
        return "passed"
    return "failed" if assignment.state is AssignmentState.SCREENED_OUT else "open"


def _prescreen_results(session: Session) -> dict[tuple[int, str], PrescreenResult]:
    """The result of the last attempt at each step, by assignment and step."""
    results = session.scalars(select(PrescreenResult).order_by(PrescreenResult.attempt))
    return {(result.assignment_id, result.kind): result for result in results}


def _answers(session: Session) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for answer in session.scalars(select(Answer)):
        found.setdefault(answer.assignment_id, {})[answer.question] = answer.value
    return found


def _counts(session: Session) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for assignment_id, late in session.execute(select(Response.assignment_id, Response.late)):
        count, lates = found.get(assignment_id, (0, 0))
        found[assignment_id] = (count + 1, lates + late)
    return found


def _exported(question: BaseQuestion, answer: str) -> str:
    return answer if question.numeric else guarded(answer)  # a number may be below zero


def guarded(text: str) -> str:
    """A text that a spreadsheet does not run as a formula: a possible formula gets a leading apostrophe.

    Spreadsheets skip invisible characters and spaces at the beginning, and read full-width signs as plain ones.
    """
    visible = text.lstrip("".join({letter for letter in text if _is_invisible(letter)}))
    first = unicodedata.normalize("NFKC", visible[:1])[:1]
    return f"'{text}" if first in FORMULA_SIGNS or text[:1] in ("\t", "\r", "\n") else text


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf", "Mn", "Zs")


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]], *, private: bool = False) -> None:
    """Write a table as CSV, atomically; `private`: readable by its owner only."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path, private=private) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
