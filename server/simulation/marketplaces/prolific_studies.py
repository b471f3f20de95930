"""Prolific's data: participants, studies, and the submissions to them.

Money is in the account's currency. The fee is a share of what a participant is paid, tax a share of the fee; both are
kept at full precision, to a millionth of a cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any, Literal

from server.simulation.marketplaces.account import RefusedError
from server.simulation.marketplaces.prolific_requests import CompletionCode, CreateStudy

Status = Literal[
    "RESERVED",
    "ACTIVE",
    "TIMED-OUT",
    "AWAITING REVIEW",
    "APPROVED",
    "PARTIALLY APPROVED",
    "RETURNED",
    "REJECTED",
    "SCREENED OUT",
]
StudyStatus = Literal["UNPUBLISHED", "SCHEDULED", "PUBLISHING", "ACTIVE", "PAUSED", "AWAITING REVIEW", "COMPLETED"]
OPEN: tuple[Status, ...] = ("RESERVED", "ACTIVE")
NOT_TAKING: tuple[Status, ...] = ("TIMED-OUT", "RETURNED")  # all others fill a place
UNPAID: tuple[Status, ...] = ("RESERVED", "ACTIVE", "AWAITING REVIEW")  # may still have to be paid
RUNNING: tuple[StudyStatus, ...] = ("SCHEDULED", "PUBLISHING", "ACTIVE", "PAUSED", "AWAITING REVIEW")
RESERVATION = timedelta(minutes=10)
AUTO_APPROVAL = timedelta(days=21)
FEE_RATE = Fraction(1, 3)  # academic and non-profit; others pay 42.8 %
PRECISION = Decimal("0.00000001")


class FakeProlificError(RefusedError):
    """A request that Prolific refuses: HTTP status, its own error code, and why."""

    def __init__(self, title: str, detail: Any, status: int = 400, code: int = 140100) -> None:
        super().__init__(str(detail))
        self.title, self.detail, self.status, self.code = title, detail, status, code


def not_found(what: str) -> FakeProlificError:
    return FakeProlificError("Not found", f"{what} does not exist.", 404, 140404)


@dataclass(frozen=True)
class FeeSchedule:
    """Prolific's charges on a payment."""

    fee_rate: Fraction = FEE_RATE
    tax_rate: Fraction = Fraction(0)

    def fee(self, amount: Decimal) -> Decimal:
        return _share(amount, self.fee_rate)

    def tax(self, amount: Decimal) -> Decimal:
        return _share(amount, self.fee_rate * self.tax_rate)

    def cost(self, amount: Decimal) -> Decimal:
        """The amount with fee and tax."""
        return amount + self.fee(amount) + self.tax(amount)


def _share(amount: Decimal, rate: Fraction) -> Decimal:
    return (amount * rate.numerator / rate.denominator).quantize(PRECISION, ROUND_HALF_UP)


@dataclass
class FakeParticipant:
    """Someone with an account; `country` and `languages` are Prolific's choice ids ("1": United States).

    `answers`: their choice for each further filter. `test`: sees test studies only, and nothing is paid to them.
    """

    id: str
    country: str = "1"
    languages: tuple[str, ...] = ("19",)
    approval_rate: int = 99
    approvals: int = 500
    age: int = 35
    answers: Mapping[str, str] = field(default_factory=dict)
    test: bool = False


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
        found = self.after_transition() | {"status": self.status, "parent_study_id": None}
        found["bonus_payments"] = [float(bonus * 100) for bonus in self.bonuses]
        return found | {"return_requested": stamp(self.return_requested)}

    def after_transition(self) -> dict[str, Any]:
        """As a transition answers, which knows no partial approval."""
        return {
            "id": self.id,
            "study_id": self.study.id,
            "participant": self.participant,
            "status": self._short_status,
            "started_at": stamp(self.started or self.reserved),
            "completed_at": stamp(self.completed),
            "entered_code": self.code,
        }

    def list_entry(self) -> dict[str, Any]:
        """As it appears in a list, where the fields of the participant and the code have other names."""
        same = [one for one in self.study.submissions if one.participant == self.participant]
        return {
            "id": self.id,
            "participant_id": self.participant,
            "status": self._short_status,
            "started_at": stamp(self.started or self.reserved),
            "completed_at": stamp(self.completed),
            "has_siblings": len(same) > 1,
            "study_code": self.code,
            "return_requested": stamp(self.return_requested),
        }

    @property
    def _short_status(self) -> str:
        return "APPROVED" if self.status == "PARTIALLY APPROVED" else self.status


@dataclass
class FakeStudy:
    """One study; `given` is the request that created it, `places` how many may take part."""

    id: str
    given: CreateStudy
    created: datetime
    places: int
    project: str = ""
    status: StudyStatus = "UNPUBLISHED"
    published: datetime | None = None
    publish_at: datetime | None = None
    test: bool = False
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
        return len(self.submissions) - self.count(*NOT_TAKING)

    @property
    def slots(self) -> int:
        """How many screen-outs may be paid, those so far included."""
        action = self.given.screen_out
        return action.slots or 0 if action else 0

    @property
    def screen_out_reward(self) -> Decimal:
        action = self.given.screen_out
        return Decimal(action.fixed_screen_out_reward or 0) / 100 if action else Decimal(0)

    def code(self, text: str) -> CompletionCode | None:
        return next((one for one in self.given.completion_codes if one.code == text), None)

    def settle_status(self) -> None:
        """A full study awaits review, and is complete once all is decided; with new places it is active again.

        A study pauses by itself when its last paid screen-out is used and there are places left.
        """
        full = self.taken >= self.places and not self.count(*OPEN)
        if self.status == "ACTIVE" and full:
            self.status = "AWAITING REVIEW"
        elif self.status == "AWAITING REVIEW" and not full:
            self.status = "ACTIVE"
        if self.status == "AWAITING REVIEW" and not self.count("AWAITING REVIEW"):
            self.status = "COMPLETED"

    def pause_without_slots(self) -> None:
        """A study pauses by itself when its last paid screen-out is used and there are places left."""
        used_up = self.slots and self.count("SCREENED OUT") >= self.slots
        if self.status == "ACTIVE" and used_up and self.taken < self.places:
            self.status = "PAUSED"

    def open_places(self) -> int:
        """How many places may still be taken while it runs."""
        return max(self.places - self.taken, 0) if self.status in RUNNING else 0

    def on_hold(self, tariff: FeeSchedule) -> Decimal:
        """The amount reserved for places and screen-outs that may still be paid."""
        if self.test:
            return Decimal("0.00")
        left = max(self.slots - self.count("SCREENED OUT"), 0) if self.status in RUNNING else 0
        places = tariff.cost(self.reward) * (self.open_places() + self.count(*UNPAID))
        return places + tariff.cost(self.screen_out_reward) * left

    def summary(self, tariff: FeeSchedule) -> dict[str, Any]:
        """As it appears in a list."""
        return {
            "id": self.id,
            "name": self.given.name,
            "internal_name": self.given.internal_name,
            "status": self.status,
            "estimated_completion_time": self.given.estimated_completion_time,
            "total_available_places": self.places,
            "places_taken": self.taken,
            "number_of_submissions": len(self.submissions),
            "reward": self.given.reward,
            "total_cost": float(tariff.cost(self.reward) * self.places * 100),
            "date_created": stamp(self.created),
            "published_at": stamp(self.published),
            "publish_at": stamp(self.publish_at),
            "is_ready_to_publish": True,
        }

    def describe(self) -> dict[str, Any]:
        """As it is retrieved by id."""
        given = self.given.model_dump(mode="json", exclude_none=True)
        given |= {"total_available_places": self.places, "project": self.project}
        return given | {"id": self.id, "status": self.status, "is_ready_to_publish": True}


def stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
