"""Repeating a synchronisation until the study is complete."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator


def repeat_until_complete(once: Callable[[], bool], every: float) -> bool:
    """Call `once` every `every` seconds until it returns True; False if Ctrl-C or SIGTERM stopped it."""
    with contextlib.suppress(KeyboardInterrupt), _interrupt_on_sigterm():
        while not once():
            time.sleep(every)
        return True
    return False


@contextlib.contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: service managers send it, and so does a rehearsed launch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
