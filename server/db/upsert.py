"""Upserts: INSERT … ON CONFLICT on SQLite and PostgreSQL, and creating a row exactly once under concurrency."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from server.db.models import Base

Model = TypeVar("Model", bound=Base)


def insert(session: Session, model: type[Base]) -> Any:
    """An INSERT that supports ON CONFLICT, in the dialect of the session's database."""
    return (sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert)(model)


def find_or_add(
    session: Session, model: type[Model], key: dict[str, Any], values: dict[str, Any], *, lock: bool = False
) -> Model:
    """The row with a unique key, created with `values` if there is none; `lock` if it is about to change.

    If two create it at the same time, the second waits for the first and gets the same row.
    """
    query = select(model).filter_by(**key)
    if lock:
        query = query.with_for_update()
    found = session.scalar(query)
    if found is None:
        session.execute(insert(session, model).values(**key, **values).on_conflict_do_nothing(index_elements=[*key]))
        found = session.scalars(query).one()
    return found
