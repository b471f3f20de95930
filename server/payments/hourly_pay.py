"""Hourly pay: how long listeners worked, what they earned per hour, and the shortfall from the hourly minimum.

Working time runs from consent to the end, by the times at which something was sent. A pause between two of them counts
as five minutes at most, so that an hour away does not count as an hour of work.
Conventions: minutes; hourly pay in the study's currency; missing amounts in cents, rounded up.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.enums import PaymentKind, PaymentState, RunVerification
from server.db.models import COMPLETED, Answer, Assignment, Payment, PrescreenItem, Response
from server.payments import ledger
from study.config_sections import PayConfig

PAUSE = timedelta(minutes=5)


@dataclass(frozen=True)
class PaidWork:
    """One finished run: working time in minutes, and its pay in total (the reward, and what was added to it)."""

    assignment: int
    pseudonym: str
    minutes: float
    cents: int

    @property
    def hourly(self) -> float:
        return self.cents / 100 / (self.minutes / 60) if self.minutes > 0 else math.inf

    def short(self, floor: float) -> int:
        """The shortfall from the hourly minimum `floor` (in the study's currency), in cents."""
        return max(math.ceil(round(floor * 100 * self.minutes / 60 - self.cents, 6)), 0)


@dataclass(frozen=True)
class HourlyPay:
    """Hourly pay of those who finished: the median and the tenth percentile; how many earned too little."""

    n: int
    minutes: float
    median: float
    tenth: float
    below: int
    missing: int


def paid_work(session: Session, pay: PayConfig) -> list[PaidWork]:
    """Every finished run that was not erased and is not unconfirmed."""
    moments = _moments(session)
    added: dict[int | None, int] = defaultdict(int)
    extra = select(Payment).where(
        Payment.kind.in_((PaymentKind.BONUS, PaymentKind.LIFT)), Payment.state != PaymentState.VOID
    )
    for payment in session.scalars(extra):
        added[payment.assignment_id] += payment.cents
    real = Assignment.verification != RunVerification.UNCONFIRMED
    done = select(Assignment).where(Assignment.state.in_(COMPLETED), Assignment.ended_at.is_not(None), real)
    return [
        PaidWork(
            one.id,
            one.pseudonym,
            minutes_at_work([*moments[one.id], *_ends(one)]),
            ledger.due(one.state, pay)[1] + added[one.id],
        )
        for one in session.scalars(done.order_by(Assignment.id))
    ]


def _moments(session: Session) -> dict[int, list[datetime]]:
    found: dict[int, list[datetime]] = defaultdict(list)
    for table in (PrescreenItem, Response, Answer):
        query = select(table.assignment_id, table.answered_at).where(table.answered_at.is_not(None))
        for number, moment in session.execute(query):
            if moment is not None:
                found[number].append(moment)
    return found


def _ends(assignment: Assignment) -> list[datetime]:
    known = (assignment.consented_at, assignment.screened_at, assignment.listening_at, assignment.ended_at)
    return [moment for moment in known if moment is not None]


def minutes_at_work(moments: Iterable[datetime]) -> float:
    """Minutes between the first and the last moment, counting at most five of every pause."""
    pauses = (after - before for before, after in itertools.pairwise(sorted(moments)))
    return sum((min(pause, PAUSE) for pause in pauses), timedelta()).total_seconds() / 60


def hourly_pay(session: Session, pay: PayConfig) -> HourlyPay | None:
    """The hourly pay; None before the first listener finished."""
    found = paid_work(session, pay)
    if not found:
        return None
    hourly, short = [one.hourly for one in found], [one.short(pay.floor_per_hour) for one in found]
    return HourlyPay(
        n=len(found),
        minutes=statistics.median(one.minutes for one in found),
        median=statistics.median(hourly),
        tenth=quantile(hourly, 0.1),
        below=sum(cents > 0 for cents in short),
        missing=sum(short),
    )


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by linear interpolation (numpy's default); values may be infinite."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low, high = math.floor(at), math.ceil(at)
    if ordered[low] == ordered[high]:
        return ordered[low]  # two that are infinite have no difference
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
