"""The table of events that the marketplace sent."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models import Base


class WebhookEvent(Base):
    """One event of the marketplace, so that it has an effect once; who and what it was about is not stored.

    `id`: the SHA-256 of the marketplace's id of the event. `handled_at`: when a synchronisation began after it.
    """

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    received_at: Mapped[datetime]
    handled_at: Mapped[datetime | None] = mapped_column(index=True)
