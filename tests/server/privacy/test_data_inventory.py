"""The data inventory is complete, and follows the definitions that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from server.db.enums import PaymentKind
from server.db.models import Base
from server.privacy.data_inventory import Identifiability, Retention, retention_period
from server.privacy.storage_locations import storage_locations
from server.privacy.table_inventory import TABLES
from study.config import StudyConfig
from tests.server.small_study import make_study


def test_every_table_and_column_is_described_and_no_other() -> None:
    described = {f"{name}.{column}" for name, table in TABLES.items() for column in table.columns}
    real = {f"{table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.columns}
    assert real - described == set(), "describe these in server/privacy/table_inventory.py"
    assert described - real == set(), "these no longer exist: remove them from server/privacy/table_inventory.py"


def test_every_description_is_complete(tmp_path: Path) -> None:
    config = make_study(tmp_path).config
    for name, table in TABLES.items():
        assert table.content and table.readers and table.retention in get_args(Retention), name
        for column, about in table.columns.items():
            assert about.content and about.identifiability.description, f"{name}.{column}"
    assert all(retention_period(retention, config) for retention in get_args(Retention))


def test_only_the_vault_and_free_text_identify_listeners() -> None:
    personal = {
        (name, column)
        for name, table in TABLES.items()
        if table.subject == "listeners"
        for column, one in table.columns.items()
        if one.identifiability is Identifiability.PERSONAL
    }
    assert personal == {("vault", "sealed"), ("answers", "value")}


def test_every_kind_of_payment_is_named() -> None:
    assert len(PaymentKind) >= 6
    assert all(kind.replace("_", " ") in TABLES["payments"].columns["kind"].content for kind in PaymentKind)


@pytest.mark.parametrize("kind, name", [("mturk", "Mechanical Turk"), ("prolific", "Prolific"), ("link", None)])
def test_the_marketplace_is_a_storage_location(kind: str, name: str | None) -> None:
    config = StudyConfig.model_validate(
        {"study": {"name": "A"}, "corpus": {"audio": "music"}, "recruiter": {"kind": kind}}
    )
    found = [location.name for location in storage_locations(config)]
    assert found[7:] == (["The address that a listener opens", name] if name else [])
