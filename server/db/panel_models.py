"""The model of calls to a panel's server (server.recruiting.callbacks)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models import Base


class PanelCallback(Base):
    """The call that tells a panel's server that a listener finished: written before the call, at most one each."""

    __tablename__ = "callbacks"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"), unique=True)
    state: Mapped[str] = mapped_column(String(16))  # a CallbackState
    attempts: Mapped[int]
    answer: Mapped[str] = mapped_column(String(64))
    called_at: Mapped[datetime]
    next_at: Mapped[datetime | None]
