"""Mechanical Turk's data: HIT types, HITs and the places in them.

A HIT has one place for each possible assignment, with the id that the assignment will have: a place that is returned or
abandoned is free again under the same id, for the same worker or for another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from server.simulation.marketplaces.account import RefusedError
from server.simulation.marketplaces.money import cents

Status = Literal["free", "pending", "Submitted", "Approved", "Rejected"]
SUBMITTED: tuple[Status, ...] = ("Submitted", "Approved", "Rejected")
FEE_RATE, EXTRA_RATE, MANY, LEAST_FEE = Decimal("0.20"), Decimal("0.20"), 10, Decimal("0.01")


class FakeMTurkError(RefusedError):
    """A request that Mechanical Turk refuses, with its TurkErrorCode (without the common prefix)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = f"AWS.MechanicalTurk.{code}", message


@dataclass(frozen=True)
class HitType:
    """The properties that HITs share; `group` is the group in which workers see them."""

    id: str
    group: str
    title: str
    description: str
    keywords: str
    reward: Decimal
    duration: timedelta
    auto_approval: timedelta
    requirements: tuple[dict[str, Any], ...]


@dataclass
class HitAssignment:
    """One assignment of a HIT, or the free place for one."""

    id: str
    hit: Hit
    status: Status = "free"
    worker: str = ""
    accepted: datetime | None = None
    submitted: datetime | None = None
    judged: datetime | None = None
    answer: str = ""
    feedback: str | None = None

    @property
    def deadline(self) -> datetime | None:
        return self.accepted + self.hit.type.duration if self.accepted else None

    @property
    def auto_approval(self) -> datetime | None:
        return self.submitted + self.hit.type.auto_approval if self.submitted else None

    def free(self) -> None:
        self.status, self.worker, self.accepted = "free", "", None

    def describe(self) -> dict[str, Any]:
        """The Assignment of the service model."""
        return {
            "AssignmentId": self.id,
            "WorkerId": self.worker,
            "HITId": self.hit.id,
            "AssignmentStatus": self.status,
            "AutoApprovalTime": self.auto_approval,
            "AcceptTime": self.accepted,
            "SubmitTime": self.submitted,
            "ApprovalTime": self.judged if self.status == "Approved" else None,
            "RejectionTime": self.judged if self.status == "Rejected" else None,
            "Deadline": self.deadline,
            "Answer": self.answer,
            "RequesterFeedback": self.feedback,
        }


@dataclass
class Hit:
    """One HIT; `small` HITs were made for fewer than ten assignments and stay below."""

    id: str
    type: HitType
    question: str
    annotation: str | None
    created: datetime
    expires: datetime
    places: list[HitAssignment] = field(default_factory=list)
    returned: dict[str, str] = field(default_factory=dict)  # worker -> the place they returned
    reviewing: bool = False
    disposed: bool = False

    def count(self, *statuses: Status) -> int:
        return sum(place.status in statuses for place in self.places)

    def is_open(self, now: datetime) -> bool:
        return not self.disposed and now < self.expires

    def status(self, now: datetime) -> str:
        if self.disposed:
            return "Disposed"
        if self.reviewing:
            return "Reviewing"
        if self.count("free") and self.is_open(now):
            return "Assignable"
        return "Unassignable" if self.count("pending") else "Reviewable"

    def unit_cost(self) -> Decimal:
        """The cost of one assignment: reward and fee."""
        return self.type.reward + fee(self.type.reward, len(self.places))

    def on_hold(self, now: datetime) -> Decimal:
        """The amount reserved for assignments that may still be paid."""
        if self.disposed:
            return Decimal("0.00")
        return self.unit_cost() * (self.count("pending", "Submitted") + self.count("free") * self.is_open(now))

    def place_for(self, worker: str) -> HitAssignment | None:
        """The place this worker gets: the one they returned if it is still free, else the first free one."""
        free = [place for place in self.places if place.status == "free"]
        return next((place for place in free if place.id == self.returned.get(worker)), free[0] if free else None)

    def describe(self, now: datetime) -> dict[str, Any]:
        """The HIT of the service model."""
        kind = self.type
        return {
            "HITId": self.id,
            "HITTypeId": kind.id,
            "HITGroupId": kind.group,
            "CreationTime": self.created,
            "Title": kind.title,
            "Description": kind.description,
            "Question": self.question,
            "Keywords": kind.keywords or None,
            "HITStatus": self.status(now),
            "MaxAssignments": len(self.places),
            "Reward": f"{kind.reward:.2f}",
            "AutoApprovalDelayInSeconds": int(kind.auto_approval.total_seconds()),
            "Expiration": self.expires,
            "AssignmentDurationInSeconds": int(kind.duration.total_seconds()),
            "RequesterAnnotation": self.annotation,
            "QualificationRequirements": list(kind.requirements),
            "HITReviewStatus": "NotReviewed",
            "NumberOfAssignmentsPending": self.count("pending"),
            "NumberOfAssignmentsAvailable": self.count("free"),
            "NumberOfAssignmentsCompleted": self.count("Approved", "Rejected"),
        }


def fee(amount: Decimal, assignments: int) -> Decimal:
    """Mechanical Turk's fee on a reward or bonus of a HIT with this many assignments, to the cent, half up."""
    if not amount:
        return Decimal("0.00")
    return max(cents(amount * (FEE_RATE + EXTRA_RATE * (assignments >= MANY))), LEAST_FEE)
