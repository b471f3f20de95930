"""Data quality: what one run says about attention, as a score with its components; the desk and the report show it.

Each component is a share of what was as expected, or unknown. The score is their mean in per cent: a reason to look at
a run, and never a reason to leave it out or not to pay. The rules in [exclusions], fixed before the study, decide what
counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

UNUSUAL = 0.05  # a side bias that chance makes in fewer than one of twenty runs
ORDER_LIMIT = 256  # starts that the order of plays records


@dataclass(frozen=True)
class QualityCounts:
    """What is counted in one run; each pair is how many there were, and how many of them were as expected."""

    answers: int
    chose_a: int
    catch: tuple[int, int] = (0, 0)
    repeats: tuple[int, int] = (0, 0)
    attention: tuple[int, int] = (0, 0)
    times: tuple[int, int] = (0, 0)
    plays: tuple[int, int] = (0, 0)
    telemetry: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class QualityComponent:
    """One component; `share` is None if the run has nothing to judge it by."""

    name: str
    title: str
    share: float | None
    words: str


# name -> title, and what is as expected
COMPONENTS: dict[str, tuple[str, str]] = {
    "catch": ("Catch trials", "catch trials answered correctly"),
    "repeats": ("Repeats", "repeated trials answered alike"),
    "attention": ("Attention", "attention checks passed"),
    "times": ("Times", "answers whose times agree with the server's clock"),
    "plays": ("Plays", "answers after every clip was heard"),
    "telemetry": ("Telemetry", "answers whose number of plays agrees with their order"),
    "sides": ("Sides", "how compatible the choices of A and B are with chance"),
}


def components(counts: QualityCounts) -> list[QualityComponent]:
    """All components of a run, in the order of COMPONENTS."""
    found = []
    for name, (title, _) in COMPONENTS.items():
        if name == "sides":
            share = side_share(counts.chose_a, counts.answers) if counts.answers else None
            found.append(QualityComponent(name, title, share, f"{counts.chose_a} of {counts.answers} A"))
            continue
        number, expected = getattr(counts, name)
        words = f"{expected} of {number}" if number else "–"
        found.append(QualityComponent(name, title, expected / number if number else None, words))
    return found


def score(found: Sequence[QualityComponent]) -> int | None:
    """The mean of the known components in per cent; None if none is known."""
    known = [one.share for one in found if one.share is not None]
    return round(100 * sum(known) / len(known)) if known else None


@functools.lru_cache(maxsize=4096)
def side_share(chose_a: int, answers: int) -> float:
    """1 if so uneven a choice of sides is not unusual by chance; towards 0 the more unusual it is."""
    uneven = max(chose_a, answers - chose_a)
    as_uneven = sum(math.comb(answers, number) for number in range(uneven, answers + 1))
    one_tail: float = as_uneven / (1 << answers)
    return min(1.0, 2 * one_tail / UNUSUAL)


def order_agrees(plays: Sequence[int], play_order: str) -> bool:
    """Whether X, A and B were started at least as often as they were heard to the end."""
    if len(play_order) >= ORDER_LIMIT:
        return True
    return all(play_order.count(clip) >= number for clip, number in zip("XAB", plays, strict=True))
