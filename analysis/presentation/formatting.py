"""Numbers as text, the same on every page.

Conventions: a minus sign is "−"; a value that is not known is a dash.
"""

from __future__ import annotations

import math

UNKNOWN = "–"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the right form: "1 listener", "1,200 listeners"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share_percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] in per cent, without the sign."""
    return f"{100 * share:.{digits}f}"


def cosine(value: float) -> str:
    """A cosine with three digits; no negative zero."""
    return f"{round(float(value), 3) + 0.0:.3f}"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, such as 1:02.5."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")


def correlation(value: float | None) -> str:
    """A correlation with two decimals, or a dash."""
    return UNKNOWN if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def three_digits(value: float | None) -> str:
    """Three significant digits, or a dash if there is no finite value."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3g}"


def probability(value: float) -> str:
    """A probability with two decimals; it is never written as 0 or 1."""
    return "> 0.99" if value > 0.995 else "< 0.01" if value < 0.005 else f"{value:.2f}"
