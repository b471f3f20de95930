"""A crowd of simulated listeners: several at once, coming until enough have finished or the study is complete.

A listener who fails, leaves or vanishes gives the place to another who comes later; where all places are held, the
crowd waits for the leases of those who vanished to run out.
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
    """Who comes: how many are to finish, how many at once, and for how long to wait for a held place."""

    url: str
    listeners: int
    seed: int
    mind: ResponseModel
    at_once: int = 6
    patience_seconds: float = 60.0


@dataclass(frozen=True)
class RehearsalSummary:
    """What came of a rehearsal; `outcomes` counts listeners, `answered` counts trials."""

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
    """What the threads share, under one lock."""

    listeners: int
    lock: threading.Condition = field(default_factory=threading.Condition)
    next_index: int = 0
    active: int = 0
    finished: int = 0
    stopped: bool = False
    moved_at: float = field(default_factory=time.monotonic)
    error: BaseException | None = None
    walks: list[BotSession] = field(default_factory=list)

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

    def turned_away(self) -> None:
        """A listener found no place: nobody came in, so the index is used again by no one and nothing is counted."""
        with self.lock:
            self.active -= 1

    def done(self, walk: BotSession) -> int:
        """Book a walk; how many have finished."""
        with self.lock:
            self.active -= 1
            self.finished += walk.outcome == "finished"
            self.walks.append(walk)
            self.moved_at = time.monotonic()
            self.lock.notify_all()
            return self.finished

    def stop(self, error: BaseException | None = None) -> None:
        with self.lock:
            self.stopped = True
            self.error = self.error or error
            self.lock.notify_all()


def run_listeners(
    crowd: ListenerMix, memory: StimulusLookup, report: Callable[[int], None] = lambda finished: None
) -> RehearsalSummary:
    """Send listeners until `crowd.listeners` have finished or the study is complete.

    Raises:
        RootnoteError: where the server cannot be reached or the study did not behave.
    """
    state, began = _State(crowd.listeners), time.monotonic()
    threads = [
        threading.Thread(target=_send_some, args=(crowd, memory, state, report), daemon=True)
        for _ in range(min(crowd.at_once, crowd.listeners))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        state.stop()
    _raise_kindly(crowd, state.error)
    return _sum_up(state.walks, time.monotonic() - began)


def _send_some(crowd: ListenerMix, memory: StimulusLookup, state: _State, report: Callable[[int], None]) -> None:
    try:
        while (index := state.admit()) is not None:
            _send_one(crowd, memory, state, index, report)
    except BaseException as error:
        state.stop(error)


def _send_one(
    crowd: ListenerMix, memory: StimulusLookup, state: _State, index: int, report: Callable[[int], None]
) -> None:
    while True:
        walk = SimulatedListener(crowd.url, index, crowd.seed, memory, crowd.mind).take()
        if walk.outcome not in ("full", "complete"):
            report(state.done(walk))
            return
        waited = time.monotonic() - state.moved_at
        if walk.outcome == "complete" or waited > crowd.patience_seconds:
            state.turned_away()
            state.stop()
            return
        if state.stopped:
            state.turned_away()
            return
        time.sleep(RETRY_SECONDS)


def _raise_kindly(crowd: ListenerMix, error: BaseException | None) -> None:
    if error is None:
        return
    if isinstance(error, httpx.HTTPError):
        raise RootnoteError(
            f"the server at {crowd.url} does not answer ({type(error).__name__}); is it running there?"
        ) from error
    if isinstance(error, BotError | LookupError):
        raise RootnoteError(f"the rehearsal found a fault in the web study: {error}.") from error
    raise error


def _sum_up(walks: list[BotSession], seconds: float) -> RehearsalSummary:
    return RehearsalSummary(
        outcomes=dict(Counter(walk.outcome for walk in walks)),
        answered=sum(walk.answered for walk in walks),
        agreed=sum(walk.agreed for walk in walks),
        reloads=sum(walk.reloads for walk in walks),
        double_submits=sum(walk.double_submits for walk in walks),
        seconds=seconds,
    )
