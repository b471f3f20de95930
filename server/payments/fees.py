"""Fees at full precision: whole cents, and millionths of a cent beside them.

A fee of a third on 1.40 is 46.666667 cents. Rounding it for every payment would make ninety of them 30 cents dearer
than they are, so fractions are kept, and only what a person reads is rounded, half up.
"""

from __future__ import annotations

from fractions import Fraction

MILLION = 1_000_000


def millionths(cents: Fraction | int) -> int:
    """An amount in millionths of a cent."""
    return int(Fraction(cents) * MILLION + Fraction(1, 2))


def split(fee: Fraction | int) -> tuple[int, int]:
    """A fee as the database stores it: cents, and the rest in millionths of a cent."""
    return divmod(millionths(fee), MILLION)


def joined(cents: int, rest: int) -> Fraction:
    """A fee as the database stores it, in cents."""
    return Fraction(cents * MILLION + rest, MILLION)


def whole_cents(amount: int) -> int:
    """Millionths of a cent as whole cents, half up."""
    return (amount + MILLION // 2) // MILLION


def rounded(amount: Fraction) -> int:
    """Cents, half up."""
    return whole_cents(millionths(amount))


def rounded_up(amount: Fraction) -> int:
    """Cents, up; a thousandth of a cent is no cent."""
    return -(-(millionths(amount) - MILLION // 1000) // MILLION)
