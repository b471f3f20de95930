"""The request queue: answers first.

A process works on a few requests at a time; the others wait here, ordered by what a listener would lose. Answers go
before other steps, steps before pages, pages before sounds and files, and all of these before people who only arrive;
within a rank, first come, first served. One or two slots stay free for higher ranks, and each waiting request costs a
sleeping thread. A reply is computed to its last byte within the slot: slow connections are read and written outside.

Only the address of a listener known to this process counts: one that a request below status 400 has used before. Posts
to other addresses wait with the pages, so that invented ones overtake nobody.

Two bounds limit the harm of this order. At least every `OVERDUE_SHARE`th free slot goes to a request that has waited
longer than `patience`, if there is one. And a request that works longer than `stuck` is waiting for something else (a
bucket, a lock, a lost database) and frees its slot, up to `MAX_AT_WORK` requests in all. Health checks do not wait.
Times are in seconds.
"""

from __future__ import annotations

import enum
import hashlib
import io
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AT_WORK = 4
MAX_AT_WORK = 16
OVERDUE_SHARE = 4
PATIENCE = 10.0
STUCK = 1.0
KNOWN = 50_000
UNQUEUED = ("/healthz", "/readyz")
WAITED = "rootnote.waited"  # in the environ: how long the request waited


class Rank(enum.IntEnum):
    """The priority of a request; smaller goes first."""

    ANSWER = 0
    STEP = 1
    PAGE = 2
    SOUND = 3
    ARRIVAL = 4


def rank_of(method: str, path: str, *, known: bool = True) -> Rank | None:
    """The rank of a request; None if it does not wait at all.

    Args:
        known: whether the path is below the address of a known listener.
    """
    if path in UNQUEUED:
        return None
    if method == "POST" and path.startswith("/a/") and known:
        return Rank.ANSWER if path.endswith("/trial") else Rank.STEP
    if path in ("/", "/take"):
        return Rank.ARRIVAL
    return Rank.SOUND if path.startswith(("/audio/", "/static/")) else Rank.PAGE


# Slots that a rank leaves free for those before it, so that an answer rarely has to wait.
RESERVED_SLOTS = {Rank.ANSWER: 0, Rank.STEP: 0, Rank.PAGE: 1, Rank.SOUND: 1, Rank.ARRIVAL: 2}


@dataclass(eq=False)
class _WaitingRequest:
    since: float
    turn: threading.Event = field(default_factory=threading.Event)


class RequestQueue:
    """Admits at most `at_work` requests at once, by rank."""

    def __init__(
        self,
        at_work: int = AT_WORK,
        *,
        patience: float = PATIENCE,
        stuck: float = STUCK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots, self._patience, self._stuck, self._clock = at_work, patience, stuck, clock
        self._lock = threading.Lock()
        self._queues: dict[Rank, deque[_WaitingRequest]] = {rank: deque() for rank in Rank}
        self._working: dict[_WaitingRequest, float] = {}  # since when
        self._since_overdue = 0  # admissions since the last overdue request

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        with self._lock:
            return sum(map(len, self._queues.values()))

    @contextmanager
    def admitted(self, rank: Rank) -> Iterator[float]:
        """Wait for a slot and yield how long that took; the slot is always released, even after an error."""
        waiting = _WaitingRequest(self._clock())
        with self._lock:
            self._queues[rank].append(waiting)
            self._admit()
        try:
            while not waiting.turn.wait(self._stuck):
                with self._lock:
                    self._admit()  # a request may have become stuck
            yield self._clock() - waiting.since
        finally:
            with self._lock:
                if self._working.pop(waiting, None) is None:
                    self._queues[rank].remove(waiting)
                self._admit()

    def _admit(self) -> None:
        now = self._clock()
        while (queue := self._next(now)) is not None:
            chosen = queue.popleft()
            self._working[chosen] = now
            chosen.turn.set()

    def _next(self, now: float) -> deque[_WaitingRequest] | None:
        """The queue whose first request is admitted now; None if none is."""
        queues = {rank: queue for rank, queue in self._queues.items() if queue}
        busy = sum(now - since < self._stuck for since in self._working.values())
        if not queues or busy >= self._slots or len(self._working) >= MAX_AT_WORK:
            return None
        longest = min(queues.values(), key=lambda queue: queue[0].since)
        overdue = now - longest[0].since > self._patience
        if overdue and self._since_overdue >= OVERDUE_SHARE - 1:
            self._since_overdue = 0
            return longest
        fitting = (queue for rank, queue in queues.items() if busy < max(self._slots - RESERVED_SLOTS[rank], 1))
        chosen = next(fitting, None)
        if chosen is not None:
            self._since_overdue = self._since_overdue + 1 if overdue else OVERDUE_SHARE - 1
        return chosen


class KnownListeners:
    """The addresses that listeners have used lately, as hashes; the oldest are forgotten."""

    def __init__(self, limit: int = KNOWN) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._found: OrderedDict[bytes, None] = OrderedDict()

    def add(self, path: str) -> None:
        """Remember the address that a path belongs to."""
        key = self._key(path)
        with self._lock:
            self._found[key] = None
            self._found.move_to_end(key)
            if len(self._found) > self._limit:
                self._found.popitem(last=False)

    def __contains__(self, path: str) -> bool:
        return self._key(path) in self._found

    @staticmethod
    def _key(path: str) -> bytes:
        return hashlib.blake2b(path.split("/")[2].encode("utf-8", "replace"), digest_size=16).digest()


@dataclass(frozen=True)
class QueuedApp:
    """A WSGI application behind a queue; request bodies of up to `max_body` bytes are read before they wait."""

    app: WSGIApplication
    queue: RequestQueue
    max_body: int
    listeners: KnownListeners = field(default_factory=KnownListeners)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        own = path.startswith("/a/")
        rank = rank_of(environ["REQUEST_METHOD"], path, known=own and path in self.listeners)
        if rank is None:
            return self.app(environ, start_response)

        def start(status: str, *rest: Any) -> Any:
            if own and status < "400":
                self.listeners.add(path)
            return start_response(status, *rest)

        _read_ahead(environ, self.max_body)
        with self.queue.admitted(rank) as environ[WAITED]:
            return [_whole(self.app(environ, start if own else start_response))]


def _read_ahead(environ: WSGIEnvironment, max_body: int) -> None:
    """Read the body into memory, so that a slow sender holds no slot; one that is too large is refused later."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit() and 0 < int(length) <= max_body:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
    elif not length and environ.get("wsgi.input_terminated"):  # chunked: the web server knows the end
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(max_body + 1))


def _whole(body: Iterable[bytes]) -> bytes:
    try:
        return b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
