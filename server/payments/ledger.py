"""The ledger: every intended payment, by assignment and kind, and the committed cost of a launch.

A payment is recorded as pending before the marketplace is asked and as paid after, so an interruption leaves a row that
says what to check. The kinds are in server.db.enums. Payments are whole cents; fees are kept to a millionth of a cent
(server.payments.fees), and sums of them are rounded to the cent.

The committed cost can only be too high, never too low: every place of a posting that may still be taken or paid
counts in full, with its fee, and so do every other payment and every screen-out that the marketplace may pay by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from fractions import Fraction

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.db.enums import LIVE, PaymentKind, PaymentState, RunOutcome, SubmissionStatus
from server.db.models import (
    COMPLETED,
    TURNED_AWAY,
    Assignment,
    AssignmentState,
    Launch,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.payments.fees import MILLION, millionths, split, whole_cents
from server.payments.formatting import as_money
from study.config import cents
from study.config_sections import PayConfig

LEFT = {AssignmentState.WITHDRAWN, AssignmentState.RETURNED, AssignmentState.EXPIRED}


class OverBudgetError(RootnoteError):
    """The launch's budget does not allow this."""


def outcome(state: AssignmentState, pay: PayConfig) -> RunOutcome:
    """The outcome of a run for the marketplace: a listener who is paid the reward has finished there."""
    if state in COMPLETED or due(state, pay)[0] == PaymentKind.REWARD:
        return "finished"
    return "screened_out" if state in TURNED_AWAY else "left"


def due(state: AssignmentState, pay: PayConfig) -> tuple[PaymentKind, int]:
    """The amount owed for a run in this state: the kind and the cents."""
    if state in COMPLETED:
        return PaymentKind.REWARD, cents(pay.reward)
    if state is AssignmentState.TECHNICAL:
        amount = cents(pay.unheard)
        return PaymentKind.REWARD if amount == cents(pay.reward) else PaymentKind.SCREEN_OUT, amount
    if state in TURNED_AWAY:
        return PaymentKind.SCREEN_OUT, cents(pay.screened_out)
    if state is AssignmentState.EXPIRED:
        return PaymentKind.PARTIAL, cents(pay.expired)
    return PaymentKind.PARTIAL, cents(pay.withdrawn) if state in LEFT else 0


def settles(state: AssignmentState, pay: PayConfig) -> tuple[PaymentKind, ...]:
    """The kinds of payment that settle what is due; earlier versions screened out listeners who could not hear."""
    return (PaymentKind.REWARD, PaymentKind.SCREEN_OUT) if state is AssignmentState.TECHNICAL else (due(state, pay)[0],)


def owed(assignment: Assignment, recorded: Iterable[Payment], pay: PayConfig) -> tuple[PaymentKind, int] | None:
    """The amount still owed after the recorded payments; None if nothing is owed."""
    kind, amount = due(assignment.state, pay)
    kinds = settles(assignment.state, pay)
    return None if amount == 0 or any(_covers(one, kinds, amount) for one in recorded) else (kind, amount)


def _covers(payment: Payment, kinds: Collection[PaymentKind], amount: int) -> bool:
    """Whether this payment leaves nothing due: it is of these kinds, or the reward of a place.

    A listener who was approved early and then finishes has already had the reward.
    """
    whole = payment.opening_id is not None and payment.state != PaymentState.VOID and payment.cents >= amount
    return payment.kind in kinds or whole


def is_rejected(submissions: Sequence[MarketplaceSubmission]) -> bool:
    """Whether a person rejected a listener's latest submission (latest first) and no other of theirs is open."""
    latest = submissions[0] if submissions else None
    is_open = any(one.status in LIVE for one in submissions)
    return latest is not None and latest.status == SubmissionStatus.REJECTED and not is_open


def submissions_of(session: Session, assignment: Assignment) -> list[MarketplaceSubmission]:
    """A listener's submissions at the marketplace, latest first."""
    query = select(MarketplaceSubmission).where(MarketplaceSubmission.assignment_id == assignment.id)
    return list(session.scalars(query.order_by(MarketplaceSubmission.id.desc())))


# ------------------------------------------------------------------ rows


def new_token(purpose: str) -> str:
    """A random token for one posting or payment, stored in its row before the marketplace sees it."""
    return f"{purpose}-{secrets.token_hex(12)}"


def find(session: Session, assignment: Assignment, *kinds: PaymentKind) -> Payment | None:
    """An assignment's recorded payment of one of these kinds."""
    query = select(Payment).where(Payment.assignment_id == assignment.id, Payment.kind.in_(kinds))
    return session.scalar(query.order_by(Payment.id).limit(1))


def record_pending(
    session: Session,
    assignment: Assignment | None,
    kind: PaymentKind,
    amount: int,
    fee: Fraction | int,
    now: datetime,
    *,
    submission: MarketplaceSubmission | None = None,
    opening: Posting | None = None,
    reason: str = "",
) -> Payment:
    """Record a payment before it is made; returns the existing one of this assignment and kind, if there is one.

    Raises:
        OverBudgetError: if the launch's budget does not allow it.
    """
    earlier = find(session, assignment, kind) if assignment is not None else None
    if earlier is not None:
        return earlier
    if opening is None or opening.settled_at is not None:
        require_budget(session, amount + fee)
    fee_cents, rest = split(fee)
    payment = Payment(
        token=new_token(kind),
        assignment_id=None if assignment is None else assignment.id,
        submission_id=None if submission is None else submission.id,
        opening_id=None if opening is None else opening.id,
        kind=kind,
        cents=amount,
        fee_cents=fee_cents,
        fee_millionths=rest,
        state=PaymentState.PENDING,
        reason=reason,
        intended_at=now,
    )
    session.add(payment)
    session.flush()
    return payment


def settle(session: Session, payment: Payment, now: datetime) -> None:
    """Record that a payment was made, and its assignment's new state."""
    if payment.state != PaymentState.PAID:
        payment.state, payment.paid_at = PaymentState.PAID, now
    assignment = session.get(Assignment, payment.assignment_id) if payment.assignment_id else None
    if payment.kind == PaymentKind.REWARD and assignment is not None and assignment.state in COMPLETED:
        assignment.state = AssignmentState.PAID
    session.flush()


def pending(session: Session) -> list[Payment]:
    """The payments in unknown state, oldest first."""
    return list(session.scalars(select(Payment).where(Payment.state == PaymentState.PENDING).order_by(Payment.id)))


def same_payments(session: Session, payment: Payment) -> int:
    """How many other direct payments of the same amount to this submission are recorded as paid."""
    same = (Payment.submission_id == payment.submission_id, Payment.cents == payment.cents)
    others = (Payment.id != payment.id, Payment.state == PaymentState.PAID, Payment.opening_id.is_(None))
    return session.scalar(select(func.count()).select_from(Payment).where(*same, *others)) or 0


# ------------------------------------------------------------------ the budget


def launch(session: Session, *, lock: bool = False) -> Launch | None:
    return session.get(Launch, 1, with_for_update=lock or None)


def paid(session: Session) -> int:
    """The sum paid so far, in cents, fees included."""
    return whole_cents(_sum(session, Payment.state == PaymentState.PAID))


def fees_paid(session: Session) -> int:
    """The fees of everything paid so far, in cents."""
    amounts = select(func.coalesce(func.sum(Payment.cents), 0)).where(Payment.state == PaymentState.PAID)
    return whole_cents(_sum(session, Payment.state == PaymentState.PAID) - (session.scalar(amounts) or 0) * MILLION)


def committed(session: Session) -> int:
    """The most that the launch may cost as it is now, in cents: paid, in unknown state, and open."""
    return whole_cents(_committed(session))


def _committed(session: Session) -> int:
    """The same in millionths of a cent."""
    whole = func.sum(Posting.places * (Posting.reward_cents + Posting.fee_cents))
    rest = func.sum(Posting.places * Posting.fee_millionths + Posting.screen_outs * Posting.screen_out_cost)
    unsettled = select(func.coalesce(whole, 0), func.coalesce(rest, 0)).where(Posting.settled_at.is_(None))
    cents_, millionths_ = session.execute(unsettled).one()
    within = select(Posting.id).where(Posting.settled_at.is_(None))
    other = Payment.opening_id.is_(None) | Payment.opening_id.not_in(within)
    return int(cents_) * MILLION + int(millionths_) + _sum(session, other, Payment.state != PaymentState.VOID)


def remaining_budget(session: Session) -> int:
    """The amount that may still be ordered or paid within the budget, in cents."""
    return max(_remaining(session), 0) // MILLION


def affordable(session: Session, cost: Fraction) -> int:
    """How many payments of this cost in cents the budget still allows."""
    unit = millionths(cost)
    return max(_remaining(session), 0) // unit


def _remaining(session: Session) -> int:
    """What is left of the budget, in millionths of a cent; up to half a cent more than the budget is rounded down."""
    found = launch(session)
    return 0 if found is None else found.budget_cents * MILLION + MILLION // 2 - 1 - _committed(session)


def require_budget(session: Session, more: Fraction | int) -> None:
    """Refuse `more` cents than the budget allows.

    Raises:
        OverBudgetError: with the missing amount.
    """
    found = launch(session, lock=True)
    if found is None or millionths(more) <= _remaining(session):
        return
    missing = max(whole_cents(millionths(more) - _remaining(session) + MILLION // 2 - 1), 1)
    raise OverBudgetError(
        f"the budget of {as_money(found.budget_cents)} is {as_money(missing)} too low for this; "
        "raise it with `rootnote server open --budget AMOUNT`."
    )


def _sum(session: Session, *where: ColumnElement[bool]) -> int:
    """Payments with their fees, in millionths of a cent."""
    whole, rest = func.sum(Payment.cents + Payment.fee_cents), func.sum(Payment.fee_millionths)
    cents_, millionths_ = session.execute(select(func.coalesce(whole, 0), func.coalesce(rest, 0)).where(*where)).one()
    return int(cents_) * MILLION + int(millionths_)
