"""The ledger: every payment that is intended, by assignment and kind, and what a launch is bound to cost.

A payment is written `pending` before the marketplace is asked and `paid` after, so whatever breaks in between leaves a
row that says what to ask about. Kinds: `reward` for those who finish, `screen_out` for those who failed the prescreen
or could not hear, `partial` for those who left, `bonus` for what a researcher adds, `lift` up to the floor,
`paid_again` where a marketplace paid for work that a grant was paid for already. Money is whole cents.

What a launch is bound to cost is counted so that it can only be too high: every place of an opening that may still be
taken or paid counts in full, with its fee, and so does every payment beside those.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.db.models import (
    COMPLETED,
    LIVE,
    TURNED_AWAY,
    Assignment,
    AssignmentState,
    Launch,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.recruiting.marketplaces.base import Kind, Outcome
from study.config import cents
from study.config_sections import PayConfig

LEFT = {AssignmentState.WITHDRAWN, AssignmentState.RETURNED, AssignmentState.EXPIRED}


class OverBudgetError(RootnoteError):
    """What was asked for would cost more than the launch may."""


def dollars(amount: int) -> str:
    """$1,234.50"""
    return f"${amount // 100:,}.{amount % 100:02d}"


def outcome(state: AssignmentState, pay: PayConfig) -> Outcome:
    """How a run that has ended ended, as the marketplace is told: who is paid the reward has finished there."""
    if state in COMPLETED or due(state, pay)[0] == "reward":
        return "finished"
    return "screened_out" if state in TURNED_AWAY else "left"


def due(state: AssignmentState, pay: PayConfig) -> tuple[Kind, int]:
    """What somebody is owed whose run ended so: the kind and the cents."""
    if state in COMPLETED:
        return "reward", cents(pay.reward_usd)
    if state is AssignmentState.TECHNICAL:
        amount = cents(pay.unheard_usd)
        return "reward" if amount == cents(pay.reward_usd) else "screen_out", amount
    if state in TURNED_AWAY:
        return "screen_out", cents(pay.screened_out_usd)
    if state is AssignmentState.EXPIRED:
        return "partial", cents(pay.expired_usd)
    return "partial", cents(pay.withdrawn_usd) if state in LEFT else 0


def settles(state: AssignmentState, pay: PayConfig) -> tuple[Kind, ...]:
    """The kinds of payment by which what is due is paid; who could not hear was screened out in earlier versions."""
    return ("reward", "screen_out") if state is AssignmentState.TECHNICAL else (due(state, pay)[0],)


def owed(assignment: Assignment, booked: Iterable[Payment], pay: PayConfig) -> tuple[Kind, int] | None:
    """What a listener is owed beside these payments of theirs; None where that is nothing."""
    kind, amount = due(assignment.state, pay)
    kinds = settles(assignment.state, pay)
    return None if amount == 0 or any(_covers(one, kinds, amount) for one in booked) else (kind, amount)


def _covers(payment: Payment, kinds: Collection[Kind], amount: int) -> bool:
    """Whether nothing more is due beside this payment: one of these kinds, or a place's reward, whatever for.

    Who was approved before they had finished, and goes on to the end, has had the reward.
    """
    whole = payment.opening_id is not None and payment.state != "void" and payment.cents >= amount
    return payment.kind in kinds or whole


def is_rejected(submissions: Sequence[MarketplaceSubmission]) -> bool:
    """Whether a person has rejected what a listener handed in (latest first) and nothing of theirs is open."""
    latest = submissions[0] if submissions else None
    is_open = any(one.status in LIVE for one in submissions)
    return latest is not None and latest.status == "rejected" and not is_open


def submissions_of(session: Session, assignment: Assignment) -> list[MarketplaceSubmission]:
    """What a listener holds or has held at the marketplace, latest first."""
    mine = select(MarketplaceSubmission).where(MarketplaceSubmission.assignment_id == assignment.id)
    return list(session.scalars(mine.order_by(MarketplaceSubmission.id.desc())))


# ------------------------------------------------------------------ rows


def new_token(purpose: str) -> str:
    """A token for one opening or payment: random, and kept in its row from before the marketplace sees it."""
    return f"{purpose}-{secrets.token_hex(12)}"


def find(session: Session, assignment: Assignment, *kinds: Kind) -> Payment | None:
    """The payment of one of these kinds that is written down for an assignment."""
    mine = select(Payment).where(Payment.assignment_id == assignment.id, Payment.kind.in_(kinds))
    return session.scalar(mine.order_by(Payment.id).limit(1))


def record_pending(
    session: Session,
    assignment: Assignment | None,
    kind: Kind,
    amount: int,
    fee: int,
    now: datetime,
    *,
    submission: MarketplaceSubmission | None = None,
    opening: Posting | None = None,
    reason: str = "",
) -> Payment:
    """Write down a payment before it is made; one of this assignment and kind that is there already is given back.

    Raises:
        OverBudgetError: where the launch's budget has no room for it.
    """
    earlier = find(session, assignment, kind) if assignment is not None else None
    if earlier is not None:
        return earlier
    if opening is None or opening.settled_at is not None:
        require_budget(session, amount + fee)
    payment = Payment(
        token=new_token(kind),
        assignment_id=None if assignment is None else assignment.id,
        submission_id=None if submission is None else submission.id,
        opening_id=None if opening is None else opening.id,
        kind=kind,
        cents=amount,
        fee_cents=fee,
        state="pending",
        reason=reason,
        intended_at=now,
    )
    session.add(payment)
    session.flush()
    return payment


def settle(session: Session, payment: Payment, now: datetime) -> None:
    """Note that a payment was made, and where its assignment stands now."""
    if payment.state != "paid":
        payment.state, payment.paid_at = "paid", now
    assignment = session.get(Assignment, payment.assignment_id) if payment.assignment_id else None
    if payment.kind == "reward" and assignment is not None and assignment.state in COMPLETED:
        assignment.state = AssignmentState.PAID
    session.flush()


def pending(session: Session) -> list[Payment]:
    """The payments of which it is not known whether they were made, oldest first."""
    return list(session.scalars(select(Payment).where(Payment.state == "pending").order_by(Payment.id)))


def same_payments(session: Session, payment: Payment) -> int:
    """How many other grants of as many cents to this submission the books show as paid."""
    same = (Payment.submission_id == payment.submission_id, Payment.cents == payment.cents)
    others = (Payment.id != payment.id, Payment.state == "paid", Payment.opening_id.is_(None))
    return session.scalar(select(func.count()).select_from(Payment).where(*same, *others)) or 0


# ------------------------------------------------------------------ the budget


def launch(session: Session, *, lock: bool = False) -> Launch | None:
    return session.get(Launch, 1, with_for_update=lock or None)


def paid(session: Session) -> int:
    """What was paid so far, fees included."""
    return _sum(session, Payment.state == "paid")


def committed(session: Session) -> int:
    """What the launch is bound to cost at most as it stands: paid, in doubt, and open."""
    unit = Posting.places * (Posting.reward_cents + Posting.fee_cents)
    unsettled = select(func.coalesce(func.sum(unit), 0)).where(Posting.settled_at.is_(None))
    within = select(Posting.id).where(Posting.settled_at.is_(None))
    beside = Payment.opening_id.is_(None) | Payment.opening_id.not_in(within)
    return int(session.scalar(unsettled) or 0) + _sum(session, beside, Payment.state != "void")


def remaining_budget(session: Session) -> int:
    """What may still be ordered or granted within the budget."""
    found = launch(session)
    return 0 if found is None else max(found.budget_cents - committed(session), 0)


def require_budget(session: Session, more: int) -> None:
    """Refuse to be bound to `more` cents than the budget has room for.

    Raises:
        OverBudgetError: with what is missing.
    """
    found = launch(session, lock=True)
    if found is None or more <= found.budget_cents - committed(session):
        return
    missing = more - (found.budget_cents - committed(session))
    raise OverBudgetError(
        f"the budget of {dollars(found.budget_cents)} is {dollars(missing)} short of this; "
        "raise it with `rootnote server open --budget USD`."
    )


def _sum(session: Session, *where: ColumnElement[bool]) -> int:
    total = select(func.coalesce(func.sum(Payment.cents + Payment.fee_cents), 0)).where(*where)
    return int(session.scalar(total) or 0)
