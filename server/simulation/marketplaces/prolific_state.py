"""Prolific's rules: what happens to studies, submissions and money.

Times come from the market's clock; nothing here depends on HTTP. A submission that is returned or times out frees its
place by itself; one that is screened out does not, unless the request asks for another place. Where the public
documentation is silent, the emulator assumes: the cost of every place that may still be paid is locked while a study
runs; a lapsed reservation may be taken again, a returned submission not; a submission that timed out may still be
completed while a place is free; paying the same bulk bonus again pays again, as the documentation warns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from statistics import median
from typing import Any

from server.simulation.marketplaces.account import Account
from server.simulation.marketplaces.money import Kind, LedgerLine, cents
from server.simulation.marketplaces.prolific_requests import CreateStudy, Filter, ScreenOut, UpdateStudy
from server.simulation.marketplaces.prolific_studies import (
    OPEN,
    FakeParticipant,
    FakeProlificError,
    FakeStudy,
    FakeSubmission,
    FeeSchedule,
)

LEAST_HOURLY = Decimal("8.00")
AFTER_PUBLISHING = {"total_available_places", "internal_name"}
MOVES: dict[str, tuple[tuple[str, ...], str]] = {
    "PUBLISH": (("UNPUBLISHED",), "ACTIVE"),
    "PAUSE": (("ACTIVE",), "PAUSED"),
    "START": (("PAUSED",), "ACTIVE"),
    "STOP": (("ACTIVE", "PAUSED", "AWAITING REVIEW"), "COMPLETED"),
}


class FakeProlificState(Account):
    """One researcher's workspace with its studies, submissions and money."""

    def __init__(
        self,
        deposit: Decimal,
        tariff: FeeSchedule,
        now: Callable[[], datetime],
        new_id: Callable[[str], str],
        pay: Callable[[LedgerLine], None],
    ) -> None:
        super().__init__(deposit, now, new_id, pay)
        self.tariff = tariff
        self.bonus_delay = timedelta(0)
        self.studies: dict[str, FakeStudy] = {}
        self.submissions: dict[str, FakeSubmission] = {}
        self.participants: dict[str, FakeParticipant] = {}
        self.bulks: dict[str, tuple[FakeStudy, list[tuple[FakeSubmission, Decimal]]]] = {}
        self.due: list[tuple[datetime, str, FakeSubmission, Decimal]] = []

    # ------------------------------------------------------------------ money

    @property
    def on_hold(self) -> Decimal:
        return sum((study.on_hold(self.tariff) for study in self.studies.values()), Decimal("0.00")) + sum(
            (self.tariff.cost(amount) for _, _, _, amount in self.due), Decimal("0.00")
        )

    def insufficient(self, amount: Decimal) -> FakeProlificError:
        detail = f"{amount:.2f} is needed and {self.available:.2f} is available; top up your balance."
        return FakeProlificError("Insufficient funds", detail, code=140400)

    def _pay(self, kind: Kind, amount: Decimal, one: FakeSubmission, reference: str = "") -> None:
        lines: dict[Kind, Decimal] = {kind: amount, "fee": self.tariff.fee(amount), "tax": self.tariff.tax(amount)}
        self.pay_out(one.participant, one.id, lines, reference)

    # ------------------------------------------------------------------ studies

    def create(self, given: CreateStudy) -> FakeStudy:
        """Create a draft, which costs nothing; a repeated request creates another."""
        study = FakeStudy(self.new_id("study"), given, self.now(), given.total_available_places)
        self.studies[study.id] = study
        return study

    def study(self, id_: str) -> FakeStudy:
        if id_ not in self.studies:
            raise FakeProlificError("Not found", "Study does not exist.", 404, 140404)
        return self.studies[id_]

    def update(self, study: FakeStudy, given: UpdateStudy) -> None:
        """Change a draft, or the places of a published study, which can only become more."""
        changes = given.model_dump(exclude_unset=True)
        if study.status != "UNPUBLISHED":
            if forbidden := changes.keys() - AFTER_PUBLISHING:
                detail = {name: ["This cannot be changed once the study is published."] for name in sorted(forbidden)}
                raise FakeProlificError("Validation error", detail)
            if study.status == "COMPLETED":
                raise FakeProlificError("Validation error", "A completed study cannot be changed.")
        if (places := given.total_available_places) is not None:
            if study.status != "UNPUBLISHED":
                if places < study.places:
                    detail = {"total_available_places": ["The places of a published study can only be increased."]}
                    raise FakeProlificError("Validation error", detail)
                self.require(self.tariff.cost(study.reward) * (places - study.places))
            study.places = places
        fields = {name: getattr(given, name) for name in changes}
        study.given = study.given.model_copy(update=fields | {"total_available_places": study.places})
        study.settle_status()

    def move(self, study: FakeStudy, action: str) -> None:
        """PUBLISH, PAUSE, START or STOP a study."""
        before, after = MOVES[action]
        if study.status not in before:
            raise FakeProlificError("Validation error", f"A study that is {study.status} cannot {action}.")
        if action == "PUBLISH":
            self.require(self.tariff.cost(study.reward) * study.places)
            study.published = self.now()
        study.status = after  # type: ignore[assignment]
        study.settle_status()
        self.emit("study.status.change", {"resource_id": study.id, "status": study.status})

    def delete(self, study: FakeStudy) -> None:
        if study.status != "UNPUBLISHED":
            raise FakeProlificError("Validation error", "Only a draft can be deleted.")
        del self.studies[study.id]

    # ------------------------------------------------------------------ submissions, as the researcher sees them

    def submission(self, id_: str) -> FakeSubmission:
        if id_ not in self.submissions:
            raise FakeProlificError("Not found", "Submission does not exist.", 404, 140404)
        return self.submissions[id_]

    def approve(self, one: FakeSubmission) -> None:
        self._require(one, "AWAITING REVIEW")
        self._set(one, "APPROVED")
        self._pay("reward", one.study.reward, one)

    def reject(self, one: FakeSubmission) -> None:
        self._require(one, "AWAITING REVIEW")
        self._set(one, "REJECTED")

    def _require(self, one: FakeSubmission, *statuses: str) -> None:
        if one.status not in statuses:
            detail = f"The submission {one.id} is {one.status}, not {' or '.join(statuses)}."
            raise FakeProlificError("Validation error", detail, code=140200)

    def screen_out(self, study: FakeStudy, given: ScreenOut) -> None:
        """End submissions with a payment; refused if it would pay less than the minimum hourly wage."""
        if not study.given.is_custom_screening:
            raise FakeProlificError("Validation error", "The study was not created with is_custom_screening.")
        chosen = [self.submission(id_) for id_ in dict.fromkeys(given.submission_ids)]
        if any(one.study is not study for one in chosen):
            raise FakeProlificError("Validation error", "All submissions must belong to the study.")
        for one in chosen:
            self._require(one, "ACTIVE", "AWAITING REVIEW")
        amount, hours = given.bonus_per_submission, [self._hours(one) for one in chosen]
        if amount < cents(Decimal(median(hours)) * LEAST_HOURLY):
            raise FakeProlificError("Screen out refused", "The payment is below the minimum for the median time taken.")
        places = self.tariff.cost(study.reward) * (given.increase_places - 1)
        self.require((self.tariff.cost(amount) + places) * len(chosen))
        for one in chosen:
            one.completed = one.completed or self.now()
            self._set(one, "SCREENED OUT")
            self._pay("screen-out", amount, one)
        study.places += len(chosen) * given.increase_places
        study.settle_status()

    def _hours(self, one: FakeSubmission) -> float:
        return ((one.completed or self.now()) - (one.started or one.reserved)).total_seconds() / 3600

    # ------------------------------------------------------------------ bonuses

    def set_up_bonuses(self, study: FakeStudy, text: str) -> tuple[str, list[Decimal]]:
        """Prepare bonuses, which pays nothing yet; rows are a submission's or a participant's id and an amount."""
        rows, wrong = [], []
        for row in csv.reader(io.StringIO(text)):
            one = self._receiver(study, row[0].strip()) if len(row) == 2 else None
            try:
                amount = Decimal(row[1].strip()) if len(row) == 2 else Decimal(0)
            except InvalidOperation:
                amount = Decimal(0)
            if one is None or amount <= 0 or amount != cents(amount):
                wrong.append(",".join(row))
            else:
                rows.append((one, amount))
        if wrong or not rows:
            raise FakeProlificError(
                "Validation error", {"csv_bonuses": [f"These rows are not valid: {'; '.join(wrong)}"]}
            )
        bulk = self.new_id("bulk")
        self.bulks[bulk] = (study, rows)
        return bulk, [amount for _, amount in rows]

    def _receiver(self, study: FakeStudy, id_: str) -> FakeSubmission | None:
        found = [one for one in study.submissions if id_ in (one.id, one.participant) and one.started is not None]
        return found[-1] if found else None

    def pay_bonuses(self, bulk: str) -> None:
        """Pay a prepared batch, a little later; a repeated request pays again."""
        if bulk not in self.bulks:
            raise FakeProlificError("Not found", "Bulk bonus payment does not exist.", 404, 140404)
        _, rows = self.bulks[bulk]
        self.require(sum((self.tariff.cost(amount) for _, amount in rows), Decimal("0.00")))
        at = self.now() + self.bonus_delay
        self.due += [(at, bulk, one, amount) for one, amount in rows]
        self._pay_what_is_due()

    def _pay_what_is_due(self) -> None:
        waiting, self.due = self.due, []
        for at, bulk, one, amount in waiting:
            if at > self.now():
                self.due.append((at, bulk, one, amount))
                continue
            one.bonuses.append(amount)
            self._pay("bonus", amount, one, bulk)

    # ------------------------------------------------------------------ participants

    def offers(self, participant: FakeParticipant) -> Iterator[FakeStudy]:
        """The studies that this participant may take a place in now."""
        for study in self.studies.values():
            own = any(one.participant == participant.id and not one.left for one in study.submissions)
            is_open = study.status == "ACTIVE" and study.taken < study.places
            if is_open and not own and all(self._passes(participant, one) for one in study.given.filters):
                yield study

    def _passes(self, who: FakeParticipant, one: Filter) -> bool:
        values = one.selected_values or []
        match one.filter_id:
            case "current-country-of-residence":
                return who.country in values
            case "fluent-languages":
                return bool(set(values) & set(who.languages))
            case "custom_blocklist":
                return who.id not in values
            case "custom_allowlist":
                return who.id in values
            case "previous_studies_blocklist":
                before = [study for study in self.studies.values() if study.id in values]
                return not any(sub.participant == who.id for study in before for sub in study.submissions)
        assert one.selected_range is not None
        had = {"approval_rate": who.approval_rate, "approval_numbers": who.approvals, "age": who.age}[one.filter_id]
        return one.selected_range.lower <= had <= one.selected_range.upper

    def participant(self, id_: str) -> FakeParticipant:
        if id_ not in self.participants:
            raise FakeProlificError("Not found", "Participant does not exist.", 404, 140404)
        return self.participants[id_]

    def reserve(self, who: FakeParticipant, study_id: str) -> FakeSubmission:
        """Hold a place for ten minutes."""
        study = self.study(study_id)
        if all(one is not study for one in self.offers(who)):
            raise FakeProlificError("No place", "There is no place for you in this study.")
        one = FakeSubmission(self.new_id("submission"), study, who.id, self.now())
        study.submissions.append(one)
        self.submissions[one.id] = one
        self._set(one, "RESERVED")
        return one

    def start(self, one: FakeSubmission) -> None:
        """Open the study's address; opening it again changes nothing."""
        self._require(one, "RESERVED", "ACTIVE")
        if one.status == "RESERVED":
            one.started = self.now()
            self._set(one, "ACTIVE")

    def complete(self, one: FakeSubmission, code: str, actor: str = "participant") -> None:
        """Use a completion code; one that does not belong to the study is left to the researcher."""
        known = one.study.code(code)
        if actor == "researcher" and (known is None or known.actor != "researcher"):
            raise FakeProlificError("Validation error", "A researcher cannot use this completion code.")
        self._require(one, "ACTIVE", "TIMED-OUT")
        no_place = one.study.taken >= one.study.places or one.study.status == "COMPLETED"
        if one.status == "TIMED-OUT" and (one.started is None or no_place):
            raise FakeProlificError("Timed out", "Your time has run out, and your place has gone to somebody else.")
        one.completed, one.code = self.now(), code
        self._set(one, "AWAITING REVIEW")
        if known is None or known.actor != actor:
            return
        action = known.actions[0]
        if action.action == "AUTOMATICALLY_APPROVE":
            self.approve(one)
        elif action.action == "REQUEST_RETURN":
            one.return_requested = self.now()
        elif action.fixed_screen_out_reward is not None:
            self._screen_out_by_code(one, code, action.fixed_screen_out_reward, action.slots or 0)

    def _screen_out_by_code(self, one: FakeSubmission, code: str, reward: int, slots: int) -> None:
        used = sum(other.code == code and other.status == "SCREENED OUT" for other in one.study.submissions)
        if used < slots:
            self._set(one, "SCREENED OUT")
            self._pay("screen-out", Decimal(reward) / 100, one)

    def return_place(self, one: FakeSubmission) -> None:
        """Return a submission, before or after it was completed."""
        self._require(one, *OPEN, "AWAITING REVIEW")
        self._set(one, "RETURNED")

    def time_out(self, one: FakeSubmission) -> None:
        self._require(one, *OPEN)
        one.left = one.started is None
        self._set(one, "TIMED-OUT")

    def _set(self, one: FakeSubmission, status: Any) -> None:
        one.status = status
        one.study.settle_status()
        body = {"resource_id": one.id, "status": status, "participant_id": one.participant, "study_id": one.study.id}
        self.emit("submission.status.change", body)

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """End reservations and submissions that ran out of time, and pay the bonuses that are due."""
        for one in self.submissions.values():
            if one.status in OPEN and one.ends() <= self.now():
                self.time_out(one)
        self._pay_what_is_due()
