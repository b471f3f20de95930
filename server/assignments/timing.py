"""Timing: what a browser claims about an answer, checked against the server's clock.

The server knows when a trial was due (when the previous answer was saved) and when each of its clips was sent. Only one
clip sounds at a time, so three clips cannot have been heard in less time than they last, and the clip that was sent
last cannot have been heard before. Claims that need more time than there was are impossible by more than TOLERANCE:
they are refused. Closer ones are stored and named in `doubts`. An honest browser has neither, because it measures its
times between two moments that the server sees: it shows a page after the previous answer, and answers before the next.
Conventions: times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from server.assignments.telemetry import TOLERANCE, Telemetry

DRIFT = 0.01  # of two clocks, as a share of the time that they measured
COARSE_S = 0.25  # browsers may round their clock to a tenth of a second
HEARING, RESPONSE = "hearing", "response"  # the doubts


@dataclass(frozen=True)
class ServerTimes:
    """For how long a trial has been due, and each of its clips sent."""

    elapsed: float
    since_sent: tuple[float, ...]


@dataclass(frozen=True)
class Claims:
    """What a browser says of one answer; `plays` count complete plays of X, A and B."""

    plays: tuple[int, int, int]
    response_ms: int
    telemetry: Telemetry


def server_times(now: datetime, due: datetime, sent: Sequence[datetime], simulated: float = 0.0) -> ServerTimes | None:
    """The times until `now`; None if the server's clock was set back in between, so that it has measured nothing.

    Args:
        simulated: seconds that a simulated listener adds.
    """
    if now < max(due, *sent):
        return None
    elapsed = (now - due).total_seconds() + simulated
    # A clip may be sent ahead; it is not heard before its trial is due.
    since = [min(elapsed, (now - moment).total_seconds() + simulated) for moment in sent]
    return ServerTimes(elapsed, tuple(since))


def possible_share(times: ServerTimes, claims: Claims, clip_seconds: float) -> Mapping[str, float]:
    """The share of the time that each claim needs which the server's clock allows; 1 or more is possible."""
    latest_first = sorted(times.since_sent)
    room = min(_share(since, number * clip_seconds) for number, since in enumerate(latest_first, start=1))
    seconds = (claims.telemetry.seconds_x, claims.telemetry.seconds_a, claims.telemetry.seconds_b)
    # A sound may be cut by a few milliseconds and still count as heard: reported seconds are allowed the same drift.
    reported = (1 - DRIFT) * sum(known or 0.0 for known in seconds) - COARSE_S
    heard = max(sum(claims.plays) * clip_seconds, reported)
    shown = (1 - DRIFT) * claims.response_ms / 1000 - COARSE_S
    return {HEARING: min(room, _share(times.elapsed, heard)), RESPONSE: _share(times.elapsed, shown)}


def _share(available: float, needed: float) -> float:
    return available / needed if needed > 0 else 1.0


def is_impossible(shares: Mapping[str, float]) -> bool:
    """Whether a claim cannot be true: the answer is refused."""
    return min(shares.values()) < TOLERANCE


def doubts(shares: Mapping[str, float]) -> str:
    """The names of the claims that the server's clock makes doubtful, separated by spaces."""
    return " ".join(name for name, share in shares.items() if share < 1)
