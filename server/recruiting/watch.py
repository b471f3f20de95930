"""Repeating a synchronisation until the study is complete."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

WAKING_SECONDS = 1.0


def repeat_until_complete(once: Callable[[], bool], every: float, is_woken: Callable[[], bool]) -> bool:
    """Call `once` every `every` seconds, and earlier when woken, until it returns True.

    Returns False if Ctrl-C or SIGTERM stopped it.
    """
    with contextlib.suppress(KeyboardInterrupt), _interrupt_on_sigterm() as stopped:
        while not once():
            if stopped.is_set():  # the interrupt came where nothing can be raised, such as in a finaliser
                return False
            _rest(every, is_woken)
        return True
    return False


def _rest(seconds: float, is_woken: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, WAKING_SECONDS))
        if is_woken():
            return


@contextlib.contextmanager
def _interrupt_on_sigterm() -> Iterator[threading.Event]:
    """Treat SIGTERM like Ctrl-C: service managers send it, and so does a rehearsed launch. The event is set by it."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        stopped.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
