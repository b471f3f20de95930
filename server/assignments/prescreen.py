"""Prescreen: the steps that an assignment passes before its trials.

Items are drawn when an attempt starts and stored as numbers; their sounds are rendered from these on each request, and
answers are graded here. Functions take a Session first and never commit. server.assignments.lifecycle decides what the
outcome means for the assignment.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.db.models import Assignment, PrescreenItem, PrescreenResult
from server.identity.tokens import random_token
from study.config import StudyConfig
from study.prescreen.item import encode_wav
from study.prescreen.registry import STEPS
from study.prescreen.steps import count_right, draw_attempt, step_config, stored_item


class PrescreenStatus(enum.Enum):
    """The state of an assignment's prescreen."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class ItemAnswer:
    """A listener's answer to one item; attempts and items count from 1."""

    kind: str
    attempt: int
    item: int
    answer: int


class ItemRefusedError(Exception):
    """The item is not this listener's or not due yet, or its sound cannot have been heard; the message says which."""


def begin(session: Session, config: StudyConfig, assignment: Assignment) -> PrescreenStatus:
    """Start the first step; PASSED if the study has none."""
    return _start_next_step(session, config, assignment)


def current_item(session: Session, assignment: Assignment) -> PrescreenItem:
    """The item that is to be answered now."""
    return due_items(session, assignment)[0]


def due_items(session: Session, assignment: Assignment) -> Sequence[PrescreenItem]:
    """The unanswered items of the current attempt, in order."""
    query = select(PrescreenItem).where(PrescreenItem.assignment_id == assignment.id, PrescreenItem.answer.is_(None))
    return session.scalars(query.order_by(PrescreenItem.item)).all()


def take_answer(
    session: Session,
    config: StudyConfig,
    assignment: Assignment,
    given: ItemAnswer,
    now: datetime,
    simulated: float = 0.0,
) -> PrescreenStatus:
    """Record the answer to one item; after the last of an attempt, continue, start another attempt, or fail.

    A second answer to an item is ignored.

    Args:
        simulated: seconds that a simulated listener adds to the time since the item was due.

    Raises:
        ItemRefusedError: if the item does not belong to this listener, is not due yet, or has been due for less time
            than its sound lasts.
    """
    items = _items(session, assignment, given.kind, given.attempt)
    if not 1 <= given.item <= len(items):
        raise ItemRefusedError("That sound is not one of yours.")
    item = items[given.item - 1]
    if item.answer is not None:
        return PrescreenStatus.OPEN
    if item.id != current_item(session, assignment).id:
        raise ItemRefusedError("That sound comes later.")
    due = _due_since(session, assignment)
    # A clock that was set back in between has measured nothing.
    if due <= now and (now - due).total_seconds() + simulated < stored_item(item.kind, item.params).seconds:
        raise ItemRefusedError("Please listen to the sound to the end before you answer.")
    item.answer, item.answered_at = given.answer, now
    session.flush()
    if given.item < len(items):
        return PrescreenStatus.OPEN
    return _finish_attempt(session, config, assignment, items, now)


def render(item: PrescreenItem) -> bytes:
    """The sound of an item, as WAV."""
    return encode_wav(stored_item(item.kind, item.params).render())


def _due_since(session: Session, assignment: Assignment) -> datetime:
    """When the current item was due: when the one before was answered, or at the start."""
    answered = select(func.max(PrescreenItem.answered_at)).where(PrescreenItem.assignment_id == assignment.id)
    return session.scalar(answered) or assignment.consented_at


def _items(session: Session, assignment: Assignment, kind: str, attempt: int) -> Sequence[PrescreenItem]:
    query = select(PrescreenItem).where(PrescreenItem.assignment_id == assignment.id)
    query = query.where(PrescreenItem.kind == kind, PrescreenItem.attempt == attempt)
    return session.scalars(query.order_by(PrescreenItem.item)).all()


def _finish_attempt(
    session: Session, config: StudyConfig, assignment: Assignment, items: Sequence[PrescreenItem], now: datetime
) -> PrescreenStatus:
    kind, attempt = items[0].kind, items[0].attempt
    settings = step_config(config, kind)
    answers = [cast(int, item.answer) for item in items]
    correct = count_right([stored_item(kind, item.params) for item in items], answers)
    passed = correct >= min(settings.needed, len(items)) or not STEPS[kind].graded
    session.add(
        PrescreenResult(
            assignment_id=assignment.id,
            kind=kind,
            attempt=attempt,
            correct=correct,
            asked=len(items),
            passed=passed,
            ended_at=now,
        )
    )
    session.flush()
    if not passed and attempt < settings.attempts:
        _start_attempt(session, config, assignment, kind, attempt + 1)
        return PrescreenStatus.OPEN
    if not passed and settings.required:
        return PrescreenStatus.FAILED
    return _start_next_step(session, config, assignment)


def _start_next_step(session: Session, config: StudyConfig, assignment: Assignment) -> PrescreenStatus:
    """Start the first step of the study that has not been started."""
    kinds = select(PrescreenItem.kind).where(PrescreenItem.assignment_id == assignment.id).distinct()
    started = set(session.scalars(kinds))
    next_step = next((step for step in config.prescreen.steps if step not in started), None)
    if next_step is None:
        return PrescreenStatus.PASSED
    _start_attempt(session, config, assignment, next_step, 1)
    return PrescreenStatus.OPEN


def _start_attempt(session: Session, config: StudyConfig, assignment: Assignment, kind: str, attempt: int) -> None:
    # Seeded by the system, not by the study, so that a listener's sounds cannot be computed in advance.
    drawn = draw_attempt(kind, np.random.default_rng(), config)
    session.add_all(
        PrescreenItem(
            assignment_id=assignment.id,
            attempt=attempt,
            item=index,
            kind=kind,
            params=asdict(item),
            sound=random_token(),
        )
        for index, item in enumerate(drawn, start=1)
    )
    session.flush()
