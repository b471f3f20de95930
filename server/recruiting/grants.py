"""Direct payments: bonuses, partial pay, and postings made for one listener.

Every payment is recorded as pending before it is sent. If a program stops in between, `reconcile_grants` asks the
marketplace whether the payment was made before it sends it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import (
    Assignment,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.identity.vault import recall
from server.payments import ledger
from server.recruiting.due import DuePayment, is_under_way
from server.recruiting.launch import RecruitingContext, Tell, place_order
from server.recruiting.marketplaces.base import (
    DirectPayment,
    ForeignSubmissionError,
    Kind,
    MarketplaceError,
    UnknownOutcomeError,
)
from server.recruiting.marketplaces.base import SubmissionStatus as Told
from server.recruiting.snapshot import submission_key

THANKS = "Thank you for taking part in our listening study."


def reconcile_grants(office: RecruitingContext, tell: Tell = print) -> int:
    """Ask about every grant in doubt, and send those that were not paid; how many were sent.

    One that is refused again is told of, and does not keep the others waiting.
    """
    with office.reading() as session:
        waiting = timedelta(minutes=office.recruiter.terms.settle_minutes)
        doubtful = [one.id for one in ledger.pending(session) if one.opening_id is None]
        young = {one.id for one in ledger.pending(session) if one.intended_at + waiting > office.clock()}
    sent = 0
    for number in doubtful:
        if waiting and number in young:
            continue
        try:
            sent += _retry_payment(office, number)
        except UnknownOutcomeError:
            raise
        except MarketplaceError as error:
            tell(f"A payment written down earlier was not made: {error}")
    return sent


def _retry_payment(office: RecruitingContext, number: int) -> bool:
    """Send a grant unless it was paid; whether it was sent."""
    grant = _direct_payment(office, number)
    if grant is None:
        return False
    with _void_if_foreign(office, number):
        unpaid = not office.recruiter.has_paid(grant)
        if unpaid and _was_approved_instead(office, number):
            return False
        if unpaid:
            _record_retry(office, number)
            office.recruiter.bonus(grant)
    _settle(office, number)
    return unpaid


def _was_approved_instead(office: RecruitingContext, number: int) -> bool:
    """Whether a person approved the submission for which a grant was not made; the grant's row is then that payment."""
    with office.writing() as session:
        payment = session.get_one(Payment, number)
        same = (Payment.submission_id == payment.submission_id, Payment.kind == "paid_again", Payment.state == "paid")
        approved = session.scalar(select(Payment).where(*same))
        if approved is None or payment.kind not in ("reward", "screen_out", "partial"):
            return False  # a bonus and a lift come on top
        payment.opening_id, payment.cents, payment.fee_cents = approved.opening_id, approved.cents, approved.fee_cents
        session.delete(approved)
        session.flush()
        ledger.settle(session, payment, office.clock())
    return True


@contextlib.contextmanager
def _void_if_foreign(office: RecruitingContext, number: int) -> Iterator[None]:
    """Nothing is owed to somebody who came with another's submission: who takes part under many names is paid once."""
    try:
        yield
    except ForeignSubmissionError:
        with office.writing() as session:
            session.get_one(Payment, number).state = "void"
        raise


def _record_retry(office: RecruitingContext, number: int) -> None:
    """A grant is sent now: where a payment shows late, whether it was made is not asked sooner after this than then."""
    with office.writing() as session:
        session.get_one(Payment, number).intended_at = office.clock()


def _direct_payment(office: RecruitingContext, number: int) -> DirectPayment | None:
    with office.reading() as session:
        payment = session.get_one(Payment, number)
        told = _submission_at_marketplace(session, office, payment)
        others = ledger.same_payments(session, payment)
    if told is None:
        return None
    reason = payment.reason or THANKS
    return DirectPayment(payment.token, told, payment.cents, payment.kind, reason, others)  # type: ignore[arg-type]


def _submission_at_marketplace(session: Session, office: RecruitingContext, payment: Payment) -> Told | None:
    """The submission that a grant is for, with the marketplace's own ids."""
    if payment.assignment_id is None:
        return None
    assignment = session.get_one(Assignment, payment.assignment_id)
    who = recall(session, office.vault, assignment.listener)
    row = session.get(MarketplaceSubmission, payment.submission_id) if payment.submission_id else None
    if who is None or who.worker is None:
        raise MarketplaceError(f"who listener {assignment.listener.pseudonym} is, is not known any more.")
    if row is None or office.door.submission_key(who.worker, who.submission) == row.key:
        return Told(who.submission, who.worker, who.opening, row.status if row else "submitted")  # type: ignore[arg-type]
    for told in office.recruiter.submissions(row.opening).submissions:
        if submission_key(office, told) == row.key:
            return told
    raise MarketplaceError(
        f"the submission of listener {assignment.listener.pseudonym} is not at the marketplace any more."
    )


def _settle(office: RecruitingContext, number: int) -> None:
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())


def pay_directly(
    office: RecruitingContext, assignment: int, kind: Kind, amount: int, reason: str, submission: int | None
) -> bool:
    """Pay a grant: written down, sent, written down again; whether it was sent.

    One that was written down before is left to `reconcile`, unless it was to be paid by an approval that came to
    nothing: the place was given back since.
    """
    with office.writing() as session:
        row = session.get(MarketplaceSubmission, submission) if submission else None
        fee = office.recruiter.fee(amount)
        who = session.get_one(Assignment, assignment)
        payment = ledger.find(session, who, kind)
        if payment is not None:
            if is_under_way(session, payment):
                return False
            # While its opening is not settled, that counts in full, and so will this beside it.
            if session.get_one(Posting, payment.opening_id).settled_at is None:
                ledger.require_budget(session, amount + fee)
            payment.opening_id, payment.cents, payment.fee_cents = None, amount, fee
            payment.submission_id, payment.intended_at = submission, office.clock()
        else:
            payment = ledger.record_pending(
                session, who, kind, amount, fee, office.clock(), submission=row, reason=reason
            )
        number = payment.id
    if not office.recruiter.terms.by_hand and (sent := _direct_payment(office, number)):
        with _void_if_foreign(office, number):
            office.recruiter.bonus(sent)
    _settle(office, number)
    return True


def record_manual_payments(office: RecruitingContext, paid: Iterable[tuple[int, Kind, int, str]]) -> int:
    """Write down, all or none, what was paid by hand: assignment, kind, cents, reason. How many were new.

    Raises:
        OverBudget: where the launch's budget has no room for it.
    """
    new = 0
    with office.writing() as session:
        for number, kind, amount, reason in paid:
            who, now = session.get_one(Assignment, number), office.clock()
            if ledger.find(session, who, kind) is None:
                ledger.settle(session, ledger.record_pending(session, who, kind, amount, 0, now, reason=reason), now)
                new += 1
    return new


def post_place_for(office: RecruitingContext, due: DuePayment) -> None:
    """Order one place for a listener who could not submit, worth what they are owed."""
    with office.writing() as session:
        ledger.require_budget(session, due.cost)
        assignment = session.get_one(Assignment, due.assignment)
        opening = Posting(
            token=ledger.new_token("owed"),
            places=1,
            reward_cents=due.cents,
            fee_cents=due.fee,
            owed_to=assignment.id,
            ordered_at=office.clock(),
        )
        session.add(opening)
        session.flush()
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.fee, office.clock(), opening=opening
        )
        payment.opening_id, number = opening.id, opening.id  # an earlier place was not taken in time
    place_order(office, number)


def paid_submission(session: Session, assignment: Assignment) -> int | None:
    """The submission that a bonus goes with: the one that was paid, or the last that was handed in."""
    paid = select(Payment.submission_id).where(
        Payment.assignment_id == assignment.id, Payment.submission_id.is_not(None), Payment.state == "paid"
    )
    if (found := session.scalar(paid.limit(1))) is not None:
        return found
    handed_in = MarketplaceSubmission.status.in_(("submitted", "approved"))
    query = select(MarketplaceSubmission.id).where(MarketplaceSubmission.assignment_id == assignment.id, handed_in)
    return session.scalar(query.order_by(MarketplaceSubmission.id.desc()).limit(1))
