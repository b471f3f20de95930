"""Prolific's data: participants, studies, and the submissions to them.

Money is in the account's currency, exact to the cent. The fee is a share of what a participant is paid, tax a share of
the fee; each is rounded to the cent, half up, for every payment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from server.simulation.marketplaces.account import RefusedError
from server.simulation.marketplaces.money import cents
from server.simulation.marketplaces.prolific_requests import CompletionCode, CreateStudy

Status = Literal[
    "RESERVED",
    "ACTIVE",
    "TIMED-OUT",
    "AWAITING REVIEW",
    "APPROVED",
    "RETURNED",
    "REJECTED",
    "SCREENED OUT",
]
StudyStatus = Literal["UNPUBLISHED", "ACTIVE", "PAUSED", "AWAITING REVIEW", "COMPLETED"]
OPEN: tuple[Status, ...] = ("RESERVED", "ACTIVE")
TAKING: tuple[Status, ...] = ("RESERVED", "ACTIVE", "AWAITING REVIEW", "APPROVED", "SCREENED OUT")  # fill a place
UNPAID: tuple[Status, ...] = ("RESERVED", "ACTIVE", "AWAITING REVIEW")  # may still have to be paid
RESERVATION = timedelta(minutes=10)
FEE_RATE = Fraction(1, 3)  # academic and non-profit; others pay 42.8 %


class FakeProlificError(RefusedError):
    """A request that Prolific refuses: HTTP status, its own error code, and why."""

    def __init__(self, title: str, detail: Any, status: int = 400, code: int = 140100) -> None:
        super().__init__(str(detail))
        self.title, self.detail, self.status, self.code = title, detail, status, code


@dataclass(frozen=True)
class FeeSchedule:
    """Prolific's charges on a payment."""

    fee_rate: Fraction = FEE_RATE
    tax_rate: Fraction = Fraction(0)

    def fee(self, amount: Decimal) -> Decimal:
        return _share(amount, self.fee_rate)

    def tax(self, amount: Decimal) -> Decimal:
        return _share(self.fee(amount), self.tax_rate)

    def cost(self, amount: Decimal) -> Decimal:
        """The amount with fee and tax."""
        return amount + self.fee(amount) + self.tax(amount)


def _share(amount: Decimal, rate: Fraction) -> Decimal:
    return cents(amount * rate.numerator / rate.denominator)


@dataclass
class FakeParticipant:
    """Someone with an account; `country` and `languages` are Prolific's choice ids ("1": United States)."""

    id: str
    country: str = "1"
    languages: tuple[str, ...] = ("19",)
    approval_rate: int = 99
    approvals: int = 500
    age: int = 35


@dataclass
class FakeSubmission:
    """One participant's one attempt at a study."""

    id: str
    study: FakeStudy
    participant: str
    reserved: datetime
    status: Status = "RESERVED"
    started: datetime | None = None
    completed: datetime | None = None
    code: str | None = None
    bonuses: list[Decimal] = field(default_factory=list)
    return_requested: datetime | None = None
    left: bool = False  # the reservation ended before the study was opened

    def ends(self) -> datetime:
        """When its time runs out."""
        if self.started is None:
            return self.reserved + RESERVATION
        return self.started + self.study.allowed

    def describe(self) -> dict[str, Any]:
        """As it is retrieved by id."""
        return {
            "id": self.id,
            "study_id": self.study.id,
            "participant": self.participant,
            "status": self.status,
            "started_at": _stamp(self.started or self.reserved),
            "completed_at": _stamp(self.completed),
            "entered_code": self.code,
            "bonus_payments": [int(bonus * 100) for bonus in self.bonuses],
            "return_requested": _stamp(self.return_requested),
        }

    def list_entry(self) -> dict[str, Any]:
        """As it appears in a list, where the field of the participant has another name."""
        taken = (self.completed - self.started).total_seconds() if self.completed and self.started else None
        entry = self.describe() | {"participant_id": self.participant, "time_taken": taken}
        entry |= {"study_code": self.code, "is_complete": self.completed is not None, "reward": self.study.given.reward}
        del entry["participant"], entry["study_id"]
        return entry


@dataclass
class FakeStudy:
    """One study; `given` is the request that created it, `places` how many may take part."""

    id: str
    given: CreateStudy
    created: datetime
    places: int
    status: StudyStatus = "UNPUBLISHED"
    published: datetime | None = None
    submissions: list[FakeSubmission] = field(default_factory=list)

    @property
    def reward(self) -> Decimal:
        return Decimal(self.given.reward) / 100

    @property
    def allowed(self) -> timedelta:
        return timedelta(minutes=self.given.maximum_allowed_time or 5 * self.given.estimated_completion_time)

    def count(self, *statuses: Status) -> int:
        return sum(one.status in statuses for one in self.submissions)

    @property
    def taken(self) -> int:
        return self.count(*TAKING)

    def code(self, text: str) -> CompletionCode | None:
        return next((one for one in self.given.completion_codes if one.code == text), None)

    def settle_status(self) -> None:
        """A full study without open submissions awaits review; with new places it is active again."""
        full = self.taken >= self.places and not self.count(*OPEN)
        if self.status == "ACTIVE" and full:
            self.status = "AWAITING REVIEW"
        elif self.status == "AWAITING REVIEW" and not full:
            self.status = "ACTIVE"

    def on_hold(self, tariff: FeeSchedule) -> Decimal:
        """The amount reserved for places that may still be paid."""
        open_places = max(self.places - self.taken, 0) if self.status in ("ACTIVE", "PAUSED", "AWAITING REVIEW") else 0
        return tariff.cost(self.reward) * (open_places + self.count(*UNPAID))

    def summary(self) -> dict[str, Any]:
        """As it appears in a list."""
        return {
            "id": self.id,
            "name": self.given.name,
            "internal_name": self.given.internal_name,
            "status": self.status,
            "reward": self.given.reward,
            "total_available_places": self.places,
            "places_taken": self.taken,
            "number_of_submissions": len(self.submissions),
            "date_created": _stamp(self.created),
            "published_at": _stamp(self.published),
        }

    def describe(self) -> dict[str, Any]:
        """As it is retrieved by id."""
        return self.given.model_dump(mode="json") | self.summary()


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
