"""Telemetry: what a browser reports with the answer to a trial, and whether it is plausible.

Conventions: `seconds_x`, `seconds_a` and `seconds_b` are the rendered seconds of a clip, complete and partial plays
together; `play_order` has a letter for every time a clip was started (XABA); `focus_losses` counts how often the page
was left or hidden; `output_latency_ms` is the browser's own estimate. A missing or impossible value is None; only
invalid seconds are refused, because they decide whether the clips were heard. Only the browser's family and size are
stored ("firefox-desktop"), never its user agent string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

MAX_SECONDS = 7 * 24 * 3600.0
MAX_FOCUS_LOSSES = 10_000
TOLERANCE = 0.9
PLAY_ORDER = re.compile(r"[XAB]{1,256}")
# In this order, because most browsers also name the browsers they derive from.
FAMILIES = (
    ("edge", re.compile(r"\bEdg(e|A|iOS)?/")),
    ("opera", re.compile(r"\bOPR/|\bOpera\b")),
    ("samsung", re.compile(r"\bSamsungBrowser/")),
    ("firefox", re.compile(r"\b(Firefox|FxiOS)/")),
    ("chrome", re.compile(r"\b(Headless)?Chrom(e|ium)/|\bCriOS/")),
    ("safari", re.compile(r"\bSafari/|\bAppleWebKit/")),
)
MOBILE = re.compile(r"Mobi|Android|iPhone|iPad|Tablet")


@dataclass(frozen=True)
class Telemetry:
    """The telemetry of one answer, named like the columns of `responses`."""

    seconds_x: float | None = None
    seconds_a: float | None = None
    seconds_b: float | None = None
    play_order: str | None = None
    focus_losses: int | None = None
    sample_rate: int | None = None
    output_latency_ms: float | None = None
    agent_class: str | None = None


TELEMETRY = tuple(field.name for field in fields(Telemetry))


def read_telemetry(form: Mapping[str, str], user_agent: str) -> Telemetry:
    """Read the fields of a form and the browser's user agent string.

    Raises:
        ValueError: if the seconds heard of a clip are not a number of seconds.
    """
    order = form.get("play_order", "")
    losses = _number(form.get("focus_losses"), 0, MAX_FOCUS_LOSSES)
    rate = _number(form.get("sample_rate"), 1000, 1_000_000)
    latency = _number(form.get("output_latency_ms"), 0, 60_000)
    return Telemetry(
        seconds_x=_seconds(form.get("seconds_x")),
        seconds_a=_seconds(form.get("seconds_a")),
        seconds_b=_seconds(form.get("seconds_b")),
        play_order=order if PLAY_ORDER.fullmatch(order) else None,
        focus_losses=None if losses is None else round(losses),
        sample_rate=None if rate is None else round(rate),
        output_latency_ms=None if latency is None else round(latency, 1),
        agent_class=agent_class(user_agent),
    )


def _seconds(raw: str | None) -> float | None:
    seconds = _number(raw, 0, MAX_SECONDS)
    if seconds is None and raw:
        raise ValueError("the seconds heard are not a number of seconds")
    return seconds


def _number(raw: str | None, least: float, most: float) -> float | None:
    """A decimal number within bounds, else None."""
    if not raw or len(raw) > 24 or not raw.isascii():
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) and least <= number <= most else None


def agent_class(user_agent: str) -> str:
    """The family and size of a browser, such as "safari-mobile"; "other-desktop" where unknown."""
    family = next((name for name, pattern in FAMILIES if pattern.search(user_agent)), "other")
    return f"{family}-{'mobile' if MOBILE.search(user_agent) else 'desktop'}"


def is_plausible(plays: Sequence[int], response_ms: int, telemetry: Telemetry, clip_seconds: float) -> bool:
    """Whether the clips (X, A, B) can have been heard to the end `plays` times, and each at least once.

    Only one clip sounds at a time, so n plays take n times its length. Unknown seconds are not held against a
    listener, and a tenth of the time may be missing, because browsers' clocks are coarse.
    """
    least, taken = TOLERANCE * clip_seconds, response_ms / 1000
    seconds = (telemetry.seconds_x, telemetry.seconds_a, telemetry.seconds_b)
    if min(plays) < 1 or taken < sum(plays) * least:
        return False
    if any(known is not None and known < count * least for count, known in zip(plays, seconds, strict=True)):
        return False
    return TOLERANCE * sum(known or 0.0 for known in seconds) <= taken
