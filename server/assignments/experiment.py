"""The context of the use cases of an assignment, apart from the database, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from server.db.models import Assignment
from study.config import StudyConfig
from study.stimuli.storage import LocalStorage, Storage
from study.trial_plan import Plan
from study.trials import PlannedTrial

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Experiment:
    """The study as one server runs it: configuration, trial lists, clock and storage of clips."""

    config: StudyConfig
    plan: Plan
    clock: Clock = utc_now
    storage: Storage = field(default_factory=LocalStorage)
    rehearsal: bool = False

    @property
    def lease(self) -> timedelta:
        """How long a place stays reserved after each step."""
        return timedelta(minutes=self.config.recruiter.reservation_minutes)

    def trials(self, assignment: Assignment) -> list[PlannedTrial]:
        """The trial list of an assignment, in the order of its positions."""
        return self.plan.lists[assignment.list_number]

    def trial(self, assignment: Assignment, position: int) -> PlannedTrial:
        """The trial at a position (from 1)."""
        return self.trials(assignment)[position - 1]


class StepRefusedError(Exception):
    """A listener's request is refused; the message is one sentence for the listener."""


class AlreadyTakenPartError(StepRefusedError):
    """This person already has an assignment."""


class NoPlaceError(StepRefusedError):
    """No place is free."""
