"""Prolific's public API over httpx: requests, lists page by page, errors as plain sentences.

A request that only reads, or sets a value, is retried when no answer comes. A request that creates or pays is not; it
raises UnknownOutcomeError, because it may have been carried out. A request refused for coming too fast (429) did
nothing, so it is retried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
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
NO_REASON = "no reason was given"
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)


class ProlificApiError(MarketplaceError):
    """Prolific refused, and nothing was done; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ProlificClient:
    """A client that connects when it is first used; `endpoint` is the address of a local marketplace."""

    def __init__(self, endpoint: str = "", sleep: Callable[[float], None] = time.sleep, timeout: float = 30.0) -> None:
        if endpoint and not is_loopback(urlsplit(endpoint).hostname):
            raise MarketplaceError(f"'{endpoint}' is not on this machine; a rehearsal only uses this machine.")
        self._endpoint, self._sleep, self._timeout = endpoint.rstrip("/"), sleep, timeout
        self._client: httpx.Client | None = None
        self.headers: Mapping[str, str] = {}  # of the latest answer

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        return self._ask("GET", path, query=query, retry=True)

    def post(self, path: str, body: dict[str, Any] | None = None, *, retry: bool = False) -> dict[str, Any]:
        return self._ask("POST", path, body, retry=retry)

    def delete(self, path: str) -> dict[str, Any]:
        return self._ask("DELETE", path, retry=True)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("PATCH", path, body, retry=True)

    def pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every entry of a list that takes `page` and `page_size`."""
        number = 1
        while True:
            page = self.get(path, **query, page=number, page_size=PAGE_SIZE)
            found = _results(page)
            yield from found
            links = page.get("_links")
            # Where there are links, they say whether there is more; a page past the last is an error.
            more = (links.get("next") or {}).get("href") if isinstance(links, dict) else len(found) == PAGE_SIZE
            if not more:
                return
            number += 1

    def whole(self, path: str, **query: str | int) -> list[dict[str, Any]]:
        """A list that is documented without pages; the links are followed all the same."""
        import httpx

        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, **query)
            found += _results(page)
            following = ((page.get("_links") or {}).get("next") or {}).get("href")
            if not following:
                return found
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
                    f"the environment variable {TOKEN} contains no Prolific token; make one at app.prolific.com under "
                    "Settings, API tokens, and set it."
                )
            headers = {"Authorization": f"Token {token}", "User-Agent": "rootnote"}
            address = f"{self._endpoint or API}/api/v1"
            self._client = httpx.Client(base_url=address, headers=headers, timeout=self._timeout)
        return self._client

    def _ask(
        self, method: str, path: str, body: Any = None, query: Any = None, *, retry: bool = False
    ) -> dict[str, Any]:
        import httpx

        for attempt in range(len(WAITS) + 1):
            last = attempt == len(WAITS)
            try:
                reply = self._connection().request(method, path, json=body, params=query or None)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last or not retry:
                    raise MarketplaceError(f"Prolific cannot be reached ({error}); check the network.") from error
            except httpx.TransportError as error:
                if last or not retry:
                    raise UnknownOutcomeError(
                        f"Prolific did not answer ({type(error).__name__}); the request may have been carried out."
                    ) from error
            else:
                self.headers = reply.headers
                if reply.status_code == 429 and not last:
                    self._sleep(_retry_after(reply) or WAITS[attempt])
                    continue
                if (reply.status_code < 500 and not _is_cut(reply)) or not retry or last:
                    return _read(reply)
            self.wait(attempt)
        raise AssertionError("the last attempt answers or raises")


def _retry_after(reply: httpx.Response) -> float:
    value = reply.headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isdigit() else 0.0


def _read(reply: httpx.Response) -> dict[str, Any]:
    if reply.status_code >= 500:
        raise UnknownOutcomeError(
            f"Prolific failed (status {reply.status_code}); the request may have been carried out."
        )
    if reply.status_code < 300:
        if _is_cut(reply):
            raise UnknownOutcomeError("Prolific's answer was cut off; the request may have been carried out.")
        return _json(reply)
    message = explain(_json(reply))
    if reply.status_code == 401:
        message = (
            f"Prolific does not accept the token in {TOKEN}: it is wrong, deleted or expired; make a new one at "
            "app.prolific.com under Settings."
        )
    elif reply.status_code == 403:
        message = f"Prolific does not allow this account to do that: {message}."
    elif reply.status_code == 429:
        message = "Prolific received too many requests; try again in a few minutes."
    else:
        message = f"Prolific refused: {message}."
    raise ProlificApiError(message, reply.status_code)


def _is_cut(reply: httpx.Response) -> bool:
    """Whether an answer that should be JSON ends too early."""
    if reply.status_code >= 300 or not reply.content:
        return False
    try:
        reply.json()
    except ValueError:
        return True
    return False


def _json(reply: httpx.Response) -> dict[str, Any]:
    """The object that was answered; some answers are a text or nothing."""
    try:
        read = reply.json() if reply.content else {}
    except ValueError:
        read = {}
    return read if isinstance(read, dict) else {}


def _results(page: dict[str, Any]) -> list[dict[str, Any]]:
    found = page.get("results")
    if not isinstance(found, list):
        raise MarketplaceError("Prolific answered without a list of results; try again.")
    return found


def explain(answer: Any) -> str:
    """An error's title and detail as one line, whether or not it is wrapped in `error`.

    The detail is a text, a list, or fields with their problems.
    """
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, str):
        return error.strip().rstrip(".") or NO_REASON
    if not isinstance(error, dict):
        return NO_REASON
    detail = error.get("detail")
    if isinstance(detail, dict):
        detail = "; ".join(f"{name}: {_join(problems)}" for name, problems in detail.items())
    words = [text for text in (_join(error.get("title")), _join(detail)) if text]
    return " ".join(": ".join(words).split()).rstrip(".") or NO_REASON


def _join(problems: Any) -> str:
    return ", ".join(str(one) for one in problems) if isinstance(problems, list) else str(problems or "")
