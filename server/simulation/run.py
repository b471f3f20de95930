"""Running many simulated listeners, several at a time, until enough have finished or the study is complete.

A listener who fails, leaves or vanishes frees a place for another. If all places are held, the others wait until the
reservations of those who vanished expire.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from embeddings.errors import RootnoteError
from server.simulation.bots import BotError, BotSession, ResponseModel, SimulatedListener, StimulusLookup

RETRY_SECONDS = 0.25


@dataclass(frozen=True)
class ListenerMix:
    """The rehearsal's size: how many must finish, how many at a time, and how long to wait for a place.

    `make_link` makes the first address of a listener, where that is not just the server's /take. `own_server`: the
    rehearsal started the server itself.
    """

    url: str
    listeners: int
    seed: int
    model: ResponseModel
    at_once: int = 6
    patience_seconds: float = 60.0
    make_link: Callable[[], str] | None = None
    own_server: bool = True


@dataclass(frozen=True)
class RehearsalSummary:
    """The result of a rehearsal; `outcomes` counts listeners, `answered` and `agreed` count trials."""

    outcomes: dict[str, int]
    answered: int
    agreed: int
    reloads: int
    double_submits: int
    seconds: float

    @property
    def finished(self) -> int:
        return self.outcomes.get("finished", 0)


@dataclass
class _State:
    """The state that the threads share, under one lock."""

    listeners: int
    lock: threading.Condition = field(default_factory=threading.Condition)
    next_index: int = 0
    active: int = 0
    finished: int = 0
    stopped: bool = False
    changed_at: float = field(default_factory=time.monotonic)
    error: BaseException | None = None
    sessions: list[BotSession] = field(default_factory=list)

    def admit(self) -> int | None:
        """The index of the next listener once one is wanted; None when no more are."""
        with self.lock:
            while not self._is_over():
                if self.finished + self.active < self.listeners:
                    self.active += 1
                    self.next_index += 1
                    return self.next_index - 1
                self.lock.wait(timeout=1.0)
            return None

    def _is_over(self) -> bool:
        return self.stopped or self.error is not None or self.finished >= self.listeners

    def found_no_place(self) -> None:
        """A listener found no place: nothing is counted, and its index is not used again."""
        with self.lock:
            self.active -= 1

    def record(self, session: BotSession) -> int:
        """Record a visit; how many listeners have finished."""
        with self.lock:
            self.active -= 1
            self.finished += session.outcome == "finished"
            self.sessions.append(session)
            self.changed_at = time.monotonic()
            self.lock.notify_all()
            return self.finished

    def stop(self, error: BaseException | None = None) -> None:
        with self.lock:
            self.stopped = True
            self.error = self.error or error
            self.lock.notify_all()


def run_listeners(
    mix: ListenerMix, lookup: StimulusLookup, report: Callable[[int], None] = lambda finished: None
) -> RehearsalSummary:
    """Send listeners until `mix.listeners` have finished or the study is complete.

    Args:
        report: called with the number of listeners who have finished.

    Raises:
        RootnoteError: if the server cannot be reached or the study did not behave.
    """
    state, started = _State(mix.listeners), time.monotonic()
    threads = [
        threading.Thread(target=_send_listeners, args=(mix, lookup, state, report), daemon=True)
        for _ in range(min(mix.at_once, mix.listeners))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        state.stop()
    _raise_error(mix, state.error)
    return _sum_up(state.sessions, time.monotonic() - started)


def _send_listeners(mix: ListenerMix, lookup: StimulusLookup, state: _State, report: Callable[[int], None]) -> None:
    try:
        while (index := state.admit()) is not None:
            _send_one(mix, lookup, state, index, report)
    except BaseException as error:
        state.stop(error)


def _send_one(
    mix: ListenerMix, lookup: StimulusLookup, state: _State, index: int, report: Callable[[int], None]
) -> None:
    while True:
        start = mix.make_link() if mix.make_link else ""
        session = SimulatedListener(mix.url, index, mix.seed, lookup, mix.model, start).take_study()
        if session.outcome not in ("full", "complete"):
            report(state.record(session))
            return
        waited = time.monotonic() - state.changed_at
        if session.outcome == "complete" or waited > mix.patience_seconds:
            state.found_no_place()
            state.stop()
            return
        if state.stopped:
            state.found_no_place()
            return
        time.sleep(RETRY_SECONDS)


def _raise_error(mix: ListenerMix, error: BaseException | None) -> None:
    if error is None:
        return
    if isinstance(error, httpx.HTTPError):
        raise RootnoteError(
            f"the server at {mix.url} does not answer ({type(error).__name__}); is it running there?"
        ) from error
    if isinstance(error, BotError | LookupError):
        hint = (
            ""
            if mix.own_server
            else " Is it a server for real listeners? It refuses simulated ones, who do not wait for the sounds; "
            "start it with `rootnote server run --rehearsal`."
        )
        raise RootnoteError(f"the rehearsal found a fault in the web study: {error}.{hint}") from error
    raise error


def _sum_up(sessions: list[BotSession], seconds: float) -> RehearsalSummary:
    return RehearsalSummary(
        outcomes=dict(Counter(session.outcome for session in sessions)),
        answered=sum(session.answered for session in sessions),
        agreed=sum(session.agreed for session in sessions),
        reloads=sum(session.reloads for session in sessions),
        double_submits=sum(session.double_submits for session in sessions),
        seconds=seconds,
    )
