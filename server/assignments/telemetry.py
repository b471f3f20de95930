"""Telemetry: what a browser tells beside an answer to a trial, and whether it goes together.

Conventions: `seconds_x`, `seconds_a` and `seconds_b` are seconds of a clip that were rendered, in whole and in parts;
`play_order` has a letter for every time a clip was begun (XABA); `focus_losses` counts how often the page was left or
hidden; `output_latency_ms` is the browser's own estimate. What a browser does not tell is None, and so is what is no
possible value; only what the rule of hearing rests on is refused where it is damaged. The browser itself is known as
a family and a size ("firefox-desktop"), never by its description.
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
# In this order: most browsers also name those that they descend from.
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
    """What came with one answer, by the names of the columns of `responses`."""

    seconds_x: float | None = None
    seconds_a: float | None = None
    seconds_b: float | None = None
    play_order: str | None = None
    focus_losses: int | None = None
    sample_rate: int | None = None
    output_latency_ms: float | None = None
    agent_class: str | None = None


TELEMETRY = tuple(field.name for field in fields(Telemetry))


def read_telemetry(form: Mapping[str, str], agent: str) -> Telemetry:
    """Read the fields of a form and the browser's description.

    Raises:
        ValueError: where the seconds heard of a clip are no such number.
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
        agent_class=agent_class(agent),
    )


def _seconds(raw: str | None) -> float | None:
    seconds = _number(raw, 0, MAX_SECONDS)
    if seconds is None and raw:
        raise ValueError("seconds heard that are no number of seconds")
    return seconds


def _number(raw: str | None, least: float, most: float) -> float | None:
    """A plain decimal number within bounds, else None."""
    if not raw or len(raw) > 24 or not raw.isascii():
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) and least <= number <= most else None


def agent_class(agent: str) -> str:
    """The family of a browser and whether it is a mobile one, as "safari-mobile"; "other-desktop" where unknown."""
    family = next((name for name, pattern in FAMILIES if pattern.search(agent)), "other")
    return f"{family}-{'mobile' if MOBILE.search(agent) else 'desktop'}"


def is_plausible(plays: Sequence[int], response_ms: int, told: Telemetry, clip_seconds: float) -> bool:
    """Whether clips of `clip_seconds` can have been heard to their end so often (X, A, B), each at least once.

    One clip sounds at a time, so n hearings take n times its length. Seconds that are not known are not held against
    a listener; nor is a tenth of the time, because browsers' clocks are coarse.
    """
    least, taken = TOLERANCE * clip_seconds, response_ms / 1000
    seconds = (told.seconds_x, told.seconds_a, told.seconds_b)
    if min(plays) < 1 or taken < sum(plays) * least:
        return False
    if any(known is not None and known < count * least for count, known in zip(plays, seconds, strict=True)):
        return False
    return TOLERANCE * sum(known or 0.0 for known in seconds) <= taken
