"""Direct payments: bonuses, partial pay, screen-outs, and places made for one listener.

Every payment is recorded as pending before it is sent. If a program stops in between, `reconcile_direct_payments` asks
the marketplace whether the payment was made before it sends it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.enums import LIVE, PaymentKind, PaymentState, SubmissionStatus
from server.db.models import Assignment, MarketplaceSubmission, Payment, Posting
from server.identity.vault import load_identity
from server.payments import ledger
from server.payments.fees import split
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.due import DuePayment, is_in_progress
from server.recruiting.marketplaces.base import (
    DirectPayment,
    ForeignSubmissionError,
    MarketplaceError,
    ReportedSubmission,
    UnknownOutcomeError,
)
from server.recruiting.postings import place_order
from server.recruiting.snapshot import submission_key

THANKS = "Thank you for taking part in our listening study."


# ------------------------------------------------------------------ payments in unknown state


def reconcile_direct_payments(context: RecruitingContext, report: Report = print) -> int:
    """Ask about every payment in unknown state and retry those that were not made; returns how many were retried.

    A payment that is refused again is reported, and does not stop the others.
    """
    delay = timedelta(minutes=context.marketplace.capabilities.settle_minutes)
    with context.reading() as session:
        pending = [one for one in ledger.pending(session) if one.opening_id is None]
        ready = [one.id for one in pending if not delay or one.intended_at + delay <= context.clock()]
    retried = 0
    for number in ready:
        try:
            retried += _retry_payment(context, number)
        except UnknownOutcomeError:
            raise
        except MarketplaceError as error:
            report(f"A payment recorded earlier was not made: {error}")
    return retried


def _retry_payment(context: RecruitingContext, number: int) -> bool:
    """Send a payment unless it was made; whether it was sent."""
    payment = _direct_payment(context, number)
    if payment is None:
        return False
    with _void_if_foreign(context, number):
        unpaid = not context.marketplace.has_paid(payment)
        if unpaid and _was_approved_instead(context, number):
            return False
        if unpaid:
            _record_retry(context, number)
            context.marketplace.bonus(payment)
    _settle(context, number)
    return unpaid


def _was_approved_instead(context: RecruitingContext, number: int) -> bool:
    """Whether a person approved the submission for which this payment failed; the row then becomes that payment."""
    with context.writing() as session:
        payment = session.get_one(Payment, number)
        approved = session.scalar(
            select(Payment).where(
                Payment.submission_id == payment.submission_id,
                Payment.kind == PaymentKind.PAID_AGAIN,
                Payment.state == PaymentState.PAID,
            )
        )
        if approved is None or payment.kind in (PaymentKind.BONUS, PaymentKind.LIFT):
            return False  # a bonus and a top-up are paid on top of the approval
        payment.opening_id, payment.cents, payment.fee_cents = approved.opening_id, approved.cents, approved.fee_cents
        payment.fee_millionths = approved.fee_millionths
        session.delete(approved)
        session.flush()
        ledger.settle(session, payment, context.clock())
    return True


@contextlib.contextmanager
def _void_if_foreign(context: RecruitingContext, number: int) -> Iterator[None]:
    """Void the payment of a listener who came with another worker's submission: nothing is owed to them."""
    try:
        yield
    except ForeignSubmissionError:
        with context.writing() as session:
            session.get_one(Payment, number).state = PaymentState.VOID
        raise


def _record_retry(context: RecruitingContext, number: int) -> None:
    """The waiting time before a payment shows starts again with every retry."""
    with context.writing() as session:
        session.get_one(Payment, number).intended_at = context.clock()


# ------------------------------------------------------------------ sending


def _direct_payment(context: RecruitingContext, number: int) -> DirectPayment | None:
    with context.reading() as session:
        payment = session.get_one(Payment, number)
        submission = _submission_at_marketplace(session, context, payment)
        others = ledger.same_payments(session, payment)
    if submission is None:
        return None
    reason = payment.reason or THANKS
    return DirectPayment(payment.token, submission, payment.cents, payment.kind, reason, others)


def _submission_at_marketplace(
    session: Session, context: RecruitingContext, payment: Payment
) -> ReportedSubmission | None:
    """The submission that a payment is for, with the marketplace's own ids."""
    if payment.assignment_id is None:
        return None
    assignment = session.get_one(Assignment, payment.assignment_id)
    who = load_identity(session, context.vault, assignment.listener)
    row = session.get(MarketplaceSubmission, payment.submission_id) if payment.submission_id else None
    if who is None or who.worker is None:
        raise MarketplaceError(f"the identity of listener {assignment.listener.pseudonym} is no longer stored.")
    if row is None or context.signer.submission_key(who.worker, who.submission) == row.key:
        status = row.status if row else SubmissionStatus.SUBMITTED
        return ReportedSubmission(who.submission, who.worker, who.opening, status)
    for submission in context.marketplace.submissions(row.opening).submissions:
        if submission_key(context, submission) == row.key:
            return submission
    raise MarketplaceError(
        f"the submission of listener {assignment.listener.pseudonym} is no longer at the marketplace."
    )


def _settle(context: RecruitingContext, number: int) -> None:
    with context.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), context.clock())


def pay_directly(
    context: RecruitingContext, assignment: int, kind: PaymentKind, amount: int, reason: str, submission: int | None
) -> bool:
    """Make a direct payment: recorded, sent, recorded again; whether it was sent.

    A payment that was recorded before is left to `reconcile_direct_payments`, unless it was to be paid by an approval
    that did not happen because the place was returned.
    """
    with context.writing() as session:
        row = session.get(MarketplaceSubmission, submission) if submission else None
        fee = context.marketplace.exact_fee(amount)
        who = session.get_one(Assignment, assignment)
        payment = ledger.find(session, who, kind)
        if payment is not None:
            if is_in_progress(session, payment):
                return False
            # While its posting is not settled, that counts in full, and this payment is added to it.
            if session.get_one(Posting, payment.opening_id).settled_at is None:
                ledger.require_budget(session, amount + fee)
            payment.opening_id, payment.cents = None, amount
            payment.fee_cents, payment.fee_millionths = split(fee)
            payment.submission_id, payment.intended_at = submission, context.clock()
        else:
            payment = ledger.record_pending(
                session, who, kind, amount, fee, context.clock(), submission=row, reason=reason
            )
        number = payment.id
    if not context.marketplace.capabilities.pays_by_hand and (sent := _direct_payment(context, number)):
        with _void_if_foreign(context, number):
            context.marketplace.bonus(sent)
    _settle(context, number)
    return True


def record_manual_payments(context: RecruitingContext, payments: Iterable[tuple[int, PaymentKind, int, str]]) -> int:
    """Record payments that were made by hand, all or none: assignment, kind, cents, reason. Returns how many were new.

    Raises:
        OverBudgetError: if the launch's budget does not allow it.
    """
    new = 0
    with context.writing() as session:
        for number, kind, amount, reason in payments:
            who, now = session.get_one(Assignment, number), context.clock()
            if ledger.find(session, who, kind) is not None:
                continue
            payment = ledger.record_pending(session, who, kind, amount, 0, now, reason=reason)
            ledger.settle(session, payment, now)
            if not context.marketplace.capabilities.lists_submissions:
                for row in ledger.submissions_of(session, who):
                    row.status = SubmissionStatus.APPROVED if row.status in LIVE else row.status
            new += 1
    return new


def post_place_for(context: RecruitingContext, due: DuePayment) -> None:
    """Order one place for a listener who could not submit, worth what they are owed."""
    with context.writing() as session:
        ledger.require_budget(session, due.cents + due.exact_fee)
        fee_cents, rest = split(due.exact_fee)
        assignment = session.get_one(Assignment, due.assignment)
        posting = Posting(
            token=ledger.new_token("owed"),
            places=1,
            reward_cents=due.cents,
            fee_cents=fee_cents,
            fee_millionths=rest,
            owed_to=assignment.id,
            ordered_at=context.clock(),
        )
        session.add(posting)
        session.flush()
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.exact_fee, context.clock(), opening=posting
        )
        payment.opening_id, number = posting.id, posting.id  # an earlier place was not taken in time
    place_order(context, number)


def paid_submission(session: Session, assignment: Assignment) -> int | None:
    """The submission that a bonus goes with: the one that was paid, or the latest one submitted."""
    paid = select(Payment.submission_id).where(
        Payment.assignment_id == assignment.id,
        Payment.submission_id.is_not(None),
        Payment.state == PaymentState.PAID,
    )
    if (found := session.scalar(paid.limit(1))) is not None:
        return found
    submitted = MarketplaceSubmission.status.in_((SubmissionStatus.SUBMITTED, SubmissionStatus.APPROVED))
    query = select(MarketplaceSubmission.id).where(MarketplaceSubmission.assignment_id == assignment.id, submitted)
    return session.scalar(query.order_by(MarketplaceSubmission.id.desc()).limit(1))
