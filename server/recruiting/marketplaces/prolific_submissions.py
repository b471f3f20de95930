"""Submissions on Prolific: reading them, approving, asking for a return, and paying bonuses for them.

Bonuses carry no token, and paying the same batch again pays again: whether one was paid is read from its submission.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from server.db.enums import PaymentKind, SubmissionStatus
from server.recruiting.marketplaces.base import (
    DirectPayment,
    ForeignSubmissionError,
    MarketplaceError,
    ReportedSubmission,
)
from server.recruiting.marketplaces.prolific_api import WAITS, ProlificApiError, ProlificClient

# Whatever is not here is left to a person: it is neither held for ever nor paid by itself.
STATUSES: dict[str, SubmissionStatus] = {
    "RESERVED": SubmissionStatus.HELD,
    "ACTIVE": SubmissionStatus.HELD,
    "AWAITING REVIEW": SubmissionStatus.SUBMITTED,
    "APPROVED": SubmissionStatus.APPROVED,
    "PARTIALLY APPROVED": SubmissionStatus.APPROVED,
    "REJECTED": SubmissionStatus.REJECTED,
    "RETURNED": SubmissionStatus.RETURNED,
    "TIMED-OUT": SubmissionStatus.TIMED_OUT,
    "SCREENED OUT": SubmissionStatus.SCREENED_OUT,
}
IN_REVIEW = "AWAITING REVIEW"


class ProlificSubmissions:
    """The submissions of all studies."""

    def __init__(self, api: ProlificClient) -> None:
        self._api = api
        self.paid: dict[str, tuple[str, int]] = {}  # token -> submission and cents, of this process

    def of(self, study: str) -> tuple[ReportedSubmission, ...]:
        """All submissions of a study; one that is listed twice, because a page moved on, counts once."""
        found = {str(one["id"]): _read(one, study) for one in self._api.pages("/submissions/", study=study)}
        return tuple(found.values())

    def approve(self, submission: ReportedSubmission) -> None:
        """Approve; waits for a submission that is being completed at this moment."""
        for attempt in range(len(WAITS)):
            try:
                self._api.post(f"/submissions/{submission.id}/transition/", {"action": "APPROVE"}, retry=True)
                return
            except ProlificApiError as refused:
                status = str(self._get(submission)["status"])
                if status == "APPROVED":
                    return
                if status != "ACTIVE" or attempt == len(WAITS) - 1 or refused.status != 400:
                    raise MarketplaceError(
                        f"the submission {submission.id} is {status} on Prolific; {refused}"
                    ) from refused
            self._api.wait(attempt)

    def request_return(self, submission: ReportedSubmission, reason: str) -> None:
        """Ask the participant to return a submission that awaits review."""
        asked = {"request_return_reasons": [reason]}
        self._api.post(f"/submissions/{submission.id}/request-return/", asked, retry=True)

    def pay(self, payment: DirectPayment) -> None:
        """Pay a bonus, unless it was paid before.

        Raises:
            ForeignSubmissionError: if the submission belongs to another participant.
            MarketplaceError: if the submission itself would still be paid.
        """
        if self.has_paid(payment):
            return
        submission, status = payment.submission, self._own_submission(payment.submission)["status"]
        if status == "APPROVED" and payment.kind not in (PaymentKind.BONUS, PaymentKind.LIFT):
            raise MarketplaceError(
                f"the submission {submission.id} was approved on Prolific, which pays its reward; run `rootnote server "
                "sync` to record that."
            )
        if payment.kind == PaymentKind.SCREEN_OUT and status in ("RESERVED", "ACTIVE", IN_REVIEW):
            if status == IN_REVIEW:
                self.request_return(submission, payment.reason)
            raise MarketplaceError(
                f"the submission {submission.id} is {status} on Prolific; its participant is paid once it is returned."
            )
        rows = {"study_id": submission.opening, "csv_bonuses": f"{submission.id},{Decimal(payment.cents) / 100:.2f}"}
        # Preparing a batch pays nothing, so it may be done again; paying one may not.
        batch = self._api.post("/submissions/bonus-payments/", rows, retry=True)
        self._api.post(f"/bulk-bonus-payments/{batch['id']}/pay/")
        self.paid[payment.token] = (submission.id, payment.cents)

    def has_paid(self, payment: DirectPayment) -> bool:
        """Whether this payment was made, as far as the submission shows by now."""
        if payment.token in self.paid:
            return True
        reported = self._own_submission(payment.submission)
        if payment.kind == PaymentKind.SCREEN_OUT and reported["status"] == "SCREENED OUT":
            return True
        others = list(self.paid.values()).count((payment.submission.id, payment.cents))
        paid = [round(amount) for amount in reported.get("bonus_payments") or []]
        return paid.count(payment.cents) > max(others, payment.same_payments)

    def _own_submission(self, submission: ReportedSubmission) -> dict[str, Any]:
        """A submission as Prolific reports it, of the participant who is to be paid for it."""
        try:
            reported = self._get(submission)
        except ProlificApiError as refused:
            if refused.status != 404:
                raise
            self._api.get(f"/studies/{submission.opening}/")  # this is refused too if the token is the problem
            raise ForeignSubmissionError(f"Prolific knows no submission {submission.id}.") from refused
        if _participant(reported) != submission.worker:
            raise ForeignSubmissionError(f"on Prolific the submission {submission.id} belongs to another participant.")
        return reported

    def _get(self, submission: ReportedSubmission) -> dict[str, Any]:
        return self._api.get(f"/submissions/{submission.id}/")


def _read(reported: Mapping[str, Any], study: str) -> ReportedSubmission:
    at = reported.get("completed_at") or reported.get("started_at")
    status = STATUSES.get(str(reported.get("status")), SubmissionStatus.SUBMITTED)
    moment = datetime.fromisoformat(at) if at else None
    requested = bool(reported.get("return_requested"))
    return ReportedSubmission(str(reported["id"]), _participant(reported), study, status, moment, requested)


def _participant(reported: Mapping[str, Any]) -> str:
    """Whose submission it is; a list uses another name for this field than a single submission."""
    return str(reported.get("participant_id") or reported.get("participant") or "")
