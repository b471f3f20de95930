"""Prolific's webhooks: secrets, subscriptions, and signed events."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from server.simulation.marketplaces.loopback import Notification
from server.simulation.marketplaces.prolific_requests import CreateSubscription, UpdateSubscription
from server.simulation.marketplaces.prolific_studies import FakeProlificError, not_found

EVENTS = {
    "submission.status.change": "A submission has another status.",
    "study.status.change": "A study has another status.",
}
EVERY_SECONDS = 0.2


@dataclass
class FakeSubscription:
    """An address that wants one kind of event; events are sent once it is confirmed."""

    id: str
    event_type: str
    target_url: str
    secret: str
    is_enabled: bool = False

    def describe(self, workspace: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "event_type": self.event_type,
            "target_url": self.target_url,
            "is_enabled": self.is_enabled,
            "workspace_id": workspace,
        }


class FakeHooks:
    """The subscriptions of one workspace, and the key that events are signed with."""

    def __init__(self, now: Callable[[], datetime], new_id: Callable[[str], str]) -> None:
        self._now, self._new_id = now, new_id
        self.secret: tuple[str, str] | None = None  # its id and its value
        self.subscriptions: dict[str, FakeSubscription] = {}

    def make_secret(self) -> tuple[str, str]:
        """A new key; the earlier one is gone."""
        self.secret = self._new_id("secret"), self._new_id("key") + self._new_id("key")
        return self.secret

    def subscribe(self, given: CreateSubscription) -> FakeSubscription:
        if self.secret is None:
            raise FakeProlificError("Validation error", "Create a secret for the workspace first.")
        found = FakeSubscription(self._new_id("hook"), given.event_type, given.target_url, self._new_id("confirm"))
        self.subscriptions[found.id] = found
        # The address may be asked for by the very request that is answered now, so it is called from outside.
        threading.Thread(target=self._shake_hands, args=(found,), daemon=True).start()
        return found

    def _shake_hands(self, one: FakeSubscription) -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(one.target_url, headers={"X-Hook-Secret": one.secret}, timeout=10)

    def subscription(self, id_: str) -> FakeSubscription:
        if id_ not in self.subscriptions:
            raise not_found("Subscription")
        return self.subscriptions[id_]

    def confirm(self, one: FakeSubscription, secret: str) -> None:
        if not hmac.compare_digest(secret, one.secret):
            raise FakeProlificError("Validation error", {"secret": ["This is not the subscription's secret."]})
        one.is_enabled = True

    def update(self, one: FakeSubscription, given: UpdateSubscription) -> None:
        one.event_type = given.event_type or one.event_type
        one.target_url = given.target_url or one.target_url
        one.is_enabled = one.is_enabled if given.is_enabled is None else given.is_enabled

    def wants(self) -> bool:
        """Whether anybody is sent events."""
        return any(one.is_enabled for one in self.subscriptions.values())

    def send(self, one: Notification) -> None:
        """Send an event to every confirmed subscription."""
        for subscription in list(self.subscriptions.values()):
            if subscription.is_enabled and subscription.event_type == one.event:
                self.post(one, subscription.target_url)

    def post(self, one: Notification, to: str) -> None:
        """Send an event, signed: the base64 of the HMAC-SHA256 of the time and the body."""
        body, at = json.dumps(one.body), str(int(self._now().timestamp()))
        headers = {"Content-Type": "application/json", "X-Event-ID": one.id, "X-Prolific-Request-Timestamp": at}
        if self.secret is not None:
            digest = hmac.new(self.secret[1].encode(), f"{at}{body}".encode(), hashlib.sha256).digest()
            headers["X-Prolific-Request-Signature"] = base64.b64encode(digest).decode()
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(to, content=body, headers=headers, timeout=10)
