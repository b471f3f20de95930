"""Amounts and numbers as people read them."""

from __future__ import annotations

NO_LIMIT = 10**9  # cents; recorded when no budget was set


def dollars(amount: int) -> str:
    """$1,234.50"""
    return f"${amount // 100:,}.{amount % 100:02d}"


def budget(amount: int) -> str:
    """A launch's budget; "no limit" if none was set."""
    return "no limit" if amount >= NO_LIMIT else dollars(amount)
