"""Amounts that are owed and not yet paid, and submissions that need a person's decision."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.enums import LIVE, PaymentKind, PaymentState, SubmissionStatus
from server.db.models import Assignment, MarketplaceSubmission, Payment, Posting
from server.payments import ledger
from server.payments.fees import joined, rounded_up
from server.recruiting.confirmation import is_payable
from server.recruiting.context import RecruitingContext
from server.recruiting.snapshot import posting_of


class PaymentMethod(enum.StrEnum):
    """How an amount can be paid."""

    APPROVE = "approve"  # by approving the submission
    DIRECT = "grant"  # by a direct payment
    PLACE = "place"  # by a place that only this listener may take
    BY_HAND = "by hand"  # by the researcher, outside Rootnote
    WAIT = "wait"  # not yet: the listener may still submit


PAYABLE = (PaymentMethod.DIRECT, PaymentMethod.PLACE, PaymentMethod.BY_HAND)  # what `rootnote server pay` pays


@dataclass(frozen=True)
class DuePayment:
    """An amount that a listener is owed, and the exact fee on it, in cents.

    `submission` is our id of the submission that it goes with.
    """

    assignment: int
    pseudonym: str
    kind: PaymentKind
    cents: int
    exact_fee: Fraction
    method: PaymentMethod
    submission: int | None = None

    @property
    def cost(self) -> int:
        """The amount with its fee, rounded up to the cent."""
        return rounded_up(self.cents + self.exact_fee)


def all_due(session: Session, context: RecruitingContext) -> list[DuePayment]:
    """Everything that is owed and neither paid nor in progress, with the way to pay it.

    Nothing is owed for a run that the marketplace has not listed (`confirmation.unconfirmed_work`).
    """
    recorded: dict[int | None, list[Payment]] = defaultdict(list)
    for one in session.scalars(select(Payment)):
        if is_in_progress(session, one):
            recorded[one.assignment_id].append(one)
    found = []
    for assignment in session.scalars(select(Assignment).order_by(Assignment.id)):
        owed = ledger.owed(assignment, recorded[assignment.id], context.config.pay)
        if owed is None or not is_payable(context, assignment):
            continue
        rows = ledger.submissions_of(session, assignment)
        if not ledger.is_rejected(rows):
            found.append(_due(session, context, assignment, rows, *owed))
    return found


def is_in_progress(session: Session, payment: Payment) -> bool:
    """Whether a payment is paid, decided or being handled; a pending approval or an unused place is due again."""
    if payment.state != PaymentState.PENDING or payment.opening_id is None:
        return True
    posting = session.get_one(Posting, payment.opening_id)
    return posting.owed_to is not None and posting.settled_at is None


def _due(
    session: Session,
    context: RecruitingContext,
    assignment: Assignment,
    rows: list[MarketplaceSubmission],
    kind: PaymentKind,
    amount: int,
) -> DuePayment:
    marketplace = context.marketplace.capabilities
    who = (assignment.id, assignment.pseudonym, kind)
    if marketplace.pays_by_hand:
        return DuePayment(*who, amount, Fraction(0), PaymentMethod.BY_HAND)
    submitted = next((row for row in rows if row.status == SubmissionStatus.SUBMITTED), None)
    fee, is_live = context.marketplace.exact_fee(amount), any(row.status in LIVE for row in rows)
    if submitted is not None:
        posting, way = posting_of(session, submitted.opening), screen_out_way(session, context, submitted.opening, kind)
        if way == "return_and_bonus":
            return DuePayment(*who, amount, fee, PaymentMethod.WAIT, submitted.id)
        if way in ("approve", "by_itself") or amount >= context.reward:
            reward = posting.reward_cents if posting else context.reward
            return DuePayment(*who, reward, place_fee(context, posting), PaymentMethod.APPROVE, submitted.id)
    early = kind is PaymentKind.PARTIAL  # who has left is paid whether or not they have given the place back
    if rows and marketplace.pays_unsubmitted and (early or not is_live):
        return DuePayment(*who, amount, fee, PaymentMethod.DIRECT, rows[0].id)
    if is_live or marketplace.pays_unsubmitted:
        return DuePayment(*who, amount, fee, PaymentMethod.WAIT)
    return DuePayment(*who, amount, fee, PaymentMethod.PLACE)


def place_fee(context: RecruitingContext, posting: Posting | None) -> Fraction:
    """The exact fee on the reward of a posting's place."""
    return joined(posting.fee_cents, posting.fee_millionths) if posting else context.exact_fee


def screen_out_way(session: Session, context: RecruitingContext, opening: str, kind: PaymentKind) -> str:
    """How a screen-out is paid that was submitted to this posting; "" for other kinds."""
    if kind is not PaymentKind.SCREEN_OUT:
        return ""
    paid_there = select(Posting.id).where(Posting.market_id == opening, Posting.screen_outs > 0).limit(1)
    if session.scalar(paid_there) is not None:
        return "by_itself"  # and not yet, so no screen-out was left
    return context.marketplace.screen_out_plan().way


def approvable_by_override(session: Session, context: RecruitingContext) -> list[DuePayment]:
    """The submissions that need a person's decision, as if they were complete."""
    found = []
    for row, assignment in needs_manual_review(session, context):
        posting = posting_of(session, row.opening)
        if assignment is not None and posting is not None:
            kind = ledger.due(assignment.state, context.config.pay)[0]
            who = (assignment.id, assignment.pseudonym, kind)
            found.append(
                DuePayment(*who, posting.reward_cents, place_fee(context, posting), PaymentMethod.APPROVE, row.id)
            )
    return found


def needs_manual_review(
    session: Session, context: RecruitingContext
) -> list[tuple[MarketplaceSubmission, Assignment | None]]:
    """Submissions that the database does not show complete: a person decides."""
    settled_by = (PaymentMethod.APPROVE, PaymentMethod.DIRECT, PaymentMethod.WAIT)  # WAIT: asked to return it
    approvable = {one.submission for one in all_due(session, context) if one.method in settled_by}
    owed = set(session.scalars(select(Posting.market_id).where(Posting.owed_to.is_not(None))))
    query = (
        select(MarketplaceSubmission)
        .where(MarketplaceSubmission.status == SubmissionStatus.SUBMITTED)
        .order_by(MarketplaceSubmission.id)
    )
    return [
        (row, session.get(Assignment, row.assignment_id) if row.assignment_id else None)
        for row in session.scalars(query)
        if row.id not in approvable and row.opening not in owed
    ]
