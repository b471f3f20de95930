"""Mechanical Turk's rules: what happens to HITs, assignments, qualifications and money.

Times come from the market's clock; nothing here depends on HTTP. Where the requester's documentation is silent, the
emulator assumes: the cost of every assignment that may still be paid is reserved from the balance, and released when
the HIT expires with the place still free; a fee is rounded to the cent, half up, and is at least one cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from server.simulation.marketplaces.account import Account
from server.simulation.marketplaces.money import Kind, LedgerLine
from server.simulation.marketplaces.turk_places import (
    MANY,
    SUBMITTED,
    FakeMTurkError,
    Hit,
    HitAssignment,
    HitType,
    fee,
)
from server.simulation.marketplaces.turk_questions import read_question
from server.simulation.marketplaces.turk_workers import FakeWorker, Qualification, check_requirement

TOKEN_LIFE = timedelta(hours=24)
OVERRIDE_WITHIN = timedelta(days=30)
DISPOSED_AFTER = timedelta(days=120)
MOST_BONUS = Decimal(10_000)
LIMITS = {
    "AssignmentDurationInSeconds": (30, 31_536_000),
    "LifetimeInSeconds": (30, 31_536_000),
    "AutoApprovalDelayInSeconds": (0, 2_592_000),
    "MaxAssignments": (1, 1_000_000_000),
    "NumberOfAdditionalAssignments": (1, 1_000_000_000),
}
LENGTHS = {"Title": 128, "Description": 2000, "Keywords": 1000, "RequesterAnnotation": 255, "Name": 200}


def check_limits(given: dict[str, Any]) -> None:
    """Refuse numbers out of range and texts that are too long.

    Raises:
        FakeMTurkError: naming the parameter.
    """
    for name, (least, most) in LIMITS.items():
        if name in given and not least <= given[name] <= most:
            raise FakeMTurkError("ParameterValidationError", f"{name} must be between {least} and {most}.")
    for name, most in LENGTHS.items():
        if len(given.get(name, "")) > most:
            raise FakeMTurkError("ParameterValidationError", f"{name} must not be longer than {most} characters.")


class FakeMTurkState(Account):
    """One requester's account with its HITs, qualifications and money."""

    def __init__(
        self,
        deposit: Decimal,
        now: Callable[[], datetime],
        new_id: Callable[[str], str],
        pay: Callable[[LedgerLine], None],
    ) -> None:
        super().__init__(deposit, now, new_id, pay)
        self.types: dict[str, HitType] = {}
        self.hits: dict[str, Hit] = {}
        self.places: dict[str, HitAssignment] = {}
        self.workers: dict[str, FakeWorker] = {}
        self.bonuses: list[tuple[HitAssignment, dict[str, Any]]] = []
        self.qualification_types: dict[str, dict[str, Any]] = {}
        self.tokens: dict[tuple[str, str], tuple[datetime, str]] = {}
        self.messages: list[dict[str, Any]] = []
        self.blocks: dict[str, str] = {}

    # ------------------------------------------------------------------ money

    @property
    def on_hold(self) -> Decimal:
        now = self.now()
        return sum((hit.on_hold(now) for hit in self.hits.values()), Decimal("0.00"))

    def insufficient(self, amount: Decimal) -> FakeMTurkError:
        return FakeMTurkError(
            "InsufficientFunds",
            f"This Requester has insufficient funds in their account to complete this transaction. "
            f"${amount:.2f} is needed, ${self.available:.2f} is available.",
        )

    def _pay(self, kind: Kind, amount: Decimal, place: HitAssignment, reference: str = "") -> None:
        lines: dict[Kind, Decimal] = {kind: amount, "fee": fee(amount, len(place.hit.places))}
        self.pay_out(place.worker, place.id, lines, reference)

    # ------------------------------------------------------------------ tokens

    def spend_token(self, operation: str, token: str | None, life: timedelta | None = TOKEN_LIFE) -> str | None:
        """What was already created with a token; None if the token is new or forgotten."""
        made = self.tokens.get((operation, token or ""))
        if made is None or (life is not None and self.now() - made[0] > life):
            return None
        return made[1]

    def keep_token(self, operation: str, token: str | None, made: str) -> None:
        if token:
            self.tokens[operation, token] = (self.now(), made)

    # ------------------------------------------------------------------ HITs

    def create_type(self, given: dict[str, Any]) -> HitType:
        """The HIT type of these values: the existing one if they are the same."""
        check_limits(given)
        requirements = tuple(given.get("QualificationRequirements", ()))
        if len(requirements) > 10:
            raise FakeMTurkError("ParameterValidationError", "A HIT may have at most 10 qualification requirements.")
        for requirement in requirements:
            check_requirement(requirement, set(self.qualification_types))
        values = (
            given["Title"],
            given["Description"],
            given.get("Keywords", ""),
            Decimal(given["Reward"]),
            timedelta(seconds=given["AssignmentDurationInSeconds"]),
            timedelta(seconds=given.get("AutoApprovalDelayInSeconds", 2_592_000)),
            requirements,
        )
        for kind in self.types.values():
            same = (kind.title, kind.description, kind.keywords, kind.reward, kind.duration, kind.auto_approval)
            if (*same, kind.requirements) == values:
                return kind
        kind = HitType(self.new_id("3"), self.new_id("3"), *values)
        self.types[kind.id] = kind
        return kind

    def create_hit(self, kind: HitType, given: dict[str, Any]) -> Hit:
        check_limits(given)
        token = given.get("UniqueRequestToken")
        if earlier := self.spend_token("CreateHIT", token):
            raise FakeMTurkError("HitAlreadyExists", f"The HIT with ID {earlier} already exists for this token.")
        if "Question" not in given:
            raise FakeMTurkError("ParameterValidationError", "Question is required (layouts are not emulated).")
        read_question(given["Question"])
        now, number = self.now(), given.get("MaxAssignments", 1)
        self.require((kind.reward + fee(kind.reward, number)) * number)
        expires = now + timedelta(seconds=given["LifetimeInSeconds"])
        hit = Hit(self.new_id("3"), kind, given["Question"], given.get("RequesterAnnotation"), now, expires)
        self.hits[hit.id] = hit
        self._add_places(hit, number)
        self.keep_token("CreateHIT", token, hit.id)
        self.emit("HITCreated", {"HITId": hit.id, "HITTypeId": kind.id})
        return hit

    def _add_places(self, hit: Hit, number: int) -> None:
        for _ in range(number):
            place = HitAssignment(self.new_id("3"), hit)
            hit.places.append(place)
            self.places[place.id] = place

    def extend(self, hit: Hit, number: int, token: str | None) -> None:
        """Add places; a HIT made for fewer than ten assignments stays below."""
        check_limits({"NumberOfAdditionalAssignments": number})
        if earlier := self.spend_token("Extend", token):
            raise FakeMTurkError("DuplicateRequest", f'The idempotency token "{earlier}" has already been processed.')
        self._require_there(hit)
        if len(hit.places) < MANY <= len(hit.places) + number:
            raise FakeMTurkError(
                "InvalidMaximumAssignmentsIncrease",
                "A HIT created with fewer than 10 assignments cannot be extended to 10 or more.",
            )
        if hit.is_open(self.now()):
            self.require(hit.unit_cost() * number)
        self._add_places(hit, number)
        self.keep_token("Extend", token, token or "")
        self.emit("HITExtended", {"HITId": hit.id, "HITTypeId": hit.type.id})

    def expire(self, hit: Hit, at: datetime) -> None:
        """Move a HIT's end; the same end twice within a day is refused, as the real service does (Dallinger#3109)."""
        token = f"{hit.id}{at:%a %b %d %H:%M:%S UTC %Y}"
        if self.spend_token("Expire", token):
            raise FakeMTurkError("DuplicateRequest", f'The idempotency token "{token}" has already been processed.')
        self._require_there(hit)
        now = self.now()
        if at > now and not hit.is_open(now):
            self.require(hit.unit_cost() * hit.count("free"))
        hit.expires = max(min(at, now + timedelta(days=365)), hit.created) if at > now else min(hit.expires, now)
        self.keep_token("Expire", token, token)
        if at <= now:
            self.emit("HITExpired", {"HITId": hit.id, "HITTypeId": hit.type.id})

    def delete(self, hit: Hit) -> None:
        self._require_there(hit)
        if hit.status(self.now()) != "Reviewable" or hit.count("Submitted"):
            raise FakeMTurkError(
                "InvalidHITState",
                f"This HIT is currently in the state '{hit.status(self.now())}'. This operation can be called with a "
                "status of: Reviewable, with every assignment approved or rejected.",
            )
        self._dispose(hit)

    def review(self, hit: Hit, revert: bool) -> None:
        self._require_there(hit)
        if hit.status(self.now()) != ("Reviewing" if revert else "Reviewable"):
            raise FakeMTurkError("InvalidHITState", f"This HIT is in the state '{hit.status(self.now())}'.")
        hit.reviewing = not revert

    def _dispose(self, hit: Hit) -> None:
        hit.disposed = True
        self.emit("HITDisposed", {"HITId": hit.id, "HITTypeId": hit.type.id})

    def _require_there(self, hit: Hit) -> None:
        if hit.disposed:
            raise FakeMTurkError("HITDoesNotExist", f"Hit {hit.id} does not exist.")

    def hit(self, id_: str) -> Hit:
        if id_ not in self.hits:
            raise FakeMTurkError("HITDoesNotExist", f"Hit {id_} does not exist.")
        return self.hits[id_]

    # ------------------------------------------------------------------ assignments, as the requester sees them

    def assignment(self, id_: str) -> HitAssignment:
        """An assignment that was submitted."""
        place = self.places.get(id_)
        if place is None or place.status == "free":
            raise FakeMTurkError("AssignmentDoesNotExist", f"Assignment {id_} does not exist.")
        if place.status == "pending":
            raise FakeMTurkError("InvalidAssignmentState", "This operation can be called with a status of: Submitted.")
        return place

    def approve(self, place: HitAssignment, override: bool, feedback: str | None) -> None:
        if place.status == "Rejected" and override:
            assert place.submitted is not None
            if place.hit.disposed or self.now() - place.submitted > OVERRIDE_WITHIN:
                raise FakeMTurkError("InvalidAssignmentState", "This rejection can no longer be overridden.")
            self.require(place.hit.unit_cost())
        elif place.status != "Submitted":
            raise FakeMTurkError("InvalidAssignmentState", "This operation can be called with a status of: Submitted.")
        self._settle(place, "Approved", feedback)

    def reject(self, place: HitAssignment, feedback: str) -> None:
        if place.status != "Submitted":
            raise FakeMTurkError("InvalidAssignmentState", "This operation can be called with a status of: Submitted.")
        self._settle(place, "Rejected", feedback)

    def _settle(self, place: HitAssignment, status: Any, feedback: str | None) -> None:
        place.status, place.judged, place.feedback = status, self.now(), feedback or place.feedback
        if status == "Approved":
            self._pay("reward", place.hit.type.reward, place)
        self._emit_assignment_event(f"Assignment{status}", place)

    def send_bonus(self, given: dict[str, Any]) -> None:
        token = given.get("UniqueRequestToken")
        if self.spend_token("SendBonus", token, None):
            raise FakeMTurkError("DuplicateRequest", f'The idempotency token "{token}" has already been processed.')
        place, amount = self.assignment(given["AssignmentId"]), Decimal(given["BonusAmount"])
        if place.worker != given["WorkerId"]:
            raise FakeMTurkError("AssignmentDoesNotExist", f"Worker {given['WorkerId']} has no assignment {place.id}.")
        if not 0 < amount <= MOST_BONUS:
            raise FakeMTurkError("ParameterValidationError", "BonusAmount must be above 0 and at most 10000.")
        self.require(amount + fee(amount, len(place.hit.places)))
        self._pay("bonus", amount, place, token or "")
        self.keep_token("SendBonus", token, place.id)
        self.bonuses.append(
            (
                place,
                {
                    "WorkerId": place.worker,
                    "BonusAmount": f"{amount:.2f}",
                    "AssignmentId": place.id,
                    "Reason": given["Reason"],
                    "GrantTime": self.now(),
                },
            )
        )

    # ------------------------------------------------------------------ qualifications

    def create_qualification_type(self, given: dict[str, Any]) -> dict[str, Any]:
        check_limits(given)
        if any(kind["Name"] == given["Name"] for kind in self.qualification_types.values()):
            raise FakeMTurkError(
                "QualificationTypeAlreadyExists",
                f"You have already created a QualificationType with this name: {given['Name']}.",
            )
        kept = ("Name", "Description", "Keywords", "QualificationTypeStatus", "RetryDelayInSeconds", "AutoGranted")
        made = {name: given[name] for name in kept if name in given}
        made |= {"QualificationTypeId": self.new_id("3"), "CreationTime": self.now(), "IsRequestable": True}
        self.qualification_types[made["QualificationTypeId"]] = made
        return made

    def qualification_type(self, id_: str) -> dict[str, Any]:
        if id_ not in self.qualification_types:
            raise FakeMTurkError("QualificationTypeDoesNotExist", f"QualificationType {id_} does not exist.")
        return self.qualification_types[id_]

    def delete_qualification_type(self, id_: str) -> None:
        """Delete a type; nobody holds it any more."""
        self.qualification_type(id_)
        del self.qualification_types[id_]
        for worker in self.workers.values():
            worker.qualifications.pop(id_, None)

    def score(self, kind: str, worker: str) -> Qualification:
        """A granted qualification; a revoked one has no score."""
        self.qualification_type(kind)
        held = self.worker(worker).qualifications.get(kind)
        if held is None:
            raise FakeMTurkError("QualificationDoesNotExist", f"Qualification {kind} of {worker} does not exist.")
        if held.revoked:
            raise FakeMTurkError("InvalidQualificationState", "This operation can be called with a status of: Granted.")
        return held

    def grant(self, kind: str, worker: str, value: int) -> None:
        if self.qualification_type(kind)["QualificationTypeStatus"] != "Active":
            raise FakeMTurkError("InvalidQualificationTypeState", f"QualificationType {kind} is not active.")
        self.worker(worker).qualifications[kind] = Qualification(kind, worker, self.now(), value)

    def revoke(self, kind: str, worker: str) -> None:
        self.qualification_type(kind)
        held = self.worker(worker).qualifications.get(kind)
        if held is None or held.revoked:
            raise FakeMTurkError("QualificationDoesNotExist", f"Worker {worker} has no qualification {kind}.")
        held.revoked = True

    def worker(self, id_: str) -> FakeWorker:
        if id_ not in self.workers:
            raise FakeMTurkError("WorkerDoesNotExist", f"Worker {id_} does not exist.")
        return self.workers[id_]

    def has_worked(self, worker: str) -> bool:
        """Whether work of this worker was approved or rejected, which allows messages to them."""
        return any(place.worker == worker and place.status in ("Approved", "Rejected") for place in self.all_places())

    # ------------------------------------------------------------------ workers

    def offers(self, worker: FakeWorker) -> Iterable[Hit]:
        """The HITs that this worker could accept now if they were qualified, oldest first."""
        now = self.now()
        for hit in self.hits.values():
            own = any(place.worker == worker.id and place.status != "free" for place in hit.places)
            if hit.status(now) == "Assignable" and not own and worker.id not in self.blocks:
                yield hit

    def accept(self, worker: FakeWorker, name: str) -> HitAssignment:
        """Accept a HIT by its own id, or any of a HIT type or group.

        Raises:
            FakeMTurkError: if there is none for this worker.
        """
        for hit in self.offers(worker):
            if name in (hit.id, hit.type.id, hit.type.group):
                if not worker.may("accept", hit.type):
                    raise FakeMTurkError(
                        "DoesNotMeetRequirements", f"Worker {worker.id} is not qualified for this HIT."
                    )
                place = hit.place_for(worker.id)
                assert place is not None
                place.status, place.worker, place.accepted = "pending", worker.id, self.now()
                self._emit_assignment_event("AssignmentAccepted", place)
                return place
        raise FakeMTurkError("NoMoreWorkableHITsInGroupException", "There are no more of these HITs for this worker.")

    def submit(self, place: HitAssignment, answer: str) -> None:
        if place.status != "pending":
            raise FakeMTurkError("InvalidAssignmentState", "This assignment is not held by a worker.")
        place.status, place.submitted, place.answer = "Submitted", self.now(), answer
        self._emit_assignment_event("AssignmentSubmitted", place)
        if place.hit.status(self.now()) == "Reviewable":
            self.emit("HITReviewable", {"HITId": place.hit.id, "HITTypeId": place.hit.type.id})

    def return_place(self, place: HitAssignment, event: str = "AssignmentReturned") -> None:
        if place.status != "pending":
            raise FakeMTurkError("InvalidAssignmentState", "This assignment is not held by a worker.")
        self._emit_assignment_event(event, place)
        place.hit.returned[place.worker] = place.id
        place.free()

    def _emit_assignment_event(self, event: str, place: HitAssignment) -> None:
        self.emit(event, {"AssignmentId": place.id, "HITId": place.hit.id, "HITTypeId": place.hit.type.id})

    # ------------------------------------------------------------------ time

    def all_places(self) -> Iterable[HitAssignment]:
        return self.places.values()

    def tick(self) -> None:
        """Abandon assignments held too long, approve undecided ones, and delete old HITs."""
        now = self.now()
        for place in self.all_places():
            if place.status == "pending" and place.deadline is not None and place.deadline <= now:
                self.return_place(place, "AssignmentAbandoned")
            if place.status == "Submitted" and place.auto_approval is not None and place.auto_approval <= now:
                self._settle(place, "Approved", None)
        for hit in self.hits.values():
            if not hit.disposed and hit.created + DISPOSED_AFTER <= now and hit.status(now) == "Reviewable":
                self._dispose(hit)

    def submitted(self, hit: Hit, statuses: list[str]) -> list[HitAssignment]:
        """A HIT's submitted assignments, oldest first."""
        wanted = statuses or list(SUBMITTED)
        found = [place for place in hit.places if place.status in SUBMITTED and place.status in wanted]
        return sorted(found, key=lambda place: (place.submitted, place.id))
