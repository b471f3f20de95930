"""The gate: answers first.

A processor does one thing at a time, so of many requests at once most wait, somewhere. Here they wait in order of what
a listener would lose: an answer goes before every other step, a step before pages, pages before sounds and files, and
all of these before whoever is still at the door; of one rank, whoever came first. At most so many are at work at once
in a process, a place or two kept free for those of higher rank, and each that waits costs a thread that sleeps. Within
the gate a request is worked out to its last byte: what goes to a slow line, or comes from one, goes and comes outside.

Two bounds keep the order from doing harm. Of those who have waited longer than `patience` one is let in at every
`SHARE`th opening at least, whatever comes meanwhile. And whoever is at work for longer than `stuck` is waiting for
something else (a bucket, a lock, a database that is gone) and makes room for another, up to `MOST` altogether.
Health checks do not pass here. Times are seconds.
"""

from __future__ import annotations

import enum
import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AT_WORK = 4
MOST = 16
SHARE = 4
PATIENCE = 10.0
STUCK = 1.0
UNHELD = ("/healthz", "/readyz")
WAITED = "rootnote.waited"  # in the environ: how long the request has waited here


class Rank(enum.IntEnum):
    """Who goes before whom."""

    ANSWER = 0
    STEP = 1
    PAGE = 2
    SOUND = 3
    DOOR = 4


def rank_of(method: str, path: str) -> Rank | None:
    """The rank of a request; None where it is not held at all."""
    if path in UNHELD:
        return None
    if method == "POST" and path.startswith("/a/"):
        return Rank.ANSWER if path.endswith("/trial") else Rank.STEP
    if path in ("/", "/take"):
        return Rank.DOOR
    return Rank.SOUND if path.startswith(("/audio/", "/static/")) else Rank.PAGE


# Places that a rank leaves to those before it, so that an answer seldom finds the gate full.
KEPT = {Rank.ANSWER: 0, Rank.STEP: 0, Rank.PAGE: 1, Rank.SOUND: 1, Rank.DOOR: 2}


@dataclass(eq=False)
class _Waiting:
    since: float
    turn: threading.Event = field(default_factory=threading.Event)


class RequestQueue:
    """Lets at most `at_work` in at once, by rank."""

    def __init__(
        self,
        at_work: int = AT_WORK,
        *,
        patience: float = PATIENCE,
        stuck: float = STUCK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._room, self._patience, self._stuck, self._clock = at_work, patience, stuck, clock
        self._lock = threading.Lock()
        self._queues: dict[Rank, deque[_Waiting]] = {rank: deque() for rank in Rank}
        self._working: dict[_Waiting, float] = {}  # since when
        self._in_order = 0  # openings since one was last let in for having waited long

    @property
    def waiting(self) -> int:
        """How many wait now."""
        with self._lock:
            return sum(map(len, self._queues.values()))

    @contextmanager
    def admitted(self, rank: Rank) -> Iterator[float]:
        """Wait until it is this one's turn; how long that took. The place is given back whatever happens within."""
        came = _Waiting(self._clock())
        with self._lock:
            self._queues[rank].append(came)
            self._let_in()
        try:
            while not came.turn.wait(self._stuck):
                with self._lock:
                    self._let_in()  # somebody may have come to be stuck
            yield self._clock() - came.since
        finally:
            with self._lock:
                if self._working.pop(came, None) is None:
                    self._queues[rank].remove(came)
                self._let_in()

    def _let_in(self) -> None:
        now = self._clock()
        while (queue := self._next(now)) is not None:
            chosen = queue.popleft()
            self._working[chosen] = now
            chosen.turn.set()

    def _next(self, now: float) -> deque[_Waiting] | None:
        """The queue whose first is let in now; None where nobody is."""
        queues = {rank: queue for rank, queue in self._queues.items() if queue}
        busy = sum(now - since < self._stuck for since in self._working.values())
        if not queues or busy >= self._room or len(self._working) >= MOST:
            return None
        longest = min(queues.values(), key=lambda queue: queue[0].since)
        overdue = now - longest[0].since > self._patience
        if overdue and self._in_order >= SHARE - 1:
            self._in_order = 0
            return longest
        fitting = (queue for rank, queue in queues.items() if busy < max(self._room - KEPT[rank], 1))
        chosen = next(fitting, None)
        if chosen is not None:
            self._in_order = self._in_order + 1 if overdue else SHARE - 1
        return chosen


@dataclass(frozen=True)
class QueuedApp:
    """A WSGI application behind a gate; bodies of up to `most` bytes are read before it."""

    app: WSGIApplication
    gate: RequestQueue
    most: int

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        rank = rank_of(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        if rank is None:
            return self.app(environ, start_response)
        _read_ahead(environ, self.most)
        with self.gate.admitted(rank) as environ[WAITED]:
            return [_whole(self.app(environ, start_response))]


def _read_ahead(environ: WSGIEnvironment, most: int) -> None:
    """Take what is sent into memory, so that nobody who sends slowly holds a place; too much is left for a refusal."""
    told = environ.get("CONTENT_LENGTH") or ""
    if told.isascii() and told.isdigit() and 0 < int(told) <= most:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(told)))
    elif not told and environ.get("wsgi.input_terminated"):  # in chunks, of which the web server knows the end
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(most + 1))


def _whole(body: Iterable[bytes]) -> bytes:
    try:
        return b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
