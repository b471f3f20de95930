"""Faults of the local marketplaces: which calls go wrong, and how.

A fault affects the n-th call of an operation, or any call according to a seeded plan:

- ``throttle``: refused for coming too fast; ``fail``: 500, nothing done;
- ``fail_after``: 500 although the work was done;
- ``timeout_before``, ``timeout_after``: the connection is held for `hang_seconds`, then cut with no reply, before or
  after the work;
- ``twice``: the request arrives twice, as a proxy may send it again; the client sees the first reply;
- any other word is a refusal by that code, such as ``UnrecognizedClientException``.
"""

from __future__ import annotations

import numpy as np

KNOWN_FAULTS = ("throttle", "fail", "fail_after", "timeout_before", "timeout_after", "twice")


class Faults:
    """Which calls go wrong, and how."""

    def __init__(self) -> None:
        self._planned: list[tuple[str, int, str]] = []
        self._rng: np.random.Generator | None = None
        self._rate = 0.0
        self._hows: tuple[str, ...] = KNOWN_FAULTS
        self.always = ""

    def plan(self, operation: str, nth: int, how: str) -> None:
        self._planned.append((operation, nth, how))

    def at_random(self, seed: int, rate: float, hows: tuple[str, ...]) -> None:
        self._rng, self._rate, self._hows = np.random.default_rng(seed), rate, hows

    def next(self, operation: str) -> str:
        """How this call goes wrong, or ""; counts it for what was planned."""
        fault, waiting = "", []
        for name, nth, how in self._planned:
            counted = nth - (name in (operation, "*"))
            if counted == 0 and not fault and counted < nth:
                fault = how
            else:
                waiting.append((name, max(counted, 1), how))
        self._planned = waiting
        if not fault and self._rng is not None and self._rng.random() < self._rate:
            fault = str(self._rng.choice(self._hows))
        return fault or self.always
