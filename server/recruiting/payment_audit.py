"""The money in the log: what the books show after a command that orders or pays, also where it broke off midway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import func, select

from server.audit import study_control
from server.audit.actor import current_actor
from server.db.models import Payment, Posting
from server.payments.ledger import dollars
from server.recruiting.launch import RecruitingContext


@contextlib.contextmanager
def logged(office: RecruitingContext, what: str, detail: str = "", reason: str = "") -> Iterator[None]:
    """Write into the log what was ordered and paid within, if anything was; who was paid is in the ledger."""
    before = _books(office)
    try:
        yield
    finally:
        number, cents, places = (now - then for now, then in zip(_books(office), before, strict=True))
        if number or places:
            told = [f"{number} payments of {dollars(cents)} with fees"] * bool(number)
            told += [f"{places} places ordered"] * bool(places) + [detail] * bool(detail)
            with office.writing() as session:
                study_control.write_log(
                    session, current_actor(), what, office.clock(), detail="; ".join(told), reason=reason
                )


def _books(office: RecruitingContext) -> tuple[int, int, int]:
    """Payments made, their cents with fees, and places ordered."""
    paid = select(func.count(), func.coalesce(func.sum(Payment.cents + Payment.fee_cents), 0))
    ordered = select(func.coalesce(func.sum(Posting.places), 0))
    with office.reading() as session:
        number, cents = session.execute(paid.where(Payment.state == "paid")).one()
        return int(number), int(cents), int(session.scalar(ordered) or 0)
