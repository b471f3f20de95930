"""A study on the local Prolific, and its commands as a researcher types them, with the rehearsal's database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

import rootnote
from embeddings.errors import RootnoteError
from server.simulation.fake_prolific import FakeProlific
from tests.server.conftest import SECRET
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN
from tests.server.recruiting.prolific_study import PROLIFIC
from tests.server.small_study import make_study


@dataclass
class Launched:
    """A study on the local Prolific, with the environment of its commands."""

    folder: Path
    market: FakeProlific
    environment: dict[str, str]

    def type(self, *words: str, rehearsal: bool = True) -> str:
        """Run a command of `rootnote server`; returns its output, or raises its error."""
        name, *options = words
        arguments = ["server", name, str(self.folder), *["--rehearsal"] * rehearsal, *options]
        run = CliRunner().invoke(rootnote.cli, arguments, env=self.environment)
        if isinstance(run.exception, RootnoteError):
            raise run.exception
        assert run.exit_code == 0, run.output
        return run.output

    def query(self, sql: str) -> list[Any]:
        engine = create_engine(self.environment["ROOTNOTE_REHEARSAL_DATABASE_URL"])
        with engine.connect() as connection:
            found = list(connection.execute(text(sql)))
        engine.dispose()
        return found

    def calls(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.market.calls)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    study = make_study(tmp_path / "study", listeners=1, trials=1, toml=PROLIFIC + NO_PRESCREEN)
    with FakeProlific("1000.00") as market:
        environment = {
            "ROOTNOTE_SECRET": SECRET,
            "ROOTNOTE_VAULT_KEY": KEY,
            "ROOTNOTE_MARKET_URL": market.url,
            "ROOTNOTE_REHEARSAL_DATABASE_URL": f"sqlite:///{tmp_path / 'rehearsal.sqlite3'}",
        }
        yield Launched(study.folder, market, environment)
