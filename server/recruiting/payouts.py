"""Paying what is due outside approvals: a whole list, or one bonus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from embeddings.errors import RootnoteError
from server.db.enums import PaymentKind
from server.db.models import Assignment
from server.payments import ledger
from server.payments.fees import rounded_up
from server.recruiting import direct_payments
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.due import PAYABLE, DuePayment, PaymentMethod, all_due
from server.recruiting.marketplaces.base import ForeignSubmissionError, UnknownWorkerError


@dataclass(frozen=True)
class Bonus:
    """A bonus for one assignment, in cents; `submission` is our id of the submission that it goes with."""

    assignment: int
    pseudonym: str
    cents: int
    fee: int
    reason: str
    submission: int | None


def payable(context: RecruitingContext) -> tuple[list[DuePayment], dict[int, str]]:
    """The payments that `pay` makes now, and the completion codes of those listeners by assignment."""
    with context.reading() as session:
        due = [one for one in all_due(session, context) if one.method in PAYABLE]
        codes = {one.assignment: session.get_one(Assignment, one.assignment).completion_code for one in due}
    return due, codes


def require_room(context: RecruitingContext, amount: int) -> None:
    """Check the budget before the researcher pays by hand: the payment is recorded only afterwards.

    Raises:
        OverBudgetError: if the budget does not allow it.
    """
    with context.writing() as session:
        ledger.require_budget(session, amount)


def pay_all(context: RecruitingContext, due: Sequence[DuePayment], report: Report) -> tuple[int, int]:
    """Pay these; returns how many were paid, and how many places were made for others.

    A listener who arrived with a false id is reported and not paid.
    """
    if context.marketplace.capabilities.pays_by_hand:
        payments = [(one.assignment, one.kind, one.cents, "") for one in due]
        return direct_payments.record_manual_payments(context, payments), 0
    paid, places = 0, 0
    for one in due:
        try:
            if one.method is PaymentMethod.PLACE:
                direct_payments.post_place_for(context, one)
                places += 1
            else:
                paid += direct_payments.pay_directly(context, one.assignment, one.kind, one.cents, "", one.submission)
        except (UnknownWorkerError, ForeignSubmissionError) as error:
            report(f"Assignment {one.pseudonym} is not paid: {error}")
    return paid, places


def find_bonus(context: RecruitingContext, pseudonym: str, amount: int | None, reason: str) -> Bonus:
    """The bonus for an assignment.

    Raises:
        RootnoteError: if it cannot be paid.
    """
    if not amount or not reason.strip():
        raise RootnoteError("a bonus needs an amount above 0 and a --reason, which the listener reads.")
    with context.reading() as session:
        found = session.scalar(select(Assignment).where(Assignment.pseudonym == pseudonym))
        if found is None:
            raise RootnoteError(
                f"there is no assignment {pseudonym}; `rootnote server export` lists all of them in listeners.csv."
            )
        if ledger.find(session, found, PaymentKind.BONUS) is not None:
            raise RootnoteError(f"assignment {pseudonym} already has a bonus; an assignment can have only one.")
        submission = direct_payments.paid_submission(session, found)
        number = found.id
    if submission is None and not context.marketplace.capabilities.pays_unsubmitted:
        raise RootnoteError(f"assignment {pseudonym} has no submission, so a bonus cannot reach this listener.")
    return Bonus(number, pseudonym, amount, rounded_up(context.marketplace.exact_fee(amount)), reason, submission)


def pay_bonus(context: RecruitingContext, bonus: Bonus) -> bool:
    """Pay a bonus; whether it was sent."""
    return direct_payments.pay_directly(
        context, bonus.assignment, PaymentKind.BONUS, bonus.cents, bonus.reason, bonus.submission
    )
