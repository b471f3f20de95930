"""Numbers, amounts and lists in the packet's sentences."""

from __future__ import annotations

from collections.abc import Sequence

from study.config import StudyConfig
from study.money import amount as shown


def listing(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def minutes(number: float) -> str:
    """4 minutes, 0.5 minutes."""
    return f"{number:.3g} minute{'' if number == 1 else 's'}"


def pay(amount: float, config: StudyConfig) -> str:
    """An amount that a participant is paid, or "nothing"."""
    return money(amount, config) if amount else "nothing"


def money(amount: float, config: StudyConfig) -> str:
    """An amount in the currency that the study pays in."""
    return shown(amount, config.currency)
