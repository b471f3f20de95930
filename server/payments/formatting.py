"""Amounts and numbers as people read them."""

from __future__ import annotations

NO_LIMIT = 10**9  # cents; a budget of this much was never set


def dollars(amount: int) -> str:
    """$1,234.50"""
    return f"${amount // 100:,}.{amount % 100:02d}"


def budget(amount: int) -> str:
    """A launch's budget; "no limit" where none was set."""
    return "no limit" if amount >= NO_LIMIT else dollars(amount)


def plural(number: int, noun: str, nouns: str = "") -> str:
    """1 place, 2 places; `nouns`: an irregular plural."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
