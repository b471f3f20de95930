"""Payments in the audit log: what a command ordered and paid, even if it stopped midway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import func, select

from embeddings.wording import counted
from server.audit import study_control
from server.audit.actor import current_actor
from server.db.enums import PaymentState
from server.db.models import Payment, Posting
from server.payments import ledger
from server.payments.formatting import as_money
from server.recruiting.context import RecruitingContext


@contextlib.contextmanager
def logged(context: RecruitingContext, what: str, detail: str = "", reason: str = "") -> Iterator[None]:
    """Log what is ordered and paid within this block, if anything is; the ledger has who was paid."""
    before = _totals(context)
    try:
        yield
    finally:
        number, cents, places = (now - then for now, then in zip(_totals(context), before, strict=True))
        if number or places:
            parts = [f"{counted(number, 'payment')} of {as_money(cents)} with fees"] * bool(number)
            parts += [f"{counted(places, 'place')} ordered"] * bool(places) + [detail] * bool(detail)
            with context.writing() as session:
                study_control.write_log(
                    session, current_actor(), what, context.clock(), detail="; ".join(parts), reason=reason
                )


def _totals(context: RecruitingContext) -> tuple[int, int, int]:
    """Payments made, their cents with fees, and places ordered."""
    paid = select(func.count()).where(Payment.state == PaymentState.PAID)
    ordered = select(func.coalesce(func.sum(Posting.places), 0))
    with context.reading() as session:
        return int(session.scalar(paid) or 0), ledger.paid(session), int(session.scalar(ordered) or 0)
