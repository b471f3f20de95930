"""Watching: SIGTERM stops it, also where its interrupt is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from server.recruiting.watch import repeat_until_complete

MOST = 3  # looks, so that a watch that is not stopped ends too


@pytest.mark.parametrize("is_lost", [True, False])
def test_sigterm_stops_a_watch(is_lost: bool) -> None:
    looks = []

    def look() -> bool:
        looks.append(1)
        # Python drops an exception in a finaliser or a callback of C code; here it is dropped on purpose.
        with contextlib.suppress(KeyboardInterrupt) if is_lost else contextlib.nullcontext():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return len(looks) == MOST

    before = signal.getsignal(signal.SIGTERM)
    assert repeat_until_complete(look, every=0, is_woken=lambda: False) is False
    assert len(looks) == 1
    assert signal.getsignal(signal.SIGTERM) is before
