"""What is exported equals what was answered."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import rootnote
from embeddings.provenance import read_table
from server.db import database
from server.export import responses
from server.export.responses import guarded
from server.monitoring.status import count, shown_codes
from study.export_manifest import read_manifest
from study.trial_plan import read_plan
from tests.server.conftest import SECRET, FakeClock, Site

COLUMNS = (
    "study,embedder,assignment,listener,trial,position,kind,prompt,bin_high,bin_low,clip_high,clip_low,"
    "similarity_high,similarity_low,high_side,choice,agreed,response_ms,plays_x,plays_a,plays_b,"
    "passed_prescreen,completed,answered_at,"
    "seconds_x,seconds_a,seconds_b,play_order,focus_losses,sample_rate,output_latency_ms,agent_class,confidence,"
    "verification,elapsed_s,doubts"
)


def export(site: Site, folder: Path) -> list[dict[str, str]]:
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        responses.export(session, site.study, read_plan(site.study), folder)
    with (folder / "responses.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.both_databases
def test_export_equals_what_was_answered(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(listeners=4, trials=3, catch=True)
    walkers = [site.walker() for _ in range(3)]
    for walker, choices in zip(walkers, ("A", "B", "AB"), strict=True):
        walker.begin().listen(choices).finish()
    site.walker().begin().answer("B").go("leave", confirm="yes")
    site.walker().consent().screen(right=False)
    rows = export(site, tmp_path / "out")
    assert (tmp_path / "out" / "responses.csv").read_text().splitlines()[0] == COLUMNS
    assert len(rows) == 10
    assert sorted(row["choice"] for row in rows if row["completed"] == "1") == sorted("AAABBBABA")
    plan = read_plan(site.study)
    for row in rows:
        number, position = (int(part) for part in row["trial"].split("-"))
        trial = plan.lists[number][position - 1]
        assert int(row["position"]) == position
        assert (row["kind"], row["high_side"]) == (trial.kind, trial.high_side)
        assert [int(row[name]) for name in ("prompt", "bin_high", "bin_low", "clip_high", "clip_low")] == [
            trial.prompt, trial.bin_high, trial.bin_low, trial.clip_high, trial.clip_low]  # fmt: skip
        assert float(row["similarity_high"]) == trial.similarity_high
        assert row["agreed"] == str(int(row["choice"] == trial.high_side))
        assert (row["response_ms"], row["plays_x"], row["passed_prescreen"]) == ("4321", "1", "1")
        assert (float(row["elapsed_s"]) >= 4.321, row["doubts"]) == (True, "")
        assert row["answered_at"].startswith("2026-03-01T12:0")
    assert len({row["listener"] for row in rows}) == 4
    assert [row["completed"] for row in rows].count("0") == 1


def test_parquet_and_csv_hold_the_same(site: Site, tmp_path: Path) -> None:
    site.walker().take_part()
    rows = export(site, tmp_path)
    table, provenance = read_table(tmp_path / "responses.parquet", "responses", "rootnote server export")
    assert provenance.made_from == {"schedule": read_plan(site.study).schedule_fingerprint}
    written = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
    assert written == rows
    assert pq.read_schema(tmp_path / "responses.parquet").names == COLUMNS.split(",")


def test_listeners_and_pseudonyms(site: Site, tmp_path: Path) -> None:
    walker = site.walker()
    began = site.clock.now
    walker.consent("?worker=W9").screen().go("instructions").listen()
    site.clock.advance(4)
    taken = (site.clock.now - began).total_seconds()
    walker.go("questions", q_device="Headphones or earbuds", q_remarks='=HYPERLINK("http://evil")')
    site.walker().consent().screen(right=False)
    export(site, tmp_path)
    text = (tmp_path / "listeners.csv").read_text() + (tmp_path / "responses.csv").read_text()
    for identity in ("W9", walker.code, walker.address.removeprefix("/a/")):
        assert identity not in text
    with (tmp_path / "listeners.csv").open(newline="") as file:
        people = list(csv.DictReader(file))
    assert [(row["state"], row["prescreen"], row["attempts"], row["responses"]) for row in people] == [
        ("finished", "passed", "1", "3"),
        ("screened_out", "failed", "2", "0"),
    ]
    assert people[0]["duration_seconds"] == str(taken)
    assert people[0]["q_device"] == "Headphones or earbuds"
    assert people[0]["q_remarks"].startswith("'=")


def test_an_export_names_the_hashes_of_its_files_and_who_arrived(site: Site, tmp_path: Path) -> None:
    site.walker().take_part()
    export(site, tmp_path)
    found = read_manifest(tmp_path)
    assert found is not None
    assert set(found.files) == {"responses.csv", "responses.parquet", "listeners.csv"}
    for name, sha256 in found.files.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256
    assert (found.schedule, found.plan) == (read_plan(site.study).schedule_fingerprint, "")
    assert found.arrived == {"informed": 1}


def test_nobody_yet(site: Site, tmp_path: Path) -> None:
    assert export(site, tmp_path) == []
    assert (tmp_path / "responses.csv").read_text() == COLUMNS + "\n"


@pytest.mark.both_databases
def test_status_counts(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=4)
    done = site.walker().take_part()
    out = site.walker().consent().screen(right=False)
    site.walker().begin().answer()
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        counted = count(session)
        codes = list(shown_codes(session, site.study.config.pay))
    assert counted["places"] == {"all": 4, "free": 2, "held": 1, "filled": 1}
    expected: dict[str, Any] = {"listening": 1, "finished": 1, "screened_out": 1, "expired": 0}
    assert expected.items() <= counted["listeners"].items()
    assert counted["responses"] == 4
    assert sorted(codes) == sorted([(done.code, "finished", 1.5), (out.code, "screened_out", 1.5)])


@pytest.mark.parametrize(
    "sign", ["=", "＝", "\u200b=", "\ufeff=", " =", "|", "+", "－", "@", "\u2212", "\u200b\ufeff＋", "\t"]
)
def test_no_text_is_a_formula(sign: str) -> None:
    assert guarded(f"{sign}1+1") == f"'{sign}1+1"
    assert guarded(f"a{sign}1+1") == f"a{sign}1+1"


def test_an_export_is_its_owners_only(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")
    before = os.umask(0o022)
    try:
        for words in (("migrate", site.study.folder), ("export", site.study.folder, "--out", tmp_path / "out")):
            done = CliRunner().invoke(rootnote.cli, ["server", *map(str, words)])
            assert done.exit_code == 0, done.output
    finally:
        os.umask(before)
    files = [*(tmp_path / "out").iterdir(), *tmp_path.glob("new.sqlite3*")]
    assert len(files) >= 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
