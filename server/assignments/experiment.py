"""What the use cases of an assignment know besides the database, and why they refuse a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from server.db.models import (
    Assignment,
)
from study.config import StudyConfig
from study.stimuli.storage import LocalStorage, Storage
from study.trial_plan import Plan
from study.trials import PlannedTrial

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Experiment:
    """What the use-cases need to know besides the database."""

    config: StudyConfig
    plan: Plan
    clock: Clock = utc_now
    storage: Storage = field(default_factory=LocalStorage)
    rehearsal: bool = False

    @property
    def lease(self) -> timedelta:
        return timedelta(minutes=self.config.recruiter.reservation_minutes)

    def trials(self, assignment: Assignment) -> list[PlannedTrial]:
        return self.plan.lists[assignment.list_number]

    def trial(self, assignment: Assignment, position: int) -> PlannedTrial:
        return self.trials(assignment)[position - 1]


class StepRefusedError(Exception):
    """What was sent cannot be taken; the message is one plain sentence for the listener."""


class AlreadyTakenPartError(StepRefusedError):
    """This person already has an assignment."""


class NoPlaceError(StepRefusedError):
    """No place is free."""
