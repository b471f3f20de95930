"""The migrations lead to the models, on both databases, and twice."""

from __future__ import annotations

from alembic import command
from sqlalchemy import make_url

from server import database


def test_migrated_tables_are_the_models(database_url: str) -> None:
    engine = database.connect(make_url(database_url))
    revision = database.migrate(engine)
    with engine.connect() as connection:
        command.check(database._alembic(connection))
    database.recreate(engine)  # a rehearsal empties its database, triggers and all
    assert database.migrate(engine) == revision
    engine.dispose()
