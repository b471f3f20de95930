"""Screening: an assignment's way through the steps of the prescreen.

Items are drawn when an attempt is opened and stored with what their sounds follow from; a sound is made anew whenever
it is asked for, and answers are graded here. Functions take a Session first and never commit. What the outcome means
for the assignment is for server.assignments.lifecycle to say.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import Assignment, PrescreenItem, PrescreenResult
from server.identity.tokens import random_token
from study.config import StudyConfig
from study.prescreen.item import encode_wav
from study.prescreen.registry import STEPS
from study.prescreen.steps import count_right, draw_attempt, step_config, stored_item


class PrescreenStatus(enum.Enum):
    """How far the prescreen is."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class ItemAnswer:
    """What a listener sends for one item; attempts and items count from 1."""

    kind: str
    attempt: int
    item: int
    answer: int


class UnexpectedItemError(Exception):
    """The item is not this listener's, or not due yet; the message says which."""


def begin(session: Session, config: StudyConfig, assignment: Assignment) -> PrescreenStatus:
    """Open the first step; PASSED where the study has none."""
    return _go_on(session, config, assignment)


def current_item(session: Session, assignment: Assignment) -> PrescreenItem:
    """The item to be answered now."""
    return due_items(session, assignment)[0]


def due_items(session: Session, assignment: Assignment) -> Sequence[PrescreenItem]:
    """The items of the attempt under way that are still to be answered, in their order."""
    query = select(PrescreenItem).where(PrescreenItem.assignment_id == assignment.id, PrescreenItem.answer.is_(None))
    return session.scalars(query.order_by(PrescreenItem.item)).all()


def take_answer(
    session: Session, config: StudyConfig, assignment: Assignment, given: ItemAnswer, now: datetime
) -> PrescreenStatus:
    """Take the answer to one item; after an attempt's last, go on, try again or fail. A second answer is ignored.

    Raises:
        UnexpectedItemError: where the item is not this listener's or not due yet.
    """
    items = _items(session, assignment, given.kind, given.attempt)
    if not 1 <= given.item <= len(items):
        raise UnexpectedItemError("That sound is not one of yours.")
    asked = items[given.item - 1]
    if asked.answer is not None:
        return PrescreenStatus.OPEN
    if asked.id != current_item(session, assignment).id:
        raise UnexpectedItemError("That sound comes later.")
    asked.answer, asked.answered_at = given.answer, now
    session.flush()
    if given.item < len(items):
        return PrescreenStatus.OPEN
    return _close(session, config, assignment, items, now)


def render(item: PrescreenItem) -> bytes:
    """The sound of an item, as WAV."""
    return encode_wav(stored_item(item.kind, item.params).render())


def _items(session: Session, assignment: Assignment, kind: str, attempt: int) -> Sequence[PrescreenItem]:
    query = select(PrescreenItem).where(PrescreenItem.assignment_id == assignment.id)
    query = query.where(PrescreenItem.kind == kind, PrescreenItem.attempt == attempt)
    return session.scalars(query.order_by(PrescreenItem.item)).all()


def _close(
    session: Session, config: StudyConfig, assignment: Assignment, items: Sequence[PrescreenItem], now: datetime
) -> PrescreenStatus:
    kind, attempt = items[0].kind, items[0].attempt
    own = step_config(config, kind)
    answers = [cast(int, item.answer) for item in items]
    correct = count_right([stored_item(kind, item.params) for item in items], answers)
    passed = correct >= min(own.needed, len(items)) or not STEPS[kind].graded
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
    if not passed and attempt < own.attempts:
        _open(session, config, assignment, kind, attempt + 1)
        return PrescreenStatus.OPEN
    if not passed and own.required:
        return PrescreenStatus.FAILED
    return _go_on(session, config, assignment)


def _go_on(session: Session, config: StudyConfig, assignment: Assignment) -> PrescreenStatus:
    """Open the first step of the study that was not opened yet."""
    seen = select(PrescreenItem.kind).where(PrescreenItem.assignment_id == assignment.id).distinct()
    opened = set(session.scalars(seen))
    following = next((step for step in config.prescreen.steps if step not in opened), None)
    if following is None:
        return PrescreenStatus.PASSED
    _open(session, config, assignment, following, 1)
    return PrescreenStatus.OPEN


def _open(session: Session, config: StudyConfig, assignment: Assignment, kind: str, attempt: int) -> None:
    # Seeded by the system, not by the study: nobody can compute a listener's sounds beforehand.
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
