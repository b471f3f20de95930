"""The request queue: which request is admitted when, and that nothing blocks it, however fast the machine is."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from server.web.request_queue import MAX_AT_WORK, OVERDUE_SHARE, KnownListeners, QueuedApp, Rank, RequestQueue, rank_of
from study.stimuli.storage import LocalStorage
from study.trial_plan import Stimulus
from tests.server.conftest import Site

LONG = 3600.0
DEADLINE = 120.0
RANKS = {
    ("POST", "/a/token/trial"): Rank.ANSWER,
    ("POST", "/a/token/prescreen"): Rank.STEP,
    ("POST", "/a/token/questions"): Rank.STEP,
    ("POST", "/take"): Rank.ARRIVAL,
    ("GET", "/take"): Rank.ARRIVAL,
    ("GET", "/a/token"): Rank.PAGE,
    ("GET", "/a/token/trial"): Rank.PAGE,
    ("POST", "/desk/sign-in"): Rank.PAGE,
    ("GET", "/metrics"): Rank.PAGE,
    ("GET", "/audio/name"): Rank.SOUND,
    ("GET", "/static/player.js"): Rank.SOUND,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


class Line:
    """Threads that come to a queue one after the other, and the order in which they were let in."""

    def __init__(self, queue: RequestQueue) -> None:
        self.queue, self.order = queue, list[Any]()
        self._threads: list[threading.Thread] = []

    def come(self, rank: Rank, name: Any = None) -> None:
        """Somebody comes, and waits."""
        waiting = self.queue.waiting

        def pass_through() -> None:
            with self.queue.admitted(rank):
                self.order.append(rank if name is None else name)

        self.start(pass_through)
        until(lambda: self.queue.waiting == waiting + 1)

    def start(self, action: Callable[[], object]) -> None:
        self._threads.append(threading.Thread(target=action))
        self._threads[-1].start()

    def passed(self) -> list[Any]:
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        return self.order


@contextmanager
def shut(queue: RequestQueue) -> Iterator[None]:
    """Somebody is at work in a queue of one place."""
    with queue.admitted(Rank.SOUND):
        yield


def test_ranks() -> None:
    assert {request: rank_of(*request) for request in RANKS} == RANKS


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(Rank), max_size=8))
def test_by_rank_and_then_by_arrival(ranks: list[Rank]) -> None:
    queue = RequestQueue(1, stuck=LONG, patience=LONG)
    line, comers = Line(queue), list(enumerate(ranks))
    with shut(queue):
        for comer in comers:
            line.come(comer[1], comer)
    assert line.passed() == sorted(comers, key=lambda comer: comer[1])
    assert queue.waiting == 0


def test_as_many_as_there_is_room_for_are_let_in_at_once() -> None:
    """Of four places pages and sounds take three, and those at the door two."""
    queue = RequestQueue(4, stuck=LONG)
    line = Line(queue)
    with ExitStack() as stack:
        for rank, others in ((Rank.ARRIVAL, 2), (Rank.SOUND, 1), (Rank.ANSWER, 1)):
            for _ in range(others):
                stack.enter_context(queue.admitted(rank))
            line.come(rank)
        assert line.order == []
    assert sorted(line.passed()) == [Rank.ANSWER, Rank.SOUND, Rank.ARRIVAL]


def test_who_has_waited_long_is_let_in_every_few_openings() -> None:
    now = [0.0]
    queue = RequestQueue(1, stuck=LONG, patience=10, clock=lambda: now[0])
    line = Line(queue)
    with shut(queue):
        for _ in range(3):
            line.come(Rank.SOUND)
        now[0] = 11.0
        for _ in range(2 * (OVERDUE_SHARE - 1)):
            line.come(Rank.ANSWER)
    between = [Rank.ANSWER] * (OVERDUE_SHARE - 1)
    assert line.passed() == [Rank.SOUND, *between, Rank.SOUND, *between, Rank.SOUND]


def test_who_is_stuck_makes_room_up_to_a_bound() -> None:
    queue = RequestQueue(1, stuck=0.01)
    with ExitStack() as stack:
        for _ in range(MAX_AT_WORK - 1):
            stack.enter_context(queue.admitted(Rank.PAGE))
        with queue.admitted(Rank.PAGE):
            line = Line(queue)
            line.come(Rank.ANSWER)
            time.sleep(0.05)
            assert line.order == []
        assert line.passed() == [Rank.ANSWER]


def test_a_failure_gives_its_place_back() -> None:
    queue = RequestQueue(1, stuck=LONG)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), queue.admitted(Rank.PAGE):
            raise ZeroDivisionError

    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        def close(self) -> None:
            self.closed += 1

    body = Body()
    gated = QueuedApp(lambda environ, start_response: body, queue, 100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            gated(EnvironBuilder("/take").get_environ(), lambda *_: lambda data: None)
    assert body.closed == 3


def test_somebody_broken_off_while_waiting_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RequestQueue(1, stuck=LONG)

    def break_off(event: threading.Event, seconds: float) -> bool:
        raise KeyboardInterrupt

    with shut(queue):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Event, "wait", break_off)
            with pytest.raises(KeyboardInterrupt), queue.admitted(Rank.PAGE):
                pass
        assert queue.waiting == 0
    with queue.admitted(Rank.PAGE):
        pass


# ------------------------------------------------------------------ through HTTP


@pytest.fixture
def narrow(site: Site) -> Site:
    """A site that works at one request at a time."""
    gated = site.app.wsgi_app
    assert isinstance(gated, QueuedApp)
    site.app.wsgi_app = replace(gated, queue=RequestQueue(1, stuck=LONG, patience=LONG))  # type: ignore[method-assign]
    return site


def gate_of(site: Site) -> RequestQueue:
    assert isinstance(site.app.wsgi_app, QueuedApp)
    return site.app.wsgi_app.queue


@pytest.mark.both_databases
def test_an_answer_overtakes(narrow: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound is under way; another, a page and an answer wait for it."""
    answering, other = narrow.walker().begin().hear_all(), narrow.walker().begin()
    begun, go = threading.Event(), threading.Event()

    def read(storage: LocalStorage, stimulus: Stimulus) -> bytes:
        begun.set()
        assert go.wait(DEADLINE)
        return stimulus.file.read_bytes()

    monkeypatch.setattr(LocalStorage, "read", read)
    caplog.set_level("INFO", "server.web.request_log")
    caplog.clear()
    queue, replies = gate_of(narrow), dict[str, int]()
    line = Line(queue)

    def send(name: str, request: Callable[[], Any]) -> None:
        line.start(lambda: replies.update({name: request().status_code}))

    send("first", lambda: narrow.walker().client.get(other.sound("X")))
    assert begun.wait(DEADLINE)
    waiting = {
        "sound": lambda: narrow.walker().client.get(other.sound("A")),
        "page": lambda: narrow.walker().client.get(other.address),
        "answer": lambda: answering.post("trial", **answering.answer_fields()),
    }
    for number, (name, request) in enumerate(waiting.items(), start=1):
        send(name, request)
        until(lambda number=number: queue.waiting == number)  # type: ignore[misc]
    assert narrow.walker().client.get("/healthz").status_code == 200
    assert narrow.walker().client.get("/readyz").status_code == 200
    go.set()
    line.passed()
    assert replies == {"first": 200, "sound": 200, "page": 200, "answer": 303}
    routes = [getattr(record, "route", "").removeprefix("participant.") for record in caplog.records]
    assert routes == ["audio", "answer_trial", "page", "audio"]
    assert len(narrow.query("SELECT * FROM responses")) == 1


@pytest.mark.both_databases
@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_line_holds_no_place(narrow: Site, chunked: bool) -> None:
    """Neither somebody who sends slowly, nor somebody who takes a sound slowly or never."""
    walker = narrow.walker().begin().hear_all()
    narrow.clock.advance(1)
    reached, go = threading.Event(), threading.Event()

    class Slowly(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reached.set()
            assert go.wait(DEADLINE)
            return super().read(size)

    sent = EnvironBuilder(f"{walker.address}/trial", method="POST", data=walker.answer_fields()).get_environ()
    sent["wsgi.input"] = Slowly(sent["wsgi.input"].read())
    if chunked:
        del sent["CONTENT_LENGTH"]
        sent |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    statuses: list[str] = []

    def start_response(status: str, headers: Any, error: Any = None) -> Any:
        statuses.append(status)

    line = Line(gate_of(narrow))
    line.start(lambda: b"".join(narrow.app(sent, start_response)))
    assert reached.wait(DEADLINE)
    untaken = narrow.app(EnvironBuilder(walker.sound("X")).get_environ(), start_response)
    assert walker.reload().step == "trial"
    go.set()
    line.passed()
    assert statuses == ["200 OK", "303 SEE OTHER"]
    assert sum(map(len, untaken)) > 1000
    assert walker.reload().find(r'data-position="(\d+)"') == "2"


def test_an_invented_address_overtakes_nobody(site: Site) -> None:
    """Only the address of a listener who has been here before counts as one."""
    gated = site.app.wsgi_app
    assert isinstance(gated, QueuedApp)
    ranks: list[Rank] = []

    class Recording(RequestQueue):
        @contextmanager
        def admitted(self, rank: Rank) -> Iterator[float]:
            ranks.append(rank)
            yield 0.0

    site.app.wsgi_app = replace(gated, queue=Recording())  # type: ignore[method-assign]
    for _ in range(2):
        assert site.walker().client.post("/a/anything/trial", data={"position": 1}).status_code == 404
    assert ranks == [Rank.PAGE, Rank.PAGE]
    listener = site.walker().begin().hear_all()
    ranks.clear()
    assert listener.post("trial", **listener.answer_fields()).status_code == 303
    assert ranks == [Rank.ANSWER]


def test_known_listeners_are_forgotten_in_time() -> None:
    known = KnownListeners(2)
    for name in ("a", "b", "a", "c"):
        known.add(f"/a/{name}/trial")
    assert [f"/a/{name}" in known for name in "abc"] == [True, False, True]
