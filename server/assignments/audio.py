"""Audio: find the sound behind a random name while it is due.

As in server.assignments.lifecycle, functions take a Session first, know nothing about the web and never commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments import prescreen, queries
from server.assignments.experiment import Experiment
from server.assignments.trials import REACH
from server.db.models import Assignment, AssignmentState, PrescreenItem
from study.trial_plan import Stimulus

MOST_PARTS = 64  # of a clip whose bytes are sent one part at a time


@dataclass(frozen=True)
class DueSound:
    """A sound that is due: `wav`, generated here, or a `stimulus` of the storage.

    `undelivered`: the ClipDelivery to mark once the whole sound was sent; None if it is already marked.
    """

    wav: bytes = b""
    stimulus: Stimulus | None = None
    undelivered: int | None = None


def find_sound(session: Session, experiment: Experiment, name: str) -> DueSound | None:
    """The sound behind a random name, if it is due now or next; otherwise None."""
    return _trial_sound(session, experiment, name) or _prescreen_sound(session, name)


def _trial_sound(session: Session, experiment: Experiment, name: str) -> DueSound | None:
    row = queries.run(session, queries.CLIP_BY_NAME, name=name).one_or_none()
    if row is None or not 1 <= row.position - row.answered <= REACH.get(row.state, 0):
        return None
    trial = experiment.plan.lists[row.list_number][row.position - 1]
    key = trial.stimulus_key(role_of(row.slot, trial.high_side))
    return DueSound(stimulus=experiment.plan.stimuli[key], undelivered=row.id if row.fetched_at is None else None)


def role_of(slot: str, high_side: str) -> Literal["x", "high", "low"]:
    """Which clip of a trial is played in a slot (X, A or B)."""
    if slot == "X":
        return "x"
    return "high" if slot == high_side else "low"


def _prescreen_sound(session: Session, name: str) -> DueSound | None:
    query = select(PrescreenItem).join(Assignment, PrescreenItem.assignment_id == Assignment.id)
    due = (PrescreenItem.answer.is_(None), Assignment.state == AssignmentState.CONSENTED)
    item = session.scalar(query.where(PrescreenItem.sound == name, *due))
    return None if item is None else DueSound(prescreen.render(item))


def mark_fetched(session: Session, experiment: Experiment, delivery: int) -> None:
    """Record that a clip was sent completely."""
    queries.run(session, queries.MARK_FETCHED, delivery=delivery, at=experiment.clock())


def note_part(session: Session, experiment: Experiment, delivery: int, part: range, size: int) -> None:
    """Record that some bytes of a clip were sent; once every byte was, the clip was sent completely."""
    known = queries.run(session, queries.SENT_PARTS, delivery=delivery).scalar_one()
    parts = _joined([*_read_parts(known), part])
    if parts[0] == range(size):
        mark_fetched(session, experiment, delivery)
    elif len(parts) <= MOST_PARTS:  # a browser resumes a few times; more is not noted
        text = ",".join(f"{one.start}-{one.stop}" for one in parts)
        queries.run(session, queries.NOTE_PARTS, delivery=delivery, parts=text)


def _read_parts(text: str | None) -> list[range]:
    return [range(*map(int, part.split("-"))) for part in (text or "").split(",") if part]


def _joined(parts: Iterable[range]) -> list[range]:
    """The same bytes in as few parts as possible, in order."""
    joined: list[range] = []
    for part in sorted(parts, key=lambda one: one.start):
        if joined and part.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, part.stop))
        else:
            joined.append(part)
    return joined
