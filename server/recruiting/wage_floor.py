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
from server.payments.hourly_pay import paid_work
from server.recruiting import grants
from server.recruiting.launch import RecruitingContext
from server.recruiting.marketplaces.base import ForeignSubmissionError

REASON = "The study took you longer than planned; this lifts your pay to our minimum hourly wage. Thank you."


@dataclass(frozen=True)
class WageTopUp:
    """What one listener is short of the floor; `ready`: something of theirs was handed in, so a bonus reaches them."""

    assignment: int
    pseudonym: str
    code: str
    minutes: float
    hourly: float
    cents: int
    submission: int | None
    ready: bool


def below_floor(office: RecruitingContext) -> list[WageTopUp]:
    """Everybody who finished, has less than the floor an hour, and was not lifted yet."""
    pay, found = office.config.pay, []
    with office.reading() as session:
        for work in paid_work(session, pay):
            assignment = session.get_one(Assignment, work.assignment)
            short = work.short(pay.floor_usd_per_hour)
            if not short or ledger.find(session, assignment, "lift") is not None:
                continue
            submission = grants.paid_submission(session, assignment)
            ready = office.recruiter.terms.by_hand or submission is not None
            who = (work.assignment, work.pseudonym, assignment.completion_code)
            found.append(WageTopUp(*who, work.minutes, work.hourly, short, submission, ready))
    return found


def top_up_all(office: RecruitingContext, found: Sequence[WageTopUp], reason: str = "") -> int:
    """Pay these; how many were."""
    why = reason or REASON
    if office.recruiter.terms.by_hand:
        return grants.record_manual_payments(office, [(one.assignment, "lift", one.cents, why) for one in found])
    return sum(_lift(office, one, why) for one in found)


def _lift(office: RecruitingContext, one: WageTopUp, reason: str) -> bool:
    """Pay one; not where what they came with is another's, which keeps the others from nothing."""
    with contextlib.suppress(ForeignSubmissionError):
        return grants.pay_directly(office, one.assignment, "lift", one.cents, reason, one.submission)
    return False
