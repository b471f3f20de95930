"""The shared parts of the local marketplaces: a server on this machine, a clock, faults, a log of calls, notifications,
people.

Tests and other programs on this machine may also ask over HTTP: POST /_market/fail {"operation", "nth", "how"}
(server.simulation.marketplaces.faults), /_market/advance {"seconds"}, /_market/workers {...}; GET /_market/calls,
/_market/ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import numpy as np

from server.simulation.marketplaces.account import Account
from server.simulation.marketplaces.faults import KNOWN_FAULTS, Faults
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, as_json
from server.simulation.marketplaces.money import LedgerLine

Person = TypeVar("Person")


class ConnectionCut(Exception):  # noqa: N818 (no error: the connection ends without a reply)
    """The connection is cut without a reply."""


@dataclass(frozen=True)
class RecordedCall:
    """One call of the marketplace's API: the request, the reply, and the fault that was applied."""

    number: int
    operation: str
    request: Mapping[str, Any]
    status: int
    fault: str
    at: datetime


@dataclass(frozen=True)
class Notification:
    """A notification from the marketplace; `id` stays the same when it is delivered again."""

    id: str
    event: str
    body: Mapping[str, Any]
    at: datetime


class FakeMarketplace:
    """An emulated marketplace: a context manager that serves on a free port of 127.0.0.1 while it is open."""

    hang_seconds = 0.0
    state: Account

    def __init__(self, clock: Callable[[], datetime] | None = None, seed: int = 0) -> None:
        self._clock = clock or (lambda: datetime.now(UTC))
        self._seed, self._ids = seed, 0
        self._offset = timedelta()
        self._server: _Server | None = None
        self.lock = threading.RLock()
        self.faults = Faults()
        self.calls: list[RecordedCall] = []
        self.entries: list[LedgerLine] = []
        self.notifications: list[Notification] = []
        self._made = 0

    # ------------------------------------------------------------------ for tests and rehearsals

    def __enter__(self) -> Self:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    @property
    def port(self) -> int:
        """The port it is open at; 0 while it is closed."""
        return int(self._server.server_address[1]) if self._server else 0

    @property
    def url(self) -> str:
        """The base address of the marketplace's API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker_url(self) -> str:
        """The address for workers: for a browser, another site than 127.0.0.1."""
        return f"http://localhost:{self.port}"

    def now(self) -> datetime:
        return self._clock() + self._offset

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Lock the marketplace for one action, after processing everything that is due."""
        with self.lock:
            self.tick()
            yield

    @property
    def balance(self) -> Decimal:
        """The balance, in US dollars."""
        with self.acting():
            return self.state.available

    @property
    def on_hold(self) -> Decimal:
        """The amount reserved for places that may still be paid, and for payments in progress."""
        with self.acting():
            return self.state.on_hold

    def advance(self, by: timedelta) -> None:
        """Advance the clock, and process everything that becomes due."""
        with self.lock:
            self._offset += by
            self.tick()

    def fail(self, operation: str, nth: int, how: str) -> None:
        """Let the `nth` call of `operation` from now on (1: the next; "*": of any) go wrong."""
        if nth < 1:
            raise ValueError("nth counts from 1")
        with self.lock:
            self.faults.plan(operation, nth, how)

    def fail_at_random(self, seed: int, rate: float, hows: tuple[str, ...] = KNOWN_FAULTS) -> None:
        """Let any call go wrong at a rate, by a plan that follows from the seed."""
        with self.lock:
            self.faults.at_random(seed, rate, hows)

    def refuse(self, code: str) -> None:
        """Refuse every call by a code from now on; "" ends it."""
        self.faults.always = code

    def ledger(self) -> tuple[LedgerLine, ...]:
        """Every payment from the account."""
        with self.acting():
            return tuple(self.entries)

    def deliver(
        self, seed: int | None = None, *, duplicate: float = 0.0, late: float = 0.0, to: str | None = None
    ) -> list[Notification]:
        """Deliver the waiting notifications and return them; POST them to `to` as well if given.

        With a seed the order is shuffled, a share comes twice, and a share is kept back for the next delivery.
        """
        with self.lock:
            waiting, self.notifications[:] = list(self.notifications), []
            due = waiting
            if seed is not None:
                rng = np.random.default_rng(seed)
                kept = rng.random(len(waiting)) < late
                self.notifications[:0] = [one for one, keep in zip(waiting, kept, strict=True) if keep]
                due = [one for one, keep in zip(waiting, kept, strict=True) if not keep]
                due += [one for one in due if rng.random() < duplicate]
                due = [due[index] for index in rng.permutation(len(due))]
        for one in due if to else ():
            self.send(one, str(to))
        return due

    # ------------------------------------------------------------------ for the marketplaces

    def send(self, one: Notification, to: str) -> None:
        """Send one notification, as this marketplace does, without checking that it was accepted."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(to, json=dict(one.body), headers={"X-Event-ID": one.id}, timeout=10)

    def emit(self, event: str, body: Mapping[str, Any]) -> None:
        self.notifications.append(Notification(self.new_id("N"), event, body, self.now()))

    def pay(self, entry: LedgerLine) -> None:
        if entry.amount:
            self.entries.append(entry)

    def new_id(self, prefix: str) -> str:
        """A unique id."""
        raise NotImplementedError

    def next_digest(self, prefix: str = "") -> bytes:
        """The digest from which the next id is made."""
        self._ids += 1
        return hashlib.sha256(f"{self._seed}:{prefix}{self._ids}".encode()).digest()

    def tick(self) -> None:
        """Process everything that is due."""
        self.state.tick()

    def handle(self, request: HttpRequest) -> HttpReply:
        """Answer a request."""
        raise NotImplementedError

    def throttled(self) -> HttpReply:
        raise NotImplementedError

    def failed(self) -> HttpReply:
        raise NotImplementedError

    def refused(self, code: str) -> HttpReply:
        raise NotImplementedError

    def add_worker(self, given: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def call(self, operation: str, request: Mapping[str, Any], work: Callable[[], HttpReply]) -> HttpReply:
        """Answer one API call, with the fault that is due, and log it.

        Raises:
            ConnectionCut: if the caller gets no reply.
        """
        with self.lock:
            how, self._made = self.faults.next(operation), self._made + 1
            number = self._made
            try:
                reply = self._answer(how, work)
            except ConnectionCut:
                reply = None
            status = reply.status if reply else 0
            self.calls.append(RecordedCall(number, operation, request, status, how, self.now()))
        if reply is None:
            time.sleep(self.hang_seconds)
            raise ConnectionCut
        return reply

    def _answer(self, how: str, work: Callable[[], HttpReply]) -> HttpReply:
        before = {"throttle": self.throttled, "fail": self.failed}
        if how in before:
            return before[how]()
        if how == "timeout_before":
            raise ConnectionCut
        if how and how not in KNOWN_FAULTS:
            return self.refused(how)
        self.tick()
        reply = work()
        if how == "twice":
            work()
        if how == "timeout_after":
            raise ConnectionCut
        return self.failed() if how == "fail_after" else reply

    def administer(self, request: HttpRequest) -> HttpReply:
        """Answer a request to /_market."""
        given = json.loads(request.body or b"{}")
        match request.method, request.path.removeprefix("/_market"):
            case "POST", "/fail":
                self.fail(str(given["operation"]), int(given["nth"]), str(given["how"]))
            case "POST", "/advance":
                self.advance(timedelta(seconds=float(given["seconds"])))
            case "POST", "/workers":
                self.add_worker(given)
            case "GET", "/calls":
                return as_json(200, [asdict(call) for call in self.calls])
            case "GET", "/ledger":
                return as_json(200, [asdict(entry) for entry in self.ledger()])
            case _:
                return as_json(404, {"error": "there is nothing here"})
        return as_json(200, {})


class People(Generic[Person]):
    """The people of a marketplace, by id."""

    def __init__(self, people: dict[str, Person], make: Callable[..., Person]) -> None:
        self._people, self._make = people, make

    def add(self, person: str, **account: Any) -> Person:
        """Add someone; the account's defaults are qualified for most work."""
        found = self._people[person] = self._make(person, **account)
        return found

    def __getitem__(self, person: str) -> Person:
        return self._people[person]

    def __iter__(self) -> Iterator[Person]:
        return iter(self._people.values())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, marketplace: FakeMarketplace) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.marketplace = marketplace

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply goes out in one piece: in two, the second would wait for the first to be acknowledged

    @property
    def marketplace(self) -> FakeMarketplace:
        assert isinstance(self.server, _Server)
        return self.server.marketplace

    def _serve(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        request = HttpRequest(self.command, address.path, query, headers, body)
        if address.path == "/favicon.ico":  # browsers request it, and would log an error
            return self._reply(HttpReply(204))
        try:
            administered = address.path.startswith("/_market/")
            self._reply(self.marketplace.administer(request) if administered else self.marketplace.handle(request))
        except ConnectionCut:
            self.close_connection = True
        return None

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815

    def _reply(self, reply: HttpReply) -> None:
        reply = replace(reply, headers={"Content-Type": reply.type, **reply.headers})
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: `Market.calls` is the log."""
