"""Subscribing the server to the events of a marketplace, after checking that it can receive them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from embeddings.errors import RootnoteError
from server.recruiting.marketplaces.base import Marketplace, MarketplaceError
from server.recruiting.reachability import require_reachable
from server.recruiting.webhooks import path_of
from server.settings import Settings

TEST_EVENT = "rootnote.test"


class Subscription(Protocol):
    """A subscription at a marketplace; `secret` confirms a new one."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def secret(self) -> str: ...


class EventSource(Protocol):
    """The methods of a marketplace that sends events (`event_types` is not empty)."""

    def webhook_secret(self) -> str:
        """The secret that events are signed with; made if there is none."""

    def sign_event(self, secret: str, sent: datetime, body: bytes) -> dict[str, str]:
        """The headers of a signed event."""

    def subscriptions(self) -> list[Subscription]:
        """The subscriptions of the account."""

    def subscribe(self, event_type: str, url: str) -> Subscription:
        """Subscribe an address to a type of event; an existing subscription is returned."""

    def confirm_subscription(self, subscription: str, secret: str) -> None:
        """Confirm a new subscription."""

    def unsubscribe(self, subscription: str) -> None:
        """End a subscription."""


def source_of(marketplace: Marketplace) -> EventSource:
    """The marketplace by its methods for events."""
    assert marketplace.event_types
    return cast(EventSource, marketplace)


def subscribe(marketplace: Marketplace, kind: str, settings: Settings, folder: Path) -> str:
    """Subscribe the server to all events that it uses; returns its address. Repeating it changes nothing.

    Raises:
        RootnoteError: if the server cannot receive events yet, with what to do.
    """
    source, name = source_of(marketplace), marketplace.capabilities.name
    secret = source.webhook_secret()
    if settings.webhook_secret != secret:
        found = "is not set" if not settings.webhook_secret else f"is not the secret of the workspace on {name}"
        raise RootnoteError(
            f"ROOTNOTE_WEBHOOK_SECRET {found}; run `export ROOTNOTE_WEBHOOK_SECRET=$(rootnote server webhooks "
            f"{folder} --secret)` for the server and here, restart the server, and run this again."
        )
    require_reachable(settings)
    address = f"{settings.public_url}{path_of(kind)}"
    _require_received(source, address, secret)
    for event_type in marketplace.event_types:
        made = source.subscribe(event_type, address)
        if made.secret:
            source.confirm_subscription(made.id, made.secret)
        elif not made.enabled:
            raise MarketplaceError(
                f"{name} has an unconfirmed subscription to {event_type}; run `rootnote server webhooks {folder} "
                "--off`, then this again."
            )
    return address


def unsubscribe(marketplace: Marketplace, kind: str, public_url: str) -> int:
    """End the subscriptions of this server; returns how many there were."""
    source = source_of(marketplace)
    found = [one for one in source.subscriptions() if one.url == f"{public_url}{path_of(kind)}"]
    for one in found:
        source.unsubscribe(one.id)
    return len(found)


def _require_received(source: EventSource, address: str, secret: str) -> None:
    """Send the server an event without effect, signed as the marketplace signs.

    Raises:
        RootnoteError: if it does not accept it.
    """
    import httpx

    body = json.dumps({"event_type": TEST_EVENT}).encode()
    headers = source.sign_event(secret, datetime.now(UTC), body)
    try:
        status = httpx.post(address, content=body, headers=headers, timeout=10, follow_redirects=False).status_code
    except httpx.HTTPError as error:
        raise RootnoteError(f"{address} cannot be reached ({type(error).__name__}); start the server first.") from None
    if status == 401:
        raise RootnoteError(
            f"the server at {address} has another ROOTNOTE_WEBHOOK_SECRET, or a clock that is wrong; set it as it is "
            "here and restart the server."
        )
    if status != 204:
        raise RootnoteError(
            f"{address} answers with status {status} instead of receiving events; restart the server with "
            "ROOTNOTE_WEBHOOK_SECRET set."
        )
