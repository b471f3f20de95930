"""Amounts as people read them, in the currency of the study that a command works on."""

from __future__ import annotations

from contextvars import ContextVar
from fractions import Fraction

from study.money import sign

NO_LIMIT = 10**9  # cents; recorded when no budget was set

_CURRENCY = ContextVar("currency", default="USD")


def use_currency(currency: str) -> None:
    """Format all amounts of this command in the currency of its study."""
    _CURRENCY.set(currency)


def as_money(cents: int, currency: str = "") -> str:
    """$1,234.50; in the command's currency, if none is given."""
    return f"{sign(currency or _CURRENCY.get())}{cents // 100:,}.{cents % 100:02d}"


def as_exact_money(cents: Fraction) -> str:
    """An amount that may have fractions of a cent: $0.4667."""
    return as_money(int(cents)) if cents.denominator == 1 else f"{sign(_CURRENCY.get())}{float(cents) / 100:.4f}"


def budget(cents: int, currency: str = "") -> str:
    """A launch's budget; "no limit" if none was set."""
    return "no limit" if cents >= NO_LIMIT else as_money(cents, currency)
