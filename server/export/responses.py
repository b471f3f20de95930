"""Responses: what leaves the server for the analysis.

`responses` has one row per answered trial, in the columns of the public contract, under pseudonyms only;
`listeners` has one row per assignment; export.json has the SHA-256 of every file, by which an edited one is told.
Completion codes are in none of them, because a marketplace can join them to a person.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from embeddings.provenance import Provenance, replacing, write_table
from server.assignments.steps import effective_state
from server.assignments.telemetry import TELEMETRY
from server.audit import hash_chain
from server.db.models import (
    COMPLETED,
    Answer,
    ArrivalCount,
    Assignment,
    AssignmentState,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
)
from study.config import Study
from study.export_manifest import write_manifest
from study.preregistration.document import read_frozen
from study.prescreen.steps import graded_steps
from study.questions.base import BaseQuestion
from study.trial_plan import Plan

COLUMN_TYPES: dict[str, pa.DataType] = {
    "study": pa.string(),
    "embedder": pa.string(),
    "assignment": pa.string(),
    "listener": pa.string(),
    "trial": pa.string(),
    "position": pa.int64(),
    "kind": pa.string(),
    "prompt": pa.int64(),
    "bin_high": pa.int64(),
    "bin_low": pa.int64(),
    "clip_high": pa.int64(),
    "clip_low": pa.int64(),
    "similarity_high": pa.float64(),
    "similarity_low": pa.float64(),
    "high_side": pa.string(),
    "choice": pa.string(),
    "agreed": pa.int8(),
    "response_ms": pa.int64(),
    "plays_x": pa.int64(),
    "plays_a": pa.int64(),
    "plays_b": pa.int64(),
    "passed_prescreen": pa.int8(),
    "completed": pa.int8(),
    "answered_at": pa.string(),
    # The public contract ends here; what follows is telemetry.
    "seconds_x": pa.float64(),
    "seconds_a": pa.float64(),
    "seconds_b": pa.float64(),
    "play_order": pa.string(),
    "focus_losses": pa.int64(),
    "sample_rate": pa.int64(),
    "output_latency_ms": pa.float64(),
    "agent_class": pa.string(),
    "confidence": pa.int64(),
}
SCHEMA = pa.schema(COLUMN_TYPES)
COLUMNS = tuple(COLUMN_TYPES)


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how much."""

    csv: Path
    parquet: Path
    listeners: Path
    manifest: Path
    responses: int
    completed: int


def export(session: Session, study: Study, plan: Plan, folder: Path, *, rehearsal: bool = False) -> ExportResult:
    """Write responses.csv, responses.parquet, listeners.csv and export.json, each whole or not at all.

    Args:
        rehearsal: whether the listeners were simulated, which export.json then says.
    """
    rows = list(response_rows(session, study, plan))
    people = listener_rows(session, study)
    paths = [folder / name for name in ("responses.csv", "responses.parquet", "listeners.csv")]
    write_csv(paths[0], COLUMNS, rows)
    provenance = Provenance("responses", {"study": study.config.study.name}, {"schedule": plan.schedule_fingerprint})
    write_table(paths[1], pa.Table.from_pylist(rows, schema=SCHEMA), provenance)
    write_csv(paths[2], tuple(people[0]) if people else LISTENER_COLUMNS, people)
    completed = len({row["assignment"] for row in rows if row["completed"]})
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
    )
    return ExportResult(paths[0], paths[1], paths[2], manifest, len(rows), completed)


def arrived(session: Session) -> dict[str, int]:
    """How often somebody arrived, by what they were shown."""
    counted = session.execute(select(ArrivalCount.shown, func.sum(ArrivalCount.number)).group_by(ArrivalCount.shown))
    return {shown: int(number) for shown, number in counted}


def erased(session: Session) -> int:
    """How many runs were erased: of them nothing is told."""
    return session.scalar(select(func.count()).select_from(Assignment).where(Assignment.erased_at.is_not(None))) or 0


def response_rows(session: Session, study: Study, plan: Plan) -> Iterable[dict[str, Any]]:
    """The rows of `responses`, in the order of lists and positions."""
    query = select(Response, Assignment).join(Assignment, Response.assignment_id == Assignment.id)
    ordered = query.order_by(Assignment.list_number, Assignment.id, Response.position)
    # Somebody may go on who failed a step that is not required.
    short = {assignment for (assignment, _), result in _screened(session).items() if not result.passed}
    for response, assignment in session.execute(ordered):
        trial = plan.lists[assignment.list_number][response.position - 1]
        yield {
            "study": study.config.study.name,
            "embedder": trial.embedder,
            "assignment": assignment.pseudonym,
            "listener": assignment.listener.pseudonym,
            "trial": f"{assignment.list_number}-{response.position}",
            "position": response.position,
            "kind": trial.kind,
            "prompt": trial.prompt,
            "bin_high": trial.bin_high,
            "bin_low": trial.bin_low,
            "clip_high": trial.clip_high,
            "clip_low": trial.clip_low,
            "similarity_high": trial.similarity_high,
            "similarity_low": trial.similarity_low,
            "high_side": trial.high_side,
            "choice": response.choice,
            "agreed": int(response.choice == trial.high_side),
            "response_ms": response.response_ms,
            "plays_x": response.plays_x,
            "plays_a": response.plays_a,
            "plays_b": response.plays_b,
            "passed_prescreen": int(assignment.screened_at is not None and assignment.id not in short),
            "completed": int(assignment.state in COMPLETED),
            "answered_at": _iso(response.answered_at),
            **{name: getattr(response, name) for name in (*TELEMETRY, "confidence")},
        }


LISTENER_COLUMNS = (
    "assignment", "listener", "list", "state", "prescreen", "attempts", "responses", "late_responses",
    "duration_seconds", "consent_version", "language", "consented_at",
)  # fmt: skip


def listener_rows(session: Session, study: Study) -> list[dict[str, Any]]:
    """One row per assignment, with the answers to the questions as q_<id>."""
    rows = []
    answers = _answers(session)
    counts = _counts(session)
    held = set(session.scalars(select(Place.assignment_id).where(Place.assignment_id.is_not(None))))
    tried = select(PrescreenItem.assignment_id, func.max(PrescreenItem.attempt)).group_by(PrescreenItem.assignment_id)
    attempts = {row[0]: row[1] for row in session.execute(tried)}
    screened = _screened(session)
    kept = select(Assignment).where(Assignment.erased_at.is_(None))
    for assignment in session.scalars(kept.order_by(Assignment.id)):
        count, late = counts.get(assignment.id, (0, 0))
        ended = assignment.ended_at
        row = {
            "assignment": assignment.pseudonym,
            "listener": assignment.listener.pseudonym,
            "list": assignment.list_number,
            "state": effective_state(assignment, assignment.id in held).value,
            "prescreen": _prescreen_outcome(assignment),
            "attempts": attempts.get(assignment.id, 0),
            "responses": count,
            "late_responses": late,
            "duration_seconds": round((ended - assignment.consented_at).total_seconds(), 1) if ended else None,
            "consent_version": assignment.consent_version,
            "language": assignment.language,
            "consented_at": _iso(assignment.consented_at),
        }
        for step in graded_steps(study.config):
            result = screened.get((assignment.id, step))
            row[f"{step}_passed"] = None if result is None else int(result.passed)
            row[f"{step}_correct"] = None if result is None else result.correct
        given = answers.get(assignment.id, {})
        rows.append(row | {f"q_{q.id}": _exported(q, given.get(q.id, "")) for q in study.config.questions})
    return rows


def _prescreen_outcome(assignment: Assignment) -> str:
    if assignment.screened_at is not None:
        return "passed"
    return "failed" if assignment.state is AssignmentState.SCREENED_OUT else "open"


def _screened(session: Session) -> dict[tuple[int, str], PrescreenResult]:
    """What came of the last attempt at each step."""
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


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _exported(question: BaseQuestion, answer: str) -> str:
    return answer if question.numeric else guarded(answer)  # a number may be below zero


def guarded(text: str) -> str:
    """A listener's own words, made harmless to a spreadsheet that would run them as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write a table as CSV, whole or not at all."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
