"""Prolific: paid participants, chosen by country, language and approval rate.

One study holds all places of a launch; participants arrive with three ids and return with a completion code. The code
is the same for all listeners of a study, so it proves nothing: every submission waits for review, and what the database
shows complete is approved. A returned or timed-out submission frees its place automatically; ordering another place
each time would never stop recruiting, so only the total number of places is set. Bonuses carry no token, and paying
the same batch again pays again: whether one was paid is read from its submission.

Beyond the interface of every marketplace (base.py), other code uses these methods of `ProlificMarketplace`:

    draft(order) -> id                        a draft on Prolific that nobody else sees; publish(id) shows it
    cost(reward, places) -> Fraction          cents with fees and tax, as Prolific computes them
    filters(), eligible_count([...])          the workspace's filters; how many participants pass some of them
    audience()                                how many participants pass the filters of study.toml
    create_test_participant(email) -> id      Prolific's test mode, for workspaces that have it
    create_test_study(draft_id)               a copy of a draft for the test participants: .id, .url
    webhook_secret()                          the key that webhooks are signed with
    subscribe(event_type, url)                .id, .enabled, .secret; confirm_subscription(id, secret); unsubscribe(id)
    workspace()                               the id of the workspace that pays

Webhooks come with X-Event-ID, X-Prolific-Request-Timestamp and X-Prolific-Request-Signature, which is the base64 of the
HMAC-SHA256 of the timestamp followed by the body, by `webhook_secret()`; the first request to an address carries
X-Hook-Secret instead, for `confirm_subscription`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from server.db.enums import RunOutcome
from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    ArrivalError,
    Capabilities,
    DirectPayment,
    Marketplace,
    MarketplaceError,
    PostingOrder,
    PostingStatus,
    ReportedSubmission,
    ReturnLink,
    ScreenOutPlan,
)
from server.recruiting.marketplaces.events import ReportedEvent
from server.recruiting.marketplaces.prolific_account import ProlificAccount, ProlificTestStudy, WebhookSubscription
from server.recruiting.marketplaces.prolific_api import API, TOKEN, ProlificClient
from server.recruiting.marketplaces.prolific_config import LEAST_HOURLY, ProlificConfig, read_filters
from server.recruiting.marketplaces.prolific_draft import ProlificDraft, estimated_minutes
from server.recruiting.marketplaces.prolific_places import ProlificPlaces
from server.recruiting.marketplaces.prolific_submissions import ProlificSubmissions
from server.recruiting.marketplaces.prolific_token import TOKEN_PARAMETER, ProlificSignatures
from server.recruiting.marketplaces.prolific_webhooks import EVENT_TYPES, read_event, sign_event
from study.config import cents

if TYPE_CHECKING:
    from study.config import Study

SITE = "https://app.prolific.com"
ID = re.compile(r"[0-9a-f]{24}")


class ProlificMarketplace(Marketplace):
    """Prolific for one study; uses the network only when it has to."""

    capabilities = Capabilities(
        name="Prolific",
        lists_held=True,
        pays_unsubmitted=True,
        has_drafts=True,
        has_test_mode=True,
        auto_approval_days=21,
        settle_minutes=15,
    )
    currencies = ("USD", "GBP")
    Settings = ProlificConfig
    frame_origins = (SITE,)
    simulator = "server.simulation.marketplace_client:local_prolific"
    listing_note = "Prolific shows this text, word for word, to everyone who passes its filters."
    payment_note = "Payment is made by Prolific: the submission is approved by what the study's database shows."
    sample_opening = "a" * 24
    event_types = EVENT_TYPES
    minimum_hourly = LEAST_HOURLY

    @classmethod
    def missing_credentials(cls, environment: Mapping[str, str]) -> list[str]:
        if environment.get(TOKEN, "").strip():
            return []
        return [f"The environment variable {TOKEN} is not set: make a token at app.prolific.com, Settings, API tokens."]

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
        self._account = ProlificAccount(self._api, self._config)
        self._drafts = ProlificDraft(study.config)
        self._places = ProlificPlaces(self._api, self._account, self._drafts)
        self._submissions = ProlificSubmissions(self._api)
        self._signatures = ProlificSignatures(endpoint or API)

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

    def read_event(self, headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> ReportedEvent | None:
        return read_event(headers, body, secret, now)

    def verify_arrival(self, query: Mapping[str, str], arrival: Arrival, host: str) -> bool:
        return self._signatures.is_signed(query.get(TOKEN_PARAMETER, ""), arrival, host)

    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        """Listeners who left return their submission there themselves; all others come back with a code."""
        site = self._endpoint.replace("127.0.0.1", "localhost") if self._endpoint else SITE
        if outcome == "left":
            return ReturnLink("link", f"{site}/studies")
        return ReturnLink("link", f"{site}/submissions/complete?cc={code}")

    def code(self, outcome: RunOutcome, key: str = "") -> str:
        return self._drafts.code(outcome, key)

    # ------------------------------------------------------------------ places

    def open(self, order: PostingOrder) -> str:
        self._require_openable(order)
        return self._places.open(order)

    def draft(self, order: PostingOrder) -> str:
        self._require_openable(order)
        return str(self._places.draft(order)["id"])

    def update_draft(self, draft: str, order: PostingOrder) -> None:
        self._require_openable(order)
        self._places.update_draft(draft, order)

    def draft_address(self, draft: str) -> str:
        site = self._endpoint.replace("127.0.0.1", "localhost") if self._endpoint else SITE
        return f"{site}/researcher/studies/{draft}"

    def publish(self, posting: str) -> None:
        self._places.publish(posting)

    def _require_openable(self, order: PostingOrder) -> None:
        if not self._live and not self._endpoint:
            raise MarketplaceError(
                "Prolific has no sandbox; --live opens a study that costs money, and `rootnote server rehearse "
                "--recruiter prolific` rehearses the launch at no cost."
            )
        parts = urlsplit(order.url)
        if parts.scheme != "https" and not (self._endpoint and parts.hostname in ("localhost", "127.0.0.1", "::1")):
            raise MarketplaceError(f"Prolific opens only https addresses, and ROOTNOTE_PUBLIC_URL is '{order.url}'.")
        self.check_terms(order.reward, order.minutes)

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        return self._drafts.advert(order)

    def check_terms(self, reward: int, minutes: float) -> None:
        least, currency = LEAST_HOURLY[self._config.currency], self._config.currency
        if reward * 60 < least * minutes:
            raise MarketplaceError(
                f"a reward of {reward / 100:.2f} {currency} for {minutes:g} minutes is {reward * 0.6 / minutes:.2f} an "
                f"hour, and Prolific's minimum is {least / 100:.2f}: raise the reward in [pay] of study.toml, or lower "
                "pay.minutes if the study is shorter."
            )
        pay = self._study.config.pay
        if self._config.screen_out == "approve" and max(cents(pay.screened_out), cents(pay.unheard)) > reward:
            raise MarketplaceError(
                'recruiter.prolific.screen_out in study.toml is "approve", which pays the reward, and [pay] promises '
                'more to those who are screened out; set it to "auto".'
            )

    def submissions(self, opening: str) -> PostingStatus:
        return self._places.status(opening, self._submissions.of(opening))

    def close(self, opening: str) -> None:
        self._places.close(opening)

    def allow_screen_outs(self, posting: str, number: int) -> None:
        self._places.allow_screen_outs(posting, number)

    def exclude(self, worker: str, launch: str) -> None:
        """Prolific admits nobody to the same study twice; earlier launches are excluded by the study's filters."""

    # ------------------------------------------------------------------ pay

    def screen_out_plan(self, *, ask: bool = False, pays: bool = False) -> ScreenOutPlan:
        return self._places.screen_out_plan(ask=ask, pays=pays)

    def notes(self) -> tuple[str, ...]:
        return self._places.notes()

    def approve(self, submission: ReportedSubmission) -> None:
        self._submissions.approve(submission)

    def bonus(self, payment: DirectPayment) -> None:
        self._submissions.pay(payment)

    def has_paid(self, payment: DirectPayment) -> bool:
        return self._submissions.has_paid(payment)

    def request_return(self, submission: ReportedSubmission, reason: str) -> None:
        self._submissions.request_return(submission, reason or self._drafts.return_reason)

    def fee(self, cents: int, places: int = 1) -> int:
        return _round(self.exact_fee(cents))

    def exact_fee(self, cents: int, places: int = 1) -> Fraction:
        return cents * Fraction(self._config.charge)

    # ------------------------------------------------------------------ the account

    def account(self) -> int | None:
        """The balance of the workspace; its currency, fees, project and filters must be those of study.toml."""
        return self._account.check()

    def cost(self, reward: int, places: int) -> Fraction:
        return self._account.cost(reward, places)

    def workspace(self) -> str:
        return self._account.workspace()

    def filters(self) -> list[dict[str, Any]]:
        return self._account.filters()

    def eligible_count(self, filters: Iterable[dict[str, Any]]) -> int:
        return self._account.eligible_count(filters)

    def audience(self) -> int:
        """How many participants pass the filters of study.toml now."""
        return self._account.eligible_count(read_filters(self._config))

    def create_test_participant(self, email: str) -> str:
        return self._account.create_test_participant(email)

    def create_test_study(self, study_id: str) -> ProlificTestStudy:
        return self._account.create_test_study(study_id)

    def discard_draft(self, draft: str) -> None:
        self._places.discard_draft(draft)

    def webhook_secret(self) -> str:
        return self._account.webhook_secret()

    def sign_event(self, secret: str, sent: datetime, body: bytes) -> dict[str, str]:
        return sign_event(secret, sent, body)

    def subscriptions(self) -> list[WebhookSubscription]:
        return self._account.subscriptions()

    def subscribe(self, event_type: str, url: str) -> WebhookSubscription:
        return self._account.subscribe(event_type, url)

    def confirm_subscription(self, subscription: str, secret: str) -> None:
        self._account.confirm_subscription(subscription, secret)

    def unsubscribe(self, subscription: str) -> None:
        self._account.unsubscribe(subscription)

    def estimated_minutes(self, minutes: float) -> float:
        return estimated_minutes(minutes)

    def time_limit(self, minutes: float) -> int | None:
        return self._drafts.longest(minutes)

    def disconnect(self) -> None:
        self._api.close()


def _round(value: Fraction) -> int:
    """To a whole number, half up."""
    return int((Decimal(value.numerator) / Decimal(value.denominator)).to_integral_value(ROUND_HALF_UP))
