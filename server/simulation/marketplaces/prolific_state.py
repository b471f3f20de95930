"""Prolific's rules: what happens to studies, submissions and money.

Times come from the market's clock; nothing here depends on HTTP. Which status follows from which action is MOVES, as
the API's description has it. A submission that is returned or times out frees its place by itself; one that is screened
out by a completion code adds a place. Where the public documentation is silent, the emulator assumes: the cost of every
place and screen-out that may still be paid is locked while a study runs; a lapsed reservation may be taken again, a
returned submission not; a submission that timed out may still be completed while a place is free; paying the same bulk
bonus again pays again, as the documentation warns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from server.simulation.marketplaces.account import Account
from server.simulation.marketplaces.money import Kind, LedgerLine, cents
from server.simulation.marketplaces.prolific_people import FakePeople
from server.simulation.marketplaces.prolific_requests import (
    REFUSED_CODE,
    Action,
    CompletionCode,
    CreateStudy,
    TransitionStudy,
    TransitionSubmission,
    UpdateStudy,
)
from server.simulation.marketplaces.prolific_studies import (
    AUTO_APPROVAL,
    OPEN,
    RUNNING,
    FakeParticipant,
    FakeProlificError,
    FakeStudy,
    FakeSubmission,
    FeeSchedule,
    StudyStatus,
    not_found,
)

AFTER_PUBLISHING = {"total_available_places", "internal_name", "submissions_config", "completion_codes"}
MOVES: dict[tuple[StudyStatus, str], StudyStatus] = {
    ("UNPUBLISHED", "PUBLISH"): "ACTIVE",
    ("UNPUBLISHED", "SCHEDULE_PUBLISH"): "SCHEDULED",
    ("SCHEDULED", "CANCEL_PUBLISH"): "UNPUBLISHED",
    ("ACTIVE", "PAUSE"): "PAUSED",
    ("ACTIVE", "STOP"): "COMPLETED",
    ("PAUSED", "START"): "ACTIVE",
    ("PAUSED", "STOP"): "COMPLETED",
}
FEATURES = ("fixed_screen_out", "secure_urls", "participant_groups", "test_studies", "dynamic_payment")


class FakeProlificState(Account):
    """One researcher's workspace with its studies, submissions and money.

    `features`: what this workspace may use that not every workspace may. `projects`: the workspace's, by id.
    """

    def __init__(
        self,
        deposit: Decimal,
        tariff: FeeSchedule,
        now: Callable[[], datetime],
        new_id: Callable[[str], str],
        pay: Callable[[LedgerLine], None],
        features: tuple[str, ...] = FEATURES,
    ) -> None:
        super().__init__(deposit, now, new_id, pay)
        self.tariff, self.features = tariff, set(features)
        self.bonus_delay = self.publishing_delay = timedelta(0)
        self.workspace, self.currency = "60aca280709ee40ec37d4881", "USD"
        self.projects: dict[str, str] = {"60aca280709ee40ec37d4882": "My project"}
        self.studies: dict[str, FakeStudy] = {}
        self.submissions: dict[str, FakeSubmission] = {}
        self.people = FakePeople(self.studies)
        self.bulks: dict[str, tuple[FakeStudy, list[tuple[FakeSubmission, Decimal]]]] = {}
        self.due: list[tuple[datetime, str, FakeSubmission, Decimal]] = []

    # ------------------------------------------------------------------ money

    @property
    def participants(self) -> dict[str, FakeParticipant]:
        return self.people.participants

    @property
    def on_hold(self) -> Decimal:
        return sum((study.on_hold(self.tariff) for study in self.studies.values()), Decimal("0.00")) + sum(
            (self.tariff.cost(amount) for _, _, _, amount in self.due), Decimal("0.00")
        )

    def insufficient(self, amount: Decimal) -> FakeProlificError:
        detail = f"{amount:.2f} is needed and {self.available:.2f} is available; top up your balance."
        return FakeProlificError("Insufficient funds", detail, code=140400)

    def require_feature(self, feature: str, what: str) -> None:
        """Refuse what this workspace may not use."""
        if feature not in self.features:
            raise FakeProlificError("Validation error", f"{what} is not available for this workspace.")

    def _pay(self, kind: Kind, amount: Decimal, one: FakeSubmission, reference: str = "") -> None:
        if one.study.test:
            return
        lines: dict[Kind, Decimal] = {kind: amount, "fee": self.tariff.fee(amount), "tax": self.tariff.tax(amount)}
        self.pay_out(one.participant, one.id, lines, reference)

    # ------------------------------------------------------------------ studies

    def refuse_old_field(self, body: Any, name: str) -> None:
        """Refuse the setting of studies that were created before December 2025, whatever its value."""
        if isinstance(body, dict) and name in body:
            detail = f"{name} can no longer be used for new studies."
            raise FakeProlificError("Validation error", {name: [detail]}, code=REFUSED_CODE)

    def create(self, given: CreateStudy) -> FakeStudy:
        """Create a draft, which costs nothing; a repeated request creates another."""
        if not given.completion_codes:
            review = Action(action="MANUALLY_REVIEW")
            code = CompletionCode(code=self.new_id("code")[:8].upper(), code_type="COMPLETED", actions=[review])
            given = given.model_copy(update={"completion_codes": [code]})
        self._check(given)
        project = given.project or next(iter(self.projects), "")
        if project not in self.projects:
            raise FakeProlificError("Validation error", {"project": ["This project does not exist."]})
        study = FakeStudy(self.new_id("study"), given, self.now(), given.total_available_places, project)
        self.studies[study.id] = study
        return study

    def _check(self, given: CreateStudy) -> None:
        if given.screen_out:
            self.require_feature("fixed_screen_out", "FIXED_SCREEN_OUT_PAYMENT")
        if given.uses_dynamic_payment:
            self.require_feature("dynamic_payment", "DYNAMIC_PAYMENT")
        if given.is_external_study_url_secure:
            self.require_feature("secure_urls", "is_external_study_url_secure")
        self.people.check_filters(given.filters)
        for code in given.completion_codes:
            for action in code.actions:
                if action.participant_group is not None:
                    self.people.group(action.participant_group)

    def study(self, id_: str) -> FakeStudy:
        if id_ not in self.studies:
            raise not_found("Study")
        return self.studies[id_]

    def update(self, study: FakeStudy, given: UpdateStudy) -> None:
        """Change a draft; of a published study only some fields, and places can only become more."""
        changes = {name: getattr(given, name) for name in given.model_fields_set}
        if study.status not in ("UNPUBLISHED", "SCHEDULED"):
            if forbidden := changes.keys() - AFTER_PUBLISHING:
                detail = {name: ["This cannot be changed once the study is published."] for name in sorted(forbidden)}
                raise FakeProlificError("Validation error", detail)
            self._check_published(study, given)
        new = CreateStudy.model_validate(study.given.model_dump(exclude_unset=True) | _dumped(given))
        self._check(new)
        if study.status in RUNNING:
            places = max(new.total_available_places - study.places, 0)
            self.require(
                self.tariff.cost(study.reward) * places + self._slots_cost(new) - self._slots_cost(study.given)
            )
        elif study.status == "COMPLETED" and new.total_available_places > study.places:
            self.require(self.tariff.cost(study.reward) * (new.total_available_places - study.taken))
        more = new.total_available_places > study.places
        study.given, study.places = new, new.total_available_places
        if study.status in ("COMPLETED", "AWAITING REVIEW") and more:
            self._set_status(study, "ACTIVE")
        self._settle(study)

    def _check_published(self, study: FakeStudy, given: UpdateStudy) -> None:
        if given.total_available_places is not None and given.total_available_places < study.places:
            detail = {"total_available_places": ["The places of a published study can only be increased."]}
            raise FakeProlificError("Validation error", detail)
        if given.completion_codes is None:
            return
        without = [
            [code.model_dump(exclude={"actions": {"__all__": {"slots"}}}) for code in codes]
            for codes in (given.completion_codes, study.given.completion_codes)
        ]
        slots = next((one.screen_out.slots or 0 for one in given.completion_codes if one.screen_out), 0)
        if without[0] != without[1] or slots < study.slots:
            detail = {"completion_codes": ["Only slots can be changed once the study is published, and only upwards."]}
            raise FakeProlificError("Validation error", detail)

    def _slots_cost(self, given: CreateStudy) -> Decimal:
        action = given.screen_out
        if action is None:
            return Decimal("0.00")
        return self.tariff.cost(Decimal(action.fixed_screen_out_reward or 0) / 100) * (action.slots or 0)

    def move(self, study: FakeStudy, asked: TransitionStudy) -> None:
        """Move a study to another status."""
        action = asked.action
        after = MOVES.get((study.status, action))
        if after is None:
            raise FakeProlificError("Validation error", f"A study that is {study.status} cannot {action}.")
        if action in ("PUBLISH", "SCHEDULE_PUBLISH") and not study.test:
            self.require(self.tariff.cost(study.reward) * study.places + self._slots_cost(study.given))
        if action == "SCHEDULE_PUBLISH":
            study.publish_at = asked.publish_at or study.publish_at
            if study.publish_at is None:
                raise FakeProlificError("Validation error", {"publish_at": ["This field is required."]})
        elif action == "PUBLISH":
            study.published = self.now() + self.publishing_delay
            after = "PUBLISHING" if self.publishing_delay else after
        self._set_status(study, after)
        self._settle(study)

    def _set_status(self, study: FakeStudy, status: StudyStatus) -> None:
        study.status = status
        body = {"event_type": "study.status.change", "resource_id": study.id, "status": status}
        self.emit("study.status.change", body)

    def _settle(self, study: FakeStudy) -> None:
        before = study.status
        study.settle_status()
        if study.status != before:
            self._set_status(study, study.status)

    def delete(self, study: FakeStudy) -> None:
        if study.status != "UNPUBLISHED":
            raise FakeProlificError("Validation error", "Only a draft can be deleted.")
        del self.studies[study.id]

    def test_study(self, study: FakeStudy) -> FakeStudy:
        """A published copy of a draft for the test participants."""
        self.require_feature("test_studies", "Test studies")
        if study.status != "UNPUBLISHED":
            raise FakeProlificError("Validation error", "The study must be a draft.")
        if not any(who.test for who in self.participants.values()):
            raise FakeProlificError("Validation error", "There is no test participant.")
        copy = FakeStudy(self.new_id("study"), study.given, self.now(), study.places, study.project, test=True)
        copy.given = copy.given.model_copy(update={"filters": []})
        copy.status, copy.published = "ACTIVE", self.now()
        self.studies[copy.id] = copy
        return copy

    # ------------------------------------------------------------------ submissions, as the researcher sees them

    def submission(self, id_: str) -> FakeSubmission:
        if id_ not in self.submissions:
            raise not_found("Submission")
        return self.submissions[id_]

    def approve(self, one: FakeSubmission) -> None:
        """Approve; doing it again changes nothing."""
        if one.status == "APPROVED":
            return
        self._require(one, "AWAITING REVIEW")
        self._set(one, "APPROVED")
        self._pay("reward", one.study.reward, one)

    def reject(self, one: FakeSubmission) -> None:
        """Reject; doing it again changes nothing."""
        if one.status == "REJECTED":
            return
        self._require(one, "AWAITING REVIEW")
        self._set(one, "REJECTED")

    def judge(self, one: FakeSubmission, asked: TransitionSubmission) -> None:
        """What a researcher decides about a submission."""
        if asked.action == "APPROVE":
            self.approve(one)
        elif asked.action == "REJECT":
            self.reject(one)
        else:
            share = asked.completion_code_data.percentage_of_reward if asked.completion_code_data else None
            self.complete(one, asked.completion_code or "", "researcher", share)

    def request_return(self, one: FakeSubmission) -> None:
        """Ask for the return of a submission."""
        self._require(one, *OPEN, "AWAITING REVIEW")
        one.return_requested = one.return_requested or self.now()

    def _require(self, one: FakeSubmission, *statuses: str) -> None:
        if one.status not in statuses:
            detail = f"The submission {one.id} is {one.status}, not {' or '.join(statuses)}."
            raise FakeProlificError("Validation error", detail, code=140200)

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
            raise not_found("Bulk bonus payment")
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
        return self.people.offers(participant)

    def participant(self, id_: str) -> FakeParticipant:
        return self.people.participant(id_)

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

    def complete(
        self, one: FakeSubmission, code: str, actor: str = "participant", percentage: float | None = None
    ) -> None:
        """Use a completion code; one that does not belong to the study is left to the researcher."""
        known = one.study.code(code)
        if actor == "researcher" and (known is None or known.actor != "researcher"):
            raise FakeProlificError("Validation error", "A researcher cannot use this completion code.")
        dynamic = known is not None and known.action == "DYNAMIC_PAYMENT"
        if dynamic and percentage is None:
            raise FakeProlificError("Validation error", {"completion_code_data": ["This field is required."]})
        self._require(one, "ACTIVE", "TIMED-OUT")
        no_place = one.study.taken >= one.study.places or one.study.status == "COMPLETED"
        if one.status == "TIMED-OUT" and (one.started is None or no_place):
            raise FakeProlificError("Timed out", "Your time has run out, and your place has gone to somebody else.")
        one.completed, one.code = self.now(), code
        if known is None or known.actor != actor:
            self._set(one, "AWAITING REVIEW")
            return
        self.people.apply_groups(one, code, self.now())
        if known.action == "FIXED_SCREEN_OUT_PAYMENT" and one.study.count("SCREENED OUT") < one.study.slots:
            self._screen_out(one)
            return
        self._set(one, "AWAITING REVIEW")
        if known.action == "AUTOMATICALLY_APPROVE":
            self.approve(one)
        elif known.action == "REQUEST_RETURN":
            one.return_requested = self.now()
        elif dynamic:
            share = Decimal(str(percentage)) / 100
            self._set(one, "PARTIALLY APPROVED")
            self._pay("reward", cents(one.study.reward * share), one)

    def _screen_out(self, one: FakeSubmission) -> None:
        """Pay a screen-out; a place is added for it, and the last one pauses the study."""
        study = one.study
        study.places += 1
        study.given = study.given.model_copy(update={"total_available_places": study.places})
        self._pay("screen-out", study.screen_out_reward, one)
        self._set(one, "SCREENED OUT")
        study.pause_without_slots()
        if study.status == "PAUSED":
            self._set_status(study, "PAUSED")

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
        body = {
            "event_type": "submission.status.change",
            "resource_id": one.id,
            "status": status,
            "participant_id": one.participant,
            "study_id": one.study.id,
        }
        self.emit("submission.status.change", body)
        self._settle(one.study)

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """End what ran out of time, publish what is due, approve what waits too long, and pay what is due."""
        now = self.now()
        for study in self.studies.values():
            if study.status == "SCHEDULED" and study.publish_at and study.publish_at <= now:
                study.published = study.publish_at + self.publishing_delay
                self._set_status(study, "PUBLISHING")
            if study.status == "PUBLISHING" and study.published and study.published <= now:
                self._set_status(study, "ACTIVE")
        for one in self.submissions.values():
            if one.status in OPEN and one.ends() <= now:
                self.time_out(one)
            elif one.status == "AWAITING REVIEW" and one.completed and one.completed + AUTO_APPROVAL <= now:
                self.approve(one)
        self._pay_what_is_due()


def _dumped(given: UpdateStudy) -> dict[str, Any]:
    return given.model_dump(exclude_unset=True)
