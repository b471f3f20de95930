"""Amounts of money as people read them."""

from __future__ import annotations

SIGNS = {"USD": "$", "GBP": "£", "EUR": "€"}


def sign(currency: str) -> str:
    """The sign in front of an amount; the currency's code where it has none."""
    return SIGNS.get(currency, f"{currency} ")


def amount(value: float, currency: str) -> str:
    """$1,234.50"""
    return f"{sign(currency)}{value:,.2f}"
