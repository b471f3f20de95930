"""Prolific's public interface over httpx: one request and its answer, every page of a list, errors in plain words.

What only reads, or sets something to a value, is asked again when no answer comes; what creates or pays is not, and
raises UnsureError instead: it may have been done. Too many requests (429) do nothing, so they are always asked again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

from server.recruiting.marketplaces.base import MarketplaceError, UnknownOutcomeError
from server.web.loopback import is_loopback

API = "https://api.prolific.com"
TOKEN = "PROLIFIC_TOKEN"  # noqa: S105 (the variable's name)
REHEARSAL_TOKEN = "rehearsal-token"  # noqa: S105 (opens nothing but the local emulator)
PAGE_SIZE = 100
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)


class ProlificApiError(MarketplaceError):
    """Prolific said no, and nothing was done; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ProlificClient:
    """A connection that is made when it is first needed; `endpoint` is a local emulator's address."""

    def __init__(self, endpoint: str = "", sleep: Callable[[float], None] = time.sleep, timeout: float = 30.0) -> None:
        if endpoint and not is_loopback(urlsplit(endpoint).hostname):
            raise MarketplaceError(f"'{endpoint}' is not on this machine; a rehearsal never leaves it.")
        self._endpoint, self._sleep, self._timeout = endpoint.rstrip("/"), sleep, timeout
        self._client: httpx.Client | None = None

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        return self._ask("GET", path, query=query, again=True)

    def post(self, path: str, body: dict[str, Any] | None = None, *, again: bool = False) -> dict[str, Any]:
        return self._ask("POST", path, body, again=again)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("PATCH", path, body, again=True)

    def pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every entry of a list: the `next` link says whether there is more (a page past the last is an error)."""
        query |= {"page_size": PAGE_SIZE}
        while True:
            page = self.get(path, **query)
            yield from page["results"]
            following = ((page.get("_links") or {}).get("next") or {}).get("href")
            if not following:
                return
            import httpx

            query = dict(httpx.URL(following).params)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def wait(self, attempt: int) -> None:
        self._sleep(WAITS[attempt])

    # ------------------------------------------------------------------ one request

    def _connection(self) -> httpx.Client:
        import httpx

        if self._client is None:
            token = REHEARSAL_TOKEN if self._endpoint else os.environ.get(TOKEN, "").strip()
            if not token or not token.isascii() or not token.isprintable():
                raise MarketplaceError(
                    f"the environment variable {TOKEN} holds no token of Prolific; make one at app.prolific.com under "
                    "Settings, API tokens, and set it."
                )
            headers = {"Authorization": f"Token {token}", "User-Agent": "rootnote"}
            address = f"{self._endpoint or API}/api/v1"
            self._client = httpx.Client(base_url=address, headers=headers, timeout=self._timeout)
        return self._client

    def _ask(
        self, method: str, path: str, body: Any = None, query: Any = None, *, again: bool = False
    ) -> dict[str, Any]:
        import httpx

        for attempt in range(len(WAITS) + 1):
            last = attempt == len(WAITS)
            try:
                reply = self._connection().request(method, path, json=body, params=query or None)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last or not again:
                    raise MarketplaceError(f"Prolific cannot be reached ({error}); check the network.") from error
            except httpx.TransportError as error:
                if last or not again:
                    raise UnknownOutcomeError(
                        f"Prolific did not answer ({type(error).__name__}); nothing is certain."
                    ) from error
            else:
                if reply.status_code == 429 and not last:
                    self._sleep(_retry_after(reply) or WAITS[attempt])
                    continue
                if reply.status_code < 500 or not again or last:
                    return _read(reply)
            self.wait(attempt)
        raise AssertionError("the last attempt answers or raises")


def _retry_after(reply: httpx.Response) -> float:
    value = reply.headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isdigit() else 0.0


def _read(reply: httpx.Response) -> dict[str, Any]:
    if reply.status_code >= 500:
        raise UnknownOutcomeError(f"Prolific failed (status {reply.status_code}); what was asked may have been done.")
    if reply.status_code < 300:
        return _json(reply)
    said = explain(_json(reply).get("error"))
    if reply.status_code == 401:
        said = f"Prolific does not accept the token in {TOKEN}; make a new one at app.prolific.com under Settings."
    elif reply.status_code == 403:
        said = f"Prolific forbids this account what was asked: {said}."
    elif reply.status_code == 429:
        said = "Prolific asks for fewer requests; try again in some minutes."
    else:
        said = f"Prolific refused: {said}."
    raise ProlificApiError(said, reply.status_code)


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        read = reply.json() if reply.content else {}
    except ValueError:
        read = {}
    return read if isinstance(read, dict) else {}


def explain(error: Any) -> str:
    """An error's title and detail as one line; the detail is a text, a list, or fields with their problems."""
    if not isinstance(error, dict):
        return "no reason was given"
    detail = error.get("detail")
    if isinstance(detail, dict):
        detail = "; ".join(f"{name}: {_join(told)}" for name, told in detail.items())
    words = [text for text in (_join(error.get("title")), _join(detail)) if text]
    return " ".join(": ".join(words).split()).rstrip(".") or "no reason was given"


def _join(told: Any) -> str:
    return ", ".join(str(one) for one in told) if isinstance(told, list) else str(told or "")
