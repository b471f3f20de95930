"""Top-ups to the hourly minimum: a payment for each listener who earned less, once.

The amount follows from the time at work (server.payments.hourly_pay) and from what was paid, bonuses included. A top-up
is a payment of its own kind, recorded before it is made, so that a second command pays nobody twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from server.db.enums import PaymentKind
from server.db.models import Assignment
from server.payments import ledger
from server.payments.hourly_pay import paid_work
from server.recruiting import direct_payments
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import ForeignSubmissionError

REASON = "The study took you longer than planned; this raises your pay to our minimum hourly wage. Thank you."


@dataclass(frozen=True)
class WageTopUp:
    """How much less than the hourly minimum one listener earned; `ready`: they submitted, so a bonus reaches them."""

    assignment: int
    pseudonym: str
    code: str
    minutes: float
    hourly: float
    cents: int
    submission: int | None
    ready: bool


def below_floor(context: RecruitingContext) -> list[WageTopUp]:
    """Every listener who finished, earned less than the hourly minimum, and has no top-up yet."""
    pay, found = context.config.pay, []
    with context.reading() as session:
        for work in paid_work(session, pay):
            assignment = session.get_one(Assignment, work.assignment)
            short = work.short(pay.floor_per_hour)
            if not short or ledger.find(session, assignment, PaymentKind.LIFT) is not None:
                continue
            submission = direct_payments.paid_submission(session, assignment)
            ready = context.marketplace.capabilities.pays_by_hand or submission is not None
            who = (work.assignment, work.pseudonym, assignment.completion_code)
            found.append(WageTopUp(*who, work.minutes, work.hourly, short, submission, ready))
    return found


def top_up_all(context: RecruitingContext, found: Sequence[WageTopUp], reason: str = "") -> int:
    """Pay these; returns how many were paid."""
    why = reason or REASON
    if context.marketplace.capabilities.pays_by_hand:
        return direct_payments.record_manual_payments(
            context, [(one.assignment, PaymentKind.LIFT, one.cents, why) for one in found]
        )
    return sum(_pay_top_up(context, one, why) for one in found)


def _pay_top_up(context: RecruitingContext, one: WageTopUp, reason: str) -> bool:
    """Pay one, unless their submission belongs to another worker; the others are still paid."""
    with contextlib.suppress(ForeignSubmissionError):
        return direct_payments.pay_directly(
            context, one.assignment, PaymentKind.LIFT, one.cents, reason, one.submission
        )
    return False
