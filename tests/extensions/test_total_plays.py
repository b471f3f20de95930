"""The worked example of docs/extending/response-column.md."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from server.db import database
from server.export import responses
from server.public_release.responses import Masks, mask
from study import columns
from study.trial_plan import read_plan
from tests.extensions.total_plays import TOTAL_PLAYS
from tests.server.conftest import Site, clock, database_url, make_site, postgres, site

__all__ = ["clock", "database_url", "make_site", "postgres", "site"]  # fixtures
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_the_column_is_exported_and_published_as_its_entry_says(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(columns.RESPONSE_COLUMNS.built_in, "total_plays", TOTAL_PLAYS)
    site.walker().take_part()
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        plan = read_plan(site.study)
        rows = list(responses.response_rows(session, site.study, plan))
        responses.export(session, site.study, plan, tmp_path)
    with (tmp_path / "responses.csv").open(newline="", encoding="utf-8") as file:
        exported = [int(row["total_plays"]) for row in csv.DictReader(file)]
    assert exported and all(plays >= 3 for plays in exported)
    assert [row["total_plays"] for row in mask(rows, Masks(), 0)] == [min(plays, 15) for plays in exported]
