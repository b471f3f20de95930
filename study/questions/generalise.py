"""Levels of generalisation: the ways in which the answers to a question can be published, from fine to coarse.

A level maps a stored answer to the published value. An empty answer stays empty; an answer that the question does not
offer (it may be left over from an earlier wording, and so be free text) becomes WITHHELD.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

WITHHELD = "withheld"
NOT_ANSWERED = ""
NUMBER = re.compile(r"-?[0-9]{1,15}([.,][0-9]{1,15})?")
MOST_BANDS = 10  # of a number, at its finest
NUMBER_LEVELS = 5


@dataclass(frozen=True)
class Level:
    """One way to publish a column's values: its name, and the function from a value to the published one."""

    label: str
    coarsen: Callable[[str], str]


def offered_level(
    label: str,
    offered: Sequence[str],
    coarsen: Callable[[str], str] = str,
    split: Callable[[str], list[str]] = lambda answer: [answer],
) -> Level:
    """A level for answers out of `offered`; `split` gives the parts of an answer that may hold several."""
    known = frozenset(offered)

    def safe(answer: str) -> str:
        if not answer:
            return NOT_ANSWERED
        return coarsen(answer) if known.issuperset(split(answer)) else WITHHELD

    return Level(label, safe)


def number_levels(given: Sequence[str], whole: bool) -> tuple[Level, ...]:
    """Bands of numbers: about ten over the range of the given answers, then wider ones (1, 2 or 5 times 10^n)."""
    return tuple(_number_level(width, whole) for width in _widths(given, whole))


def span(first: int, last: int) -> str:
    """A range of whole numbers, or the number if there is only one."""
    return f"{first} to {last}" if last > first else str(first)


def _widths(given: Sequence[str], whole: bool) -> list[Decimal]:
    numbers = [number for answer in given if (number := _decimal(answer)) is not None]
    reach = (max(numbers) - min(numbers)) if numbers else Decimal(0)
    exponent = math.floor(math.log10(reach / MOST_BANDS)) if reach else 0
    steps = [Decimal(step).scaleb(power) for power in range(exponent, exponent + 4) for step in (1, 2, 5)]
    wide = [step for step in steps if step * MOST_BANDS >= reach and (step >= 1 or not whole)]
    return wide[:NUMBER_LEVELS]


def _number_level(width: Decimal, whole: bool) -> Level:
    """Numbers in bands that begin at multiples of `width`."""

    def coarsen(answer: str) -> str:
        number = _decimal(answer)
        if number is None:
            return WITHHELD if answer else NOT_ANSWERED
        first = (number / width).to_integral_value("ROUND_FLOOR") * width
        if whole:
            return span(int(first), int(first + width) - 1)
        return f"{_plain(first)} to below {_plain(first + width)}"

    return Level(f"bands of {_plain(width)}", coarsen)


def _decimal(answer: str) -> Decimal | None:
    return Decimal(answer) if NUMBER.fullmatch(answer) and "," not in answer else None


def _plain(number: Decimal) -> str:
    return f"{number.normalize() + 0:f}"
