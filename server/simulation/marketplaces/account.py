"""The requester's account at a local marketplace: its balance, and all payments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from server.simulation.marketplaces.money import Kind, LedgerLine


class RefusedError(Exception):
    """A request that a local marketplace refuses."""


class Account:
    """The base of a local marketplace's state: the deposit, the amount spent, and the amount reserved."""

    def __init__(
        self,
        deposit: Decimal,
        now: Callable[[], datetime],
        new_id: Callable[[str], str],
        pay: Callable[[LedgerLine], None],
    ) -> None:
        self.deposit, self.now, self.new_id, self._pay_out = deposit, now, new_id, pay
        self.spent = Decimal("0.00")
        self.emit: Callable[[str, dict[str, Any]], None] = lambda event, body: None

    @property
    def on_hold(self) -> Decimal:
        raise NotImplementedError

    @property
    def available(self) -> Decimal:
        return self.deposit - self.spent - self.on_hold

    def require(self, amount: Decimal) -> None:
        """Refuse an amount that the account does not have."""
        if amount > self.available:
            raise self.insufficient(amount)

    def insufficient(self, amount: Decimal) -> Exception:
        """The marketplace's refusal of an amount."""
        raise NotImplementedError

    def pay_out(self, worker: str, assignment: str, lines: dict[Kind, Decimal], reference: str = "") -> None:
        """Pay a worker: one line of the ledger for the payment, its fee and its tax."""
        at = self.now()
        for kind, amount in lines.items():
            self.spent += amount
            self._pay_out(LedgerLine(at, kind, amount, worker, assignment, reference))

    def tick(self) -> None:
        """Process everything that is due."""
        raise NotImplementedError
