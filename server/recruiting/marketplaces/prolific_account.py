"""The account at Prolific: workspace, project, balance, costs, filters, groups, test participants, webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific_api import TOKEN, ProlificApiError, ProlificClient
from server.recruiting.marketplaces.prolific_config import BUILT_IN, RANGES, ProlificConfig

HOOK_SECRET = "X-Hook-Secret"  # noqa: S105 (the header's name)
EXAMPLE = 10_000  # cents; large enough to tell one fee from another


@dataclass(frozen=True)
class ProlificTestStudy:
    """A copy of a draft that only test participants see; nothing is paid for it."""

    id: str
    url: str


@dataclass(frozen=True)
class WebhookSubscription:
    """A subscription to an event; it is used once it is confirmed with `secret` (X-Hook-Secret).

    `secret` is empty if Prolific sent it to the address only.
    """

    id: str
    event_type: str
    url: str
    enabled: bool
    secret: str = ""


class ProlificAccount:
    """What belongs to the account and not to one study."""

    def __init__(self, api: ProlificClient, config: ProlificConfig) -> None:
        self._api, self._config = api, config
        self._known: dict[str, str] = {}  # the workspace and the project, once they are looked up

    # ------------------------------------------------------------------ money

    def check(self) -> int:
        """The balance in cents; the workspace, project, currency, fees and filters must be those of study.toml."""
        try:
            balance = self._api.get(f"/workspaces/{self.workspace()}/balance/")
        except ProlificApiError as refused:
            if refused.status != 404:
                raise
            raise MarketplaceError(
                f"the token in {TOKEN} does not reach the workspace {self.workspace()} on Prolific; use a token of "
                "that workspace, or correct recruiter.prolific.workspace in study.toml."
            ) from refused
        self.project()
        currency = str(balance.get("currency_code", ""))
        if currency != self._config.currency:
            raise MarketplaceError(
                f"the workspace on Prolific pays in {currency}, and recruiter.prolific.currency in study.toml is "
                f"{self._config.currency}: set it, and read all amounts in study.toml as {currency}."
            )
        charged, expected = self.cost(EXAMPLE, 1) - EXAMPLE, EXAMPLE * self._config.charge
        if abs(charged - expected) >= 1:
            raise MarketplaceError(
                f"Prolific charges {float(charged) / 100:.2f} on 100.00, but study.toml expects "
                f"{float(expected) / 100:.2f}; set fee and tax_percent in [recruiter.prolific] so that both agree."
            )
        self.require_filters()
        return int(balance.get("available_balance", 0))

    def cost(self, reward: int, places: int) -> Fraction:
        """What this many places cost with fees and tax, in cents, as Prolific computes it."""
        asked = {"reward": reward, "total_available_places": places}
        return Fraction(str(self._api.post("/study-cost-calculator/", asked, retry=True)["total_cost"]))

    # ------------------------------------------------------------------ workspace and project

    def workspace(self) -> str:
        """The id of the workspace that pays."""
        if self._config.workspace:
            return str(self._config.workspace)
        if "workspace" not in self._known:
            self._known["workspace"] = _only(self._api.whole("/workspaces/"), "workspace", "workspaces")
        return self._known["workspace"]

    def project(self) -> str:
        """The id of the project that studies are created in.

        Raises:
            MarketplaceError: if study.toml names none of the workspace's projects, or must name one.
        """
        if "project" not in self._known:
            found = self._api.whole(f"/workspaces/{self.workspace()}/projects/")
            wanted = self._config.project
            if wanted and all(one.get("id") != wanted for one in found):
                raise MarketplaceError(
                    f"recruiter.prolific.project in study.toml is '{wanted}', and the workspace has no such project; "
                    f"it has: {_listed(found)}."
                )
            self._known["project"] = wanted or _only(found, "project", "projects")
        return self._known["project"]

    # ------------------------------------------------------------------ filters

    def filters(self) -> list[dict[str, Any]]:
        """All filters of the workspace, as /filters/ describes them."""
        return self._api.whole("/filters/", workspace_id=self.workspace())

    def require_filters(self) -> None:
        """Refuse further filters of study.toml that Prolific does not have.

        Raises:
            MarketplaceError: naming the filter or the choice.
        """
        if not self._config.filters:
            return
        known = {str(one.get("filter_id")): one for one in self.filters()}
        for one in self._config.filters:
            if one.id not in known:
                raise MarketplaceError(
                    f"Prolific has no filter '{one.id}' (recruiter.prolific.filters in study.toml); "
                    "`GET /api/v1/filters/` lists all of them."
                )
            offered = known[one.id].get("choices")
            if isinstance(offered, dict) and offered and (unknown := [v for v in one.values if v not in offered]):
                raise MarketplaceError(
                    f"Prolific's filter '{one.id}' has no choice '{unknown[0]}' (recruiter.prolific.filters in "
                    "study.toml)."
                )

    def eligible_count(self, filters: Iterable[dict[str, Any]]) -> int:
        """How many participants pass these filters now."""
        known = (*BUILT_IN, *RANGES)
        chosen = sorted(filters, key=lambda one: one["filter_id"] not in known)
        asked = {"filters": chosen, "workspace_id": self.workspace()}
        return int(self._api.post("/eligibility-count/", asked, retry=True)["count"])

    # ------------------------------------------------------------------ participant groups

    def group(self, name: str) -> str:
        """The id of the workspace's participant group of this name, made if there is none; "" if it may have none."""
        try:
            for one in self._api.whole("/participant-groups/", workspace_id=self.workspace()):
                if one.get("name") == name and not one.get("is_deleted"):
                    return str(one["id"])
            about = "Everyone who took part in this listening study, so that nobody is asked twice."
            made = {"workspace_id": self.workspace(), "name": name, "description": about}
            return str(self._api.post("/participant-groups/", made)["id"])
        except ProlificApiError as refused:
            if refused.status not in (400, 403, 404):
                raise
            return ""

    # ------------------------------------------------------------------ Prolific's test mode

    def create_test_participant(self, email: str) -> str:
        """A participant who can take only this account's test studies; returns their id.

        Raises:
            MarketplaceError: if the workspace has no test participants, or the address is in use.
        """
        return str(self._api.post("/researchers/participants/", {"email": email})["participant_id"])

    def create_test_study(self, study_id: str) -> ProlificTestStudy:
        """Publish a copy of a draft to the test participants; it costs nothing."""
        made = self._api.post(f"/studies/{study_id}/test-study")
        return ProlificTestStudy(str(made["study_id"]), str(made["study_url"]))

    # ------------------------------------------------------------------ webhooks

    def webhook_secret(self) -> str:
        """The key that Prolific signs webhooks with; a new one if the workspace has none."""
        for one in self._api.whole("/hooks/secrets/", workspace_id=self.workspace()):
            if one.get("value"):
                return str(one["value"])
        return str(self._api.post("/hooks/secrets/", {"workspace_id": self.workspace()}, retry=True)["value"])

    def subscriptions(self) -> list[WebhookSubscription]:
        """The workspace's subscriptions."""
        found = self._api.whole("/hooks/subscriptions/", workspace_id=self.workspace())
        return [_subscription(one) for one in found]

    def subscribe(self, event_type: str, url: str) -> WebhookSubscription:
        """Subscribe an address to an event; the same subscription is not made twice."""
        for one in self.subscriptions():
            if (one.event_type, one.url, one.enabled) == (event_type, url, True):
                return one
        asked = {"event_type": event_type, "target_url": url, "workspace_id": self.workspace()}
        made = self._api.post("/hooks/subscriptions/", asked)
        secret = str(self._api.headers.get(HOOK_SECRET, ""))
        # The description of the API says that a list is answered.
        entries = made["results"] if isinstance(made.get("results"), list) else [made]
        return next(
            _subscription(one, secret)
            for one in reversed(entries)
            if (one.get("event_type"), one.get("target_url")) == (event_type, url)
        )

    def confirm_subscription(self, subscription: str, secret: str) -> None:
        """Confirm a subscription with its secret; only then are events sent."""
        self._api.post(f"/hooks/subscriptions/{subscription}/", {"secret": secret}, retry=True)

    def unsubscribe(self, subscription: str) -> None:
        """End a subscription."""
        try:
            self._api.delete(f"/hooks/subscriptions/{subscription}/")
        except ProlificApiError as refused:
            if refused.status != 404:
                raise


def _subscription(one: dict[str, Any], secret: str = "") -> WebhookSubscription:
    url, event_type = str(one.get("target_url", "")), str(one.get("event_type", ""))
    return WebhookSubscription(str(one.get("id", "")), event_type, url, bool(one.get("is_enabled")), secret)


def _only(found: list[dict[str, Any]], key: str, plural: str) -> str:
    if not found:
        raise MarketplaceError(f"the account on Prolific has no {key}; make one at app.prolific.com first.")
    if len(found) > 1:
        raise MarketplaceError(f"set recruiter.prolific.{key} in study.toml to one of the {plural}: {_listed(found)}.")
    return str(found[0]["id"])


def _listed(found: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one.get('id')} ({one.get('title', '')})" for one in found) or "none"
