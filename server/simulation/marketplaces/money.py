"""The emulators' money: exact amounts, one entry for every payment from a requester's account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

CENT = Decimal("0.01")
Kind = Literal["reward", "bonus", "screen-out", "fee", "tax"]


@dataclass(frozen=True)
class LedgerLine:
    """A payment from the account: `assignment` is what it was for, `reference` the call's token if it had one."""

    at: datetime
    kind: Kind
    amount: Decimal
    worker: str
    assignment: str
    reference: str = ""


def cents(amount: Decimal) -> Decimal:
    """An amount rounded to the cent, half up."""
    return amount.quantize(CENT, ROUND_HALF_UP)


def total(entries: tuple[LedgerLine, ...], *kinds: Kind) -> Decimal:
    """The sum of the payments of some kinds, or of all."""
    return sum((entry.amount for entry in entries if not kinds or entry.kind in kinds), Decimal("0.00"))
