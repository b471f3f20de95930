"""Prolific: paid participants, chosen by country, language and approval rate.

One study holds all places of a launch; participants arrive with three ids and return with a completion code. The code
is the same for all listeners of a study, so it proves nothing: every submission waits for review, and what the database
shows complete is approved. A returned or timed-out submission frees its place automatically; ordering another place
each time would never stop recruiting, so only the total number of places is set. Bonuses carry no token, and paying
the same batch again pays again: whether one was paid is read from its submission.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field

from server.db.enums import PaymentKind, RunOutcome, SubmissionStatus
from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    ArrivalError,
    Capabilities,
    DirectPayment,
    ForeignSubmissionError,
    Marketplace,
    MarketplaceConfig,
    MarketplaceError,
    PostingOrder,
    PostingStatus,
    ReportedSubmission,
    ReturnLink,
)
from server.recruiting.marketplaces.prolific_api import API, WAITS, ProlificApiError, ProlificClient
from server.recruiting.marketplaces.prolific_token import TOKEN_PARAMETER, ProlificSignatures
from server.web.loopback import is_loopback

if TYPE_CHECKING:
    from study.config import Study

SITE = "https://app.prolific.com"
ID = re.compile(r"^[0-9a-f]{24}$")
QUERY = "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
STATUSES: dict[str, SubmissionStatus] = {
    "RESERVED": SubmissionStatus.HELD,
    "ACTIVE": SubmissionStatus.HELD,
    "AWAITING REVIEW": SubmissionStatus.SUBMITTED,
    "APPROVED": SubmissionStatus.APPROVED,
    "REJECTED": SubmissionStatus.REJECTED,
    "RETURNED": SubmissionStatus.RETURNED,
    "TIMED-OUT": SubmissionStatus.TIMED_OUT,
    "SCREENED OUT": SubmissionStatus.SCREENED_OUT,
}
UNDECIDED = ("ACTIVE", "AWAITING REVIEW")
RUNNING = ("ACTIVE", "PAUSED", "AWAITING REVIEW", "PUBLISHING", "SCHEDULED")


class ProlificConfig(MarketplaceConfig):
    """The text that people on Prolific see, who may take part, and which account pays.

    `countries` and `languages` are Prolific's choice ids ("1" is the United States, "0" the United Kingdom; "19" is
    English). `fee` is the account's: a third of what is paid (academic), or 42.8 % (corporate); `tax_percent` is on it.
    """

    private = {"workspace": "", "project": "", "exclude_studies": []}  # noqa: RUF012

    title: str = Field(
        default="Listen to short clips of music: which two sound more alike?",
        min_length=1,
        max_length=120,
        description="The title of the study on Prolific.",
    )
    description: str = Field(
        default="Compare short clips of music and answer a few questions. Please use headphones.",
        min_length=1,
        description="The description of the study on Prolific.",
    )
    countries: list[str] = Field(
        default=["1"],
        description='Where participants live, as choice ids ("1": United States, "0": United Kingdom); empty: all.',
    )
    languages: list[str] = Field(
        default=["19"], description='Fluent languages, as Prolific\'s choice ids ("19": English); empty: any.'
    )
    approved_percent: int = Field(
        default=98, ge=0, le=100, description="The least share of a participant's submissions that were approved."
    )
    approved: int = Field(
        default=0, ge=0, le=10_000, description="The least number of a participant's approved submissions."
    )
    exclude_studies: list[str] = Field(default=[], description="Ids of studies whose participants may not take part.")
    devices: list[Literal["desktop", "mobile", "tablet"]] = Field(
        default=["desktop"], description="The devices that may be used."
    )
    max_minutes: int = Field(default=60, ge=2, le=1440, description="The longest that a participant may take.")
    workspace: str = Field(default="", description="The id of the workspace that pays, if the account has several.")
    project: str = Field(default="", description="The id of the project that the study is created in.")
    currency: Literal["USD", "GBP"] = Field(
        default="USD", description="The currency of the workspace; all amounts of study.toml are in it."
    )
    fee: Literal["academic", "corporate"] = Field(
        default="academic", description="The fee of the account: academic is a third of what is paid, corporate 42.8 %."
    )
    tax_percent: float = Field(default=0, ge=0, le=50, description="The VAT on the fee, where it is charged.")


class ProlificMarketplace(Marketplace):
    """Prolific for one study; uses the network only when it has to."""

    capabilities = Capabilities(
        name="Prolific", lists_held=True, pays_unsubmitted=True, screens_out_separately=True, settle_minutes=15
    )
    Settings = ProlificConfig
    frame_origins = (SITE,)
    simulator = "server.simulation.marketplace_client:local_prolific"
    listing_note = "Prolific shows this text, word for word, to everyone who passes its filters."
    payment_note = "Payment is made by Prolific: the submission is approved by what the study's database shows."
    sample_opening = "a" * 24

    @classmethod
    def for_study(cls, study: Study, *, live: bool, endpoint: str) -> Self:
        return cls(study, live=live, endpoint=endpoint)

    @classmethod
    def sample_query(cls, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        return {"PROLIFIC_PID": f"{person:024x}", "STUDY_ID": cls.sample_opening, "SESSION_ID": f"{place:024x}"}

    def __init__(
        self, study: Study, *, live: bool = False, endpoint: str = "", api: ProlificClient | None = None
    ) -> None:
        self._study, self._config = study, study.config.recruiter.settings
        self._live, self._endpoint = live, endpoint
        self._api = api or ProlificClient(endpoint)
        self._signatures = ProlificSignatures(endpoint or API)
        self._paid: dict[str, tuple[str, int]] = {}  # token -> submission and cents, of this process

    # ------------------------------------------------------------------ listeners

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        worker, opening, submission = (query.get(name, "") for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID"))
        if not any((worker, opening, submission)):
            raise ArrivalError("Please open this study from Prolific, so that you can be paid.")
        if not all(ID.fullmatch(id_) for id_ in (worker, opening, submission)):
            raise ArrivalError(
                "This address is not one that Prolific gives; please open the study from Prolific again."
            )
        return Arrival(worker, submission, opening)

    def verify_arrival(self, query: Mapping[str, str], arrival: Arrival, host: str) -> bool:
        return self._signatures.is_signed(query.get(TOKEN_PARAMETER, ""), arrival, host)

    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        """Listeners who left return their submission there themselves; all others come back with a code."""
        site = self._endpoint.replace("127.0.0.1", "localhost") if self._endpoint else SITE
        if outcome == "left":
            return ReturnLink("link", f"{site}/studies")
        return ReturnLink("link", f"{site}/submissions/complete?cc={self.code(outcome)}")

    def code(self, outcome: RunOutcome) -> str:
        """The study's completion code for an outcome; it is derived from the study and is not secret."""
        info = self._study.config.study
        digest = hashlib.sha256(f"rootnote:{info.name}:{info.seed}:{outcome}".encode()).hexdigest()
        return f"C{digest[:7].upper()}"

    # ------------------------------------------------------------------ places

    def open(self, order: PostingOrder) -> str:
        if not self._live and not self._endpoint:
            raise MarketplaceError(
                "Prolific has no sandbox; --live opens a study that costs money, and `rootnote server rehearse "
                "--recruiter prolific` rehearses the launch at no cost."
            )
        parts = urlsplit(order.url)
        if parts.scheme != "https" and not (self._endpoint and is_loopback(parts.hostname)):
            raise MarketplaceError(f"Prolific opens only https addresses, and ROOTNOTE_PUBLIC_URL is '{order.url}'.")
        study = self._find(order) or self._draft(order)
        if study["status"] == "UNPUBLISHED":
            self._publish(study["id"])
        elif study["status"] not in RUNNING:
            raise MarketplaceError(f"the study on Prolific is {study['status']} already; make a new launch.")
        elif study["total_available_places"] < order.total and not order.only_for:
            self._api.patch(f"/studies/{study['id']}/", {"total_available_places": order.total})
        return str(study["id"])

    def _find(self, order: PostingOrder) -> dict[str, Any] | None:
        """The study that an order belongs to; of two drafts (a request that arrived twice) the older.

        Raises:
            MarketplaceError: if another database has launched this study.
        """
        wanted, study = self._name(order), order.launch.rpartition("-")[0]
        found = None
        for one in self._api.pages("/studies/"):
            prefix, launch, *_ = [*str(one.get("internal_name", "")).split(" "), ""]
            if one.get("internal_name") == wanted and (found is None or found["status"] == "UNPUBLISHED"):
                found = found if found and one["status"] == "UNPUBLISHED" else one
            same = prefix == "rootnote" and launch.rpartition("-")[0] == study and launch != order.launch
            if same and one["status"] in RUNNING:
                raise MarketplaceError(
                    f"another database has launched this study on Prolific already ({one['id']}); use that database, "
                    "or stop that study first."
                )
        return found

    def _name(self, order: PostingOrder) -> str:
        return f"rootnote {order.launch}" + (f" {order.token}" if order.only_for else "")

    def _draft(self, order: PostingOrder) -> dict[str, Any]:
        config = self._config
        review = [{"action": "MANUALLY_REVIEW"}]
        filters = read_filters(config)
        if order.only_for:
            filters = [{"filter_id": "custom_allowlist", "selected_values": [order.only_for]}]
        given = {
            **self._shown(order),
            "internal_name": self._name(order),
            "external_study_url": f"{order.url}{'&' if urlsplit(order.url).query else '?'}{QUERY}",
            "prolific_id_option": "url_parameters",
            "completion_codes": [
                {"code": self.code("finished"), "code_type": "COMPLETED", "actor": "participant", "actions": review},
                {"code": self.code("screened_out"), "code_type": "OTHER", "actor": "participant", "actions": review},
            ],
            "total_available_places": 1 if order.only_for else order.total,
            "peripheral_requirements": ["audio"],
            "filters": filters,
            "is_custom_screening": True,
        }
        return self._api.post("/studies/", given | ({"project": config.project} if config.project else {}))

    def _shown(self, order: PostingOrder) -> dict[str, Any]:
        """The text and limits that a study shows to people on Prolific."""
        config, minutes = self._config, max(1, round(order.minutes))
        return {
            "name": config.title,
            "description": config.description,
            "estimated_completion_time": minutes,
            "maximum_allowed_time": max(config.max_minutes, minutes + 1),
            "reward": order.reward,
            "device_compatibility": list(config.devices),
        }

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        shown, config = self._shown(order), self._config
        filters = [f"{name.replace('-', ' ')}: {', '.join(ids)}" for name, ids in _lists(config).items() if ids]
        least = [f"at least {config.approved_percent} % of submissions approved"] if config.approved_percent else []
        least += [f"at least {config.approved:,} submissions approved"] if config.approved else []
        return (
            ("Title", shown["name"]),
            ("Description", shown["description"]),
            ("Reward", f"{shown['reward'] / 100:.2f} {config.currency}"),
            ("Estimated time", f"{shown['estimated_completion_time']} minutes"),
            ("Longest time", f"{shown['maximum_allowed_time']} minutes"),
            ("Devices", f"{', '.join(shown['device_compatibility'])}; with sound"),
            ("Open to (Prolific's ids)", "; ".join([*filters, *least]) or "everyone"),
        )

    def _publish(self, study: str) -> None:
        try:
            self._api.post(f"/studies/{study}/transition/", {"action": "PUBLISH"}, retry=True)
        except ProlificApiError:
            # After a request without an answer, it may already be published.
            if self._status(study) not in RUNNING:
                raise

    def _status(self, study: str) -> str:
        return str(self._api.get(f"/studies/{study}/")["status"])

    def submissions(self, opening: str) -> PostingStatus:
        study = self._api.get(f"/studies/{opening}/")
        found = tuple(self._submission(one, opening) for one in self._api.pages("/submissions/", study=opening))
        free = max(study["total_available_places"] - study["places_taken"], 0) if study["status"] == "ACTIVE" else 0
        return PostingStatus(free, sum(one.status is SubmissionStatus.HELD for one in found), found)

    def _submission(self, reported: Mapping[str, Any], opening: str) -> ReportedSubmission:
        at = reported.get("completed_at") or reported.get("started_at")
        # An unknown status counts as held: nothing is paid for it, and nobody is recruited in its place.
        status = STATUSES.get(reported["status"], SubmissionStatus.HELD)
        return ReportedSubmission(
            reported["id"], _participant(reported), opening, status, datetime.fromisoformat(at) if at else None
        )

    def close(self, opening: str) -> None:
        if self._status(opening) in ("UNPUBLISHED", "COMPLETED"):
            return
        try:
            self._api.post(f"/studies/{opening}/transition/", {"action": "STOP"}, retry=True)
        except ProlificApiError:
            if self._status(opening) != "COMPLETED":
                raise

    def exclude(self, worker: str, launch: str) -> None:
        """Prolific admits nobody to the same study twice."""

    # ------------------------------------------------------------------ pay

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

    def bonus(self, payment: DirectPayment) -> None:
        """Pay: a screen-out as a Prolific screen-out while the submission is open, everything else as a bonus.

        Raises:
            ForeignSubmissionError: if the submission belongs to another participant.
            MarketplaceError: if a person has approved it, which paid what this payment was for.
        """
        if self.has_paid(payment):
            return
        submission, usd = payment.submission, Decimal(payment.cents) / 100
        status = self._own_submission(submission)["status"]
        if status == "APPROVED" and payment.kind not in (PaymentKind.BONUS, PaymentKind.LIFT):
            raise MarketplaceError(
                f"the submission {submission.id} was approved on Prolific, which pays its reward; run `rootnote server "
                "sync` to record that."
            )
        if payment.kind == PaymentKind.SCREEN_OUT and status in ("ACTIVE", "AWAITING REVIEW"):
            given = {"submission_ids": [submission.id], "bonus_per_submission": float(usd), "increase_places": False}
            self._api.post(f"/studies/{submission.opening}/screen-out-submissions/", given)
        else:
            rows = {"study_id": submission.opening, "csv_bonuses": f"{submission.id},{usd:.2f}"}
            # Preparing a batch pays nothing, so it may be done again; paying one may not.
            batch = self._api.post("/submissions/bonus-payments/", rows, retry=True)
            self._api.post(f"/bulk-bonus-payments/{batch['id']}/pay/")
        self._paid[payment.token] = (submission.id, payment.cents)

    def has_paid(self, payment: DirectPayment) -> bool:
        if payment.token in self._paid:
            return True
        reported = self._own_submission(payment.submission)
        if payment.kind == PaymentKind.SCREEN_OUT and reported["status"] == "SCREENED OUT":
            return True
        others = list(self._paid.values()).count((payment.submission.id, payment.cents))
        paid = [round(amount) for amount in reported.get("bonus_payments") or []]
        return paid.count(payment.cents) > max(others, payment.same_payments)

    def _own_submission(self, submission: ReportedSubmission) -> dict[str, Any]:
        """A submission as Prolific reports it, of the participant who is to be paid for it."""
        try:
            reported = self._get(submission)
        except ProlificApiError as refused:
            if refused.status != 404:
                raise
            self._status(submission.opening)  # this is refused too if the token is the problem
            raise ForeignSubmissionError(f"Prolific knows no submission {submission.id}.") from refused
        if _participant(reported) != submission.worker:
            raise ForeignSubmissionError(f"on Prolific the submission {submission.id} belongs to another participant.")
        return reported

    def _get(self, submission: ReportedSubmission) -> dict[str, Any]:
        return self._api.get(f"/submissions/{submission.id}/")

    # ------------------------------------------------------------------ the account

    def account(self) -> int | None:
        """The balance of the workspace; its currency and fees must be those of study.toml."""
        balance = self._api.get(f"/workspaces/{self._workspace()}/balance/")
        currency = str(balance.get("currency_code", ""))
        if currency != self._config.currency:
            raise MarketplaceError(
                f"the workspace on Prolific pays in {currency}, and recruiter.prolific.currency in study.toml is "
                f"{self._config.currency}: set it, and read all amounts in study.toml as {currency}."
            )
        example = {"reward": 10_000, "total_available_places": 1}
        reported = round(self._api.post("/study-cost-calculator/", example, retry=True)["total_cost"]) - 10_000
        if reported != self.fee(10_000):
            raise MarketplaceError(
                f"Prolific charges {reported / 100:.2f} on 100.00, but study.toml expects "
                f"{self.fee(10_000) / 100:.2f}; set fee and tax_percent in [recruiter.prolific] so that both agree."
            )
        return int(balance["available_balance"])

    def _workspace(self) -> str:
        if self._config.workspace:
            return str(self._config.workspace)
        found = list(self._api.pages("/workspaces/"))
        if len(found) != 1:
            known = ", ".join(f"{one['id']} ({one.get('title', '')})" for one in found) or "none"
            raise MarketplaceError(f"set recruiter.prolific.workspace in study.toml to one of the workspaces: {known}.")
        return str(found[0]["id"])

    def fee(self, cents: int, places: int = 1) -> int:
        rate = Fraction(1, 3) if self._config.fee == "academic" else Fraction(428, 1000)
        fee = _round(Fraction(cents) * rate)
        return fee + _round(Fraction(fee) * Fraction(str(self._config.tax_percent)) / 100)

    def disconnect(self) -> None:
        self._api.close()


def _participant(reported: Mapping[str, Any]) -> str:
    """Whose submission it is; a list uses another name for this field than a single submission."""
    return str(reported.get("participant_id") or reported["participant"])


def read_filters(config: ProlificConfig) -> list[dict[str, Any]]:
    """Who may take part, as filters of Prolific."""
    filters: list[dict[str, Any]] = [
        {"filter_id": name, "selected_values": list(values)} for name, values in _lists(config).items() if values
    ]
    least = {"approval_rate": (config.approved_percent, 100), "approval_numbers": (config.approved, 10_000)}
    for name, (lower, upper) in least.items():
        if lower:
            filters.append({"filter_id": name, "selected_range": {"lower": lower, "upper": upper}})
    return filters


def _lists(config: ProlificConfig) -> dict[str, list[str]]:
    """The filters that choose from lists, by Prolific's ids."""
    return {
        "current-country-of-residence": config.countries,
        "fluent-languages": config.languages,
        "previous_studies_blocklist": config.exclude_studies,
    }


def _round(value: Fraction) -> int:
    """To a whole number, half up."""
    return int((Decimal(value.numerator) / Decimal(value.denominator)).to_integral_value(ROUND_HALF_UP))
