"""The columns of `responses` that the export computes; study.columns names a function here as a column's source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from server.db.models import COMPLETED, Assignment, Response
from study.config import Study
from study.trials import PlannedTrial


@dataclass(frozen=True)
class ResponseContext:
    """All that the columns of one response are taken from."""

    study: Study
    trial: PlannedTrial
    response: Response
    assignment: Assignment
    passed_prescreen: bool


def study_name(row: ResponseContext) -> str:
    return row.study.config.study.name


def assignment(row: ResponseContext) -> str:
    return row.assignment.pseudonym


def listener(row: ResponseContext) -> str:
    return row.assignment.listener.pseudonym


def trial_name(row: ResponseContext) -> str:
    """The trial as list-position."""
    return f"{row.assignment.list_number}-{row.response.position}"


def agreed(row: ResponseContext) -> int:
    return int(row.response.choice == row.trial.high_side)


def passed_prescreen(row: ResponseContext) -> int:
    return int(row.passed_prescreen)


def completed(row: ResponseContext) -> int:
    return int(row.assignment.state in COMPLETED)


def verification(row: ResponseContext) -> str:
    return row.assignment.verification.value


def answered_at(row: ResponseContext) -> str:
    return iso_time(row.response.answered_at)


def iso_time(moment: datetime) -> str:
    """A time in UTC, ISO 8601, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
