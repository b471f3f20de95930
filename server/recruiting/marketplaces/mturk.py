"""Amazon Mechanical Turk, closed on 2026-09-30: for replications only.

AWS closed it by its own documentation; it is here for the paper's protocol, and for compatible marketplaces. The
sandbox, or the real one with `live`. A posting is a HIT of at most nine assignments, because the fee doubled from ten
on; all HITs of a launch are of one HIT type, so workers saw them as one. A qualification type of the study marks
workers who took part; they were shown no other HIT of it. Every creating call carries a UniqueRequestToken. Because a
token was remembered for a day only, existing HITs are looked up first.

Sources: the API reference of 2017-01-17 and botocore's service model of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from pydantic import Field

from server.db.enums import RunOutcome, SubmissionStatus
from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    ArrivalError,
    Capabilities,
    DirectPayment,
    Marketplace,
    MarketplaceConfig,
    MarketplaceError,
    PostingOrder,
    PostingStatus,
    ReportedSubmission,
    ReturnLink,
    UnknownWorkerError,
)
from server.recruiting.marketplaces.mturk_client import (
    ACCOUNT_ERRORS,
    MTurkApiError,
    ask,
    connect,
    missing_credentials,
    pages,
)
from server.web.loopback import is_loopback
from study.languages import mark

if TYPE_CHECKING:
    from study.config import Study

BATCH = 9
SUBMIT_HOSTS = ("www.mturk.com", "workersandbox.mturk.com")
SITES = ("https://www.mturk.com", "https://worker.mturk.com", "https://workersandbox.mturk.com")
PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"
LOCALE, PERCENT_APPROVED, NUMBER_APPROVED = "00000000000000000071", "000000000000000000L0", "00000000000000000040"
MASTERS = {True: "2F1QJWKUDD8XADTFD2Q0G6UTO95ALH", False: "2ARFPLSP75KLA8M8DH1HTEQVJT3SY6"}  # by `live`
SCHEMA = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd"
ID, WORKER = re.compile(r"[A-Z0-9]{1,64}"), re.compile(r"A[A-Z0-9]{1,63}")
PAST = datetime(2015, 1, 1, tzinfo=UTC)
STATUSES = {name.capitalize(): name for name in map(SubmissionStatus, ("submitted", "approved", "rejected"))}
ELSEWHERE = mark("This study is open to workers of Mechanical Turk: please open it from there.")
DAMAGED = mark("This address is not complete; please open the HIT once more on Mechanical Turk.")


class MTurkConfig(MarketplaceConfig):
    """The text that workers of Mechanical Turk see, and who may take part; by default as in the paper."""

    title: str = Field(
        default="Listen to short clips of music: which two sound more alike?",
        min_length=1,
        max_length=128,
        description="The title of the HIT.",
    )
    description: str = Field(
        default="Compare short clips of music and answer a few questions. Please use headphones.",
        min_length=1,
        max_length=2000,
        description="The description of the HIT.",
    )
    keywords: str = Field(
        default="music, audio, listening, sound, survey, research",
        max_length=1000,
        description="Keywords that workers search for, separated by commas.",
    )
    countries: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = Field(
        default=["US"], max_length=30, description="Where workers live, as ISO 3166 codes; empty: anywhere."
    )
    approved_percent: int = Field(
        default=98, ge=0, le=100, description="The least share of a worker's HITs that were approved."
    )
    approved_hits: int = Field(default=1000, ge=0, description="The least number of a worker's approved HITs.")
    masters: bool = Field(default=False, description="Whether only Masters may take part.")
    assignment_minutes: int = Field(
        default=60, ge=1, le=30 * 24 * 60, description="After this time an accepted place is returned."
    )
    lifetime_days: float = Field(default=7, gt=0.01, le=365, description="How long a HIT can be found.")
    auto_approval_days: float = Field(
        default=3, gt=0, le=30, description="After this time Mechanical Turk approves automatically."
    )


class MTurkMarketplace(Marketplace):
    """A requester's account. `endpoint`: a local Mechanical Turk on this machine, to rehearse with."""

    capabilities = Capabilities(name="Mechanical Turk", batch=BATCH, has_preview=True)
    Settings = MTurkConfig
    frame_origins = (*SITES, "https://requester.mturk.com", "https://requestersandbox.mturk.com")
    form_origins = tuple(f"https://{host}" for host in SUBMIT_HOSTS)
    simulator = "server.simulation.marketplace_client:local_mturk"
    notice = 'AWS closed Mechanical Turk on 2026-09-30; for a new study use Prolific (recruiter.kind = "prolific").'
    listing_note = (
        "This is what Mechanical Turk shows in its list of tasks and above the task, word for word. A worker may look "
        "at a preview (the consent text, without a button to begin) before accepting."
    )
    payment_note = "Payment is made by Mechanical Turk: the work is approved by what the study's database shows."
    sample_opening = "3ROOTNOTE0PACKET0HIT"

    @classmethod
    def for_study(cls, study: Study, *, live: bool, endpoint: str) -> Self:
        return cls(study.config.recruiter.settings, study.config.study.name, live=live, endpoint=endpoint)

    @classmethod
    def missing_credentials(cls, environment: Mapping[str, str]) -> list[str]:
        return missing_credentials(environment)

    @classmethod
    def sample_query(cls, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        return {
            "workerId": f"A1LISTENER{person:04}",
            "assignmentId": PREVIEW if preview else f"3PLACE{person:04}{place:04}",
            "hitId": cls.sample_opening,
            "turkSubmitTo": SITES[0],
        }

    def __init__(
        self, config: MTurkConfig, study: str = "", *, live: bool = False, endpoint: str = "", attempts: int = 6
    ) -> None:
        self.capabilities = replace(self.capabilities, hold_minutes=config.assignment_minutes)
        self._config, self._study, self._live = config, study, live
        self._endpoint, self._attempts = endpoint, attempts
        self._client: Any = None
        self._qualification_types: dict[str, str] = {}  # qualification types by name

    # ------------------------------------------------------------------ listeners

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        worker, submission, opening = (query.get(name, "") for name in ("workerId", "assignmentId", "hitId"))
        if not (worker or submission or opening):
            raise ArrivalError(ELSEWHERE)
        if opening and not ID.fullmatch(opening):
            raise ArrivalError(DAMAGED)
        if submission == PREVIEW or not worker:
            return Arrival(None, opening=opening, preview=True)
        if not (WORKER.fullmatch(worker) and ID.fullmatch(submission) and opening):
            raise ArrivalError(DAMAGED)
        return Arrival(worker, submission, opening, back=self._submit_host(query.get("turkSubmitTo", "")))

    def _submit_host(self, address: str) -> str:
        """Where forms may be sent: one of Mechanical Turk's two hosts, and no other."""
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise ArrivalError(DAMAGED) from None
        plain = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
        real = parts.scheme == "https" and parts.hostname in SUBMIT_HOSTS and port is None
        local = bool(self._endpoint) and parts.scheme == "http" and is_loopback(parts.hostname)
        if not (plain and (real or local)):
            raise ArrivalError(DAMAGED)
        return f"{parts.scheme}://{parts.netloc}"

    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        if not arrival.back:
            return ReturnLink()
        fields = {"assignmentId": arrival.submission, "code": code, "outcome": outcome}
        return ReturnLink("post", f"{arrival.back}/mturk/externalSubmit", fields)

    # ------------------------------------------------------------------ openings

    def open(self, order: PostingOrder) -> str:
        if order.places > BATCH:
            raise ValueError(f"a HIT has at most {BATCH} places")
        kind = self._kind(_owed_marker(order.launch) if order.only_for else _marker(order.launch))
        if order.only_for:
            self._associate(kind, order.only_for, _number(order.token), notify=True)
        return self._find(order, kind) or self._create(order, kind)

    def _find(self, order: PostingOrder, kind: str) -> str:
        """The HIT that was created for this order, or ""."""
        for hit in self._pages("list_hits_for_qualification_type", "HITs", QualificationTypeId=kind):
            launch, _, token = str(hit.get("RequesterAnnotation", "")).removeprefix("rootnote ").partition(" ")
            if (launch, token) == (order.launch, order.token):
                return str(hit["HITId"])
            if launch != order.launch and hit["HITStatus"] in ("Assignable", "Unassignable"):
                raise MarketplaceError(
                    f"another database has launched this study already (HIT {hit['HITId']} is open); "
                    "use that database, or close the other launch first."
                )
        return ""

    def _create(self, order: PostingOrder, kind: str) -> str:
        requirements = [_owes(kind, order.token)] if order.only_for else self._requirements(kind)
        made = self._ask("create_hit_type", **self._shown(order), QualificationRequirements=requirements)
        try:
            hit = self._ask(
                "create_hit_with_hit_type",
                HITTypeId=made["HITTypeId"],
                MaxAssignments=order.places,
                LifetimeInSeconds=round(self._config.lifetime_days * 86400),
                Question=question(order.url),
                RequesterAnnotation=f"rootnote {order.launch} {order.token}",
                UniqueRequestToken=order.token,
            )
        except MTurkApiError as error:
            if error.code == "HitAlreadyExists" and (earlier := self._find(order, kind)):
                return earlier
            raise
        return str(hit["HIT"]["HITId"])

    def _shown(self, order: PostingOrder) -> dict[str, Any]:
        """The text and limits that a HIT type shows to workers."""
        config = self._config
        return {
            "Title": f"Payment: {config.title}"[:128] if order.only_for else config.title,
            "Description": config.description,
            "Keywords": config.keywords,
            "Reward": _dollars(order.reward),
            "AssignmentDurationInSeconds": config.assignment_minutes * 60,
            "AutoApprovalDelayInSeconds": round(config.auto_approval_days * 86400),
        }

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        shown, config = self._shown(order), self._config
        who = [f"in {', '.join(config.countries)}"] if config.countries else []
        who += [f"at least {config.approved_percent} % of work approved"] if config.approved_percent else []
        who += [f"at least {config.approved_hits:,} HITs approved"] if config.approved_hits else []
        who += ["Masters"] if config.masters else []
        return (
            ("Title", shown["Title"]),
            ("Description", shown["Description"]),
            ("Keywords", shown["Keywords"]),
            ("Reward", f"${shown['Reward']}"),
            ("Time allotted", f"{shown['AssignmentDurationInSeconds'] // 60} minutes"),
            ("Expires", f"{config.lifetime_days:g} days after it is posted"),
            ("Approved automatically", f"after {shown['AutoApprovalDelayInSeconds'] / 86400:g} days"),
            ("Open to workers", "; ".join([*who, "who have not taken part before"])),
        )

    def _requirements(self, marker: str) -> list[dict[str, Any]]:
        """Who may see, preview and accept the HITs."""
        config = self._config
        wanted: list[dict[str, Any]] = [{"QualificationTypeId": marker, "Comparator": "DoesNotExist"}]
        if config.countries:
            locales = [{"Country": country} for country in config.countries]
            wanted.append({"QualificationTypeId": LOCALE, "Comparator": "In", "LocaleValues": locales})
        for kind, least in ((PERCENT_APPROVED, config.approved_percent), (NUMBER_APPROVED, config.approved_hits)):
            if least:
                at_least = {"Comparator": "GreaterThanOrEqualTo", "IntegerValues": [least]}
                wanted.append({"QualificationTypeId": kind, **at_least})
        if config.masters:
            wanted.append({"QualificationTypeId": MASTERS[self._live], "Comparator": "Exists"})
        return [one | {"ActionsGuarded": "DiscoverPreviewAndAccept"} for one in wanted]

    def _kind(self, name: str) -> str:
        """The id of one of our qualification types; it is created if necessary."""
        if name in self._qualification_types:
            return self._qualification_types[name]
        try:
            made = self._ask(
                "create_qualification_type",
                Name=name,
                Description=f"Used by the study '{self._study}'; it cannot be requested.",
                QualificationTypeStatus="Active",
                AutoGranted=False,
            )
            self._qualification_types[name] = str(made["QualificationType"]["QualificationTypeId"])
        except MTurkApiError as error:
            if error.code != "QualificationTypeAlreadyExists":
                raise
            self._qualification_types[name] = self._known_kind(name)
        return self._qualification_types[name]

    def _known_kind(self, name: str) -> str:
        query = {"Query": name, "MustBeRequestable": False, "MustBeOwnedByCaller": True}
        for kind in self._pages("list_qualification_types", "QualificationTypes", **query):
            if kind["Name"] == name:
                return str(kind["QualificationTypeId"])
        raise MarketplaceError(
            f"the qualification type '{name}' was created but is not listed yet; try again in a minute."
        )

    def exclude(self, worker: str, launch: str) -> None:
        self._associate(self._kind(_marker(launch)), worker, 1, notify=False)

    def _associate(self, kind: str, worker: str, value: int, *, notify: bool) -> None:
        try:
            self._ask(
                "associate_qualification_with_worker",
                QualificationTypeId=kind,
                WorkerId=worker,
                IntegerValue=value,
                SendNotification=notify,
            )
        except MTurkApiError as error:
            if error.code in ACCOUNT_ERRORS:
                raise
            raise UnknownWorkerError(
                "Mechanical Turk knows no worker with the id that a listener arrived with."
            ) from None

    def close(self, opening: str) -> None:
        try:
            self._ask("update_expiration_for_hit", HITId=opening, ExpireAt=PAST)
        except MTurkApiError as error:
            # The same end twice, or a HIT that Mechanical Turk deleted after 120 days.
            if error.code not in ("DuplicateRequest", "HITDoesNotExist"):
                raise

    # ------------------------------------------------------------------ submissions and pay

    def submissions(self, opening: str) -> PostingStatus:
        try:
            hit = self._ask("get_hit", HITId=opening)["HIT"]
        except MTurkApiError as error:
            if error.code == "HITDoesNotExist":  # deleted after 120 days
                return PostingStatus(0, 0)
            raise
        free = hit["NumberOfAssignmentsAvailable"] if hit["HITStatus"] == "Assignable" else 0
        if hit["HITStatus"] == "Disposed":
            return PostingStatus(0, 0)
        listed = self._pages("list_assignments_for_hit", "Assignments", HITId=opening)
        known = tuple(_submission(one) for one in listed)
        return PostingStatus(free, hit["NumberOfAssignmentsPending"], known)

    def approve(self, submission: ReportedSubmission) -> None:
        if submission.status == "approved":
            return
        try:
            self._ask("approve_assignment", AssignmentId=submission.id)
        except MTurkApiError as error:
            if error.code != "InvalidAssignmentState" or self._status(submission.id) != "Approved":
                raise

    def _status(self, assignment: str) -> str:
        return str(self._ask("get_assignment", AssignmentId=assignment)["Assignment"]["AssignmentStatus"])

    def bonus(self, payment: DirectPayment) -> None:
        try:
            self._ask(
                "send_bonus",
                WorkerId=payment.submission.worker,
                AssignmentId=payment.submission.id,
                BonusAmount=_dollars(payment.cents),
                Reason=f"{payment.reason} ({_reference(payment)})",
                UniqueRequestToken=payment.token,
            )
        except MTurkApiError as error:
            if error.code != "DuplicateRequest":
                raise

    def has_paid(self, payment: DirectPayment) -> bool:
        paid = self._pages("list_bonus_payments", "BonusPayments", AssignmentId=payment.submission.id)
        # Tokens are not listed, so the reason carries a reference to the token.
        return any(str(one.get("Reason", "")).endswith(f"({_reference(payment)})") for one in paid)

    def account(self) -> int | None:
        return int(Decimal(self._ask("get_account_balance")["AvailableBalance"]) * 100)

    def time_limit(self, minutes: float) -> int | None:
        return self._config.assignment_minutes

    def fee(self, cents: int, places: int = 1) -> int:
        """20 % of it, or 40 % if a HIT has ten assignments or more; rounded half up, at least one cent."""
        percent = 20 if places <= BATCH else 40
        return max((cents * percent + 50) // 100, 1) if cents else 0

    # ------------------------------------------------------------------ the wire

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = connect(live=self._live, endpoint=self._endpoint, attempts=self._attempts)
        return self._client

    def _ask(self, operation: str, **given: Any) -> dict[str, Any]:
        return ask(self._connected(), operation, given)

    def _pages(self, operation: str, name: str, **given: Any) -> Iterator[dict[str, Any]]:
        return pages(self._connected(), operation, name, given)


def question(url: str) -> str:
    """An ExternalQuestion that shows `url`; a height of 0 lets the frame take what there is."""
    return (
        f'<ExternalQuestion xmlns="{SCHEMA}"><ExternalURL>{escape(url)}</ExternalURL>'
        "<FrameHeight>0</FrameHeight></ExternalQuestion>"
    )


def _submission(found: Mapping[str, Any]) -> ReportedSubmission:
    status = STATUSES[found["AssignmentStatus"]]
    return ReportedSubmission(found["AssignmentId"], found["WorkerId"], found["HITId"], status, found.get("SubmitTime"))


def _marker(launch: str) -> str:
    """One for each study, whichever database launched it."""
    return f"Rootnote study {launch.partition('-')[0]}: took part"


def _owed_marker(launch: str) -> str:
    return f"Rootnote study {launch.partition('-')[0]}: is owed a payment"


def _number(token: str) -> int:
    return int(hashlib.sha256(token.encode()).hexdigest()[:7], 16)


def _owes(kind: str, token: str) -> dict[str, Any]:
    values = {"Comparator": "EqualTo", "IntegerValues": [_number(token)]}
    return {"QualificationTypeId": kind, **values, "ActionsGuarded": "DiscoverPreviewAndAccept"}


def _reference(payment: DirectPayment) -> str:
    return "ref " + hashlib.sha256(payment.token.encode()).hexdigest()[:12]


def _dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
