"""Lifting: a bonus for everybody whose hour came to less than the floor, once each.

What is missing follows from the time at work (server.payments.hourly_pay) and from what was paid, bonuses included;
a lift is a payment of its own kind, written down before it is made, so that a second command lifts nobody twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from server.db.models import Assignment
from server.payments import ledger
from server.payments.hourly_pay import works
from server.recruiting import settling
from server.recruiting.launch import Office
from server.recruiting.marketplaces.base import NotTheirsError

REASON = "The study took you longer than planned; this lifts your pay to our minimum hourly wage. Thank you."


@dataclass(frozen=True)
class Lift:
    """What one listener is short of the floor; `ready`: something of theirs was handed in, so a bonus reaches them."""

    assignment: int
    pseudonym: str
    code: str
    minutes: float
    hourly: float
    cents: int
    submission: int | None
    ready: bool


def all_short(office: Office) -> list[Lift]:
    """Everybody who finished, has less than the floor an hour, and was not lifted yet."""
    pay, found = office.config.pay, []
    with office.reading() as session:
        for work in works(session, pay):
            assignment = session.get_one(Assignment, work.assignment)
            short = work.short(pay.floor_usd_per_hour)
            if not short or ledger.find(session, assignment, "lift") is not None:
                continue
            submission = settling.paid_submission(session, assignment)
            ready = office.recruiter.terms.by_hand or submission is not None
            who = (work.assignment, work.pseudonym, assignment.completion_code)
            found.append(Lift(*who, work.minutes, work.hourly, short, submission, ready))
    return found


def lift_all(office: Office, found: Sequence[Lift], reason: str = "") -> int:
    """Pay these; how many were."""
    why = reason or REASON
    if office.recruiter.terms.by_hand:
        return settling.note_paid(office, [(one.assignment, "lift", one.cents, why) for one in found])
    return sum(_lift(office, one, why) for one in found)


def _lift(office: Office, one: Lift, reason: str) -> bool:
    """Pay one; not where what they came with is another's, which keeps the others from nothing."""
    with contextlib.suppress(NotTheirsError):
        return settling.grant(office, one.assignment, "lift", one.cents, reason, one.submission)
    return False
