"""The states of submissions and payments, as the database stores them."""

from __future__ import annotations

import enum
from typing import Literal

RunOutcome = Literal["finished", "screened_out", "left"]  # of a run, as it is reported to the marketplace


class SubmissionStatus(enum.StrEnum):
    """The state of a place that a worker took at a marketplace."""

    HELD = "held"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    RETURNED = "returned"
    TIMED_OUT = "timed_out"
    SCREENED_OUT = "screened_out"


class RunVerification(enum.StrEnum):
    """Whether a run belongs to a real person of the marketplace.

    `CONFIRMED`: the marketplace lists the worker and the submission or signed the arrival, or a personal link or a
    signed id was used. `UNCONFIRMED`: the marketplace has not listed them yet; the run does not count. `UNVERIFIED`:
    nobody lists such runs (an open link); it counts and is labelled.
    """

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    UNVERIFIED = "unverified"


class PaymentState(enum.StrEnum):
    """`PENDING` before the marketplace is asked, `PAID` after, `VOID` if nothing is owed any more."""

    PENDING = "pending"
    PAID = "paid"
    VOID = "void"


class CallbackState(enum.StrEnum):
    """The state of a call to a panel's server: `SENDING` before it is made; only `WAITING` calls are made again."""

    SENDING = "sending"
    DONE = "done"
    WAITING = "waiting"
    UNCLEAR = "unclear"  # it may have arrived: a person decides
    REFUSED = "refused"  # the panel refused it, or could not be reached for hours


class PaymentKind(enum.StrEnum):
    """The purpose of a payment."""

    REWARD = "reward"  # finished
    SCREEN_OUT = "screen_out"  # failed the prescreen, or could not hear
    PARTIAL = "partial"  # left early, or was away too long
    BONUS = "bonus"  # added by a researcher
    LIFT = "lift"  # raises the hourly pay to the minimum
    PAID_AGAIN = "paid_again"  # the marketplace paid for a submission that a direct payment had paid for already


LIVE = (SubmissionStatus.HELD, SubmissionStatus.SUBMITTED)  # the place is held, or the work awaits review
