"""`rootnote server open --dry-run`, for every recruiter: it shows everything, needs nothing and touches nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import rootnote
from server.simulation.launch import set_recruiter
from tests.server.conftest import SECRET, Site
from tests.server.recruiting.mturk_study import KEY
from tests.server.small_study import make_study

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ALWAYS_MISSING = ["ROOTNOTE_SECRET is not set", "ROOTNOTE_PUBLIC_URL is not set"]
READY = {
    "ROOTNOTE_SECRET": SECRET,
    "ROOTNOTE_PUBLIC_URL": "https://study.example.org",
    "ROOTNOTE_VAULT_KEY": KEY,
    "PROLIFIC_TOKEN": "token",
}
UNFINISHED = "# Consent\n\nRun by [RESEARCHER] at [INSTITUTION].\n"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set, and whoever opens a connection fails."""
    for name in list(os.environ):
        if name.startswith(("ROOTNOTE_", "PROLIFIC_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")

    def refuse(*_: Any) -> None:
        raise AssertionError("a dry run uses no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def preview(folder: Path, *options: str) -> tuple[int, str]:
    run = CliRunner().invoke(rootnote.cli, ["server", "open", str(folder), "--dry-run", *options])
    return run.exit_code, " ".join(f"{run.output} {run.exception or ''}".split())


def state(folder: Path) -> dict[str, bytes]:
    """Every file; SQLite's shared memory holds locks, no data."""
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite3-shm"
    }


@pytest.mark.parametrize(
    ("kind", "toml", "shown", "missing"),
    [
        (
            "link",
            "",
            ["90 x $1.50 = $135.00, paid by you; no fees", "$22.50 an hour, for 4 minutes", "budget no limit"],
            [],
        ),
        (
            "prolific",
            "",
            [
                "90 x ($1.50 + $0.50 fee) = $180.00",
                "rewards $135.00, fees $45.00",
                "the minimum of Prolific is $8.00",
                "60 minutes at most",
                "budget $180.00",
            ],
            ["ROOTNOTE_VAULT_KEY is not set", "PROLIFIC_TOKEN is not set"],
        ),
        (
            "prolific",
            "[pay]\nminutes = 12.0\nbudget = 250\n",
            ["pay $7.50 an hour", "budget $250.00"],
            ["is 7.50 an hour, and Prolific's minimum is 8.00: raise the reward in [pay] of study.toml"],
        ),
        (
            "prolific",
            "[pay]\nscreened_out = 0.30\nwithout_sound = 0.30\n",
            ["at most $189.20 with 23 screen-outs that Prolific pays by itself", "budget $189.20"],
            [],
        ),
        (
            "prolific",
            '[recruiter.prolific]\ncurrency = "GBP"\n[pay]\ncurrency = "GBP"\nreward = 1.17\nscreened_out = 0.15\n'
            "without_sound = 0.15\nbudget = 200\n",
            ["90 x (£1.17 + £0.39 fee) = £140.40", "the minimum of Prolific is £6.00", "budget £200.00"],
            [],
        ),
        (
            "mturk",
            "[pay]\nscreened_out = 1.60\n",
            [
                "AWS closed Mechanical Turk on 2026-09-30; for a new study use Prolific",
                "90 x ($1.50 + $0.30 fee) = $162.00",
                "a single posting of 90 would cost $189.00",
            ],
            ["There are no AWS credentials", "pay.screened_out in study.toml is above pay.reward = $1.50"],
        ),
    ],
)
def test_it_needs_nothing_shows_everything_and_touches_nothing(
    tmp_path: Path, alone: None, kind: str, toml: str, shown: list[str], missing: list[str]
) -> None:
    folder = make_study(tmp_path / "study", listeners=90, trials=1, toml=set_recruiter(toml, kind)).folder
    (folder / "consent.md").write_text(UNFINISHED)
    before = state(tmp_path)
    status, output = preview(folder)
    assert status == 0, output
    placeholders = "consent.md has placeholders to fill in: [RESEARCHER], [INSTITUTION]."
    for text in ["90 places", *shown, *missing, *ALWAYS_MISSING, placeholders, "Nothing was written"]:
        assert text in output
    assert state(tmp_path) == before


def test_what_is_ready_is_not_listed_as_missing(tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study(tmp_path / "study", toml=set_recruiter("", "prolific")).folder
    for name, value in READY.items():
        monkeypatch.setenv(name, value)
    status, output = preview(folder, "--budget", "12.50")
    assert (status, "must be done" in output) == (0, False), output
    assert "budget $12.50" in output
    monkeypatch.setenv("ROOTNOTE_TRUSTED_PROXIES", "many")
    (folder / "study.toml").write_text((folder / "study.toml").read_text().replace("researcher@example.org", ""))
    status, output = preview(folder)
    assert status == 0
    assert "2 things must be done" in output
    assert "ROOTNOTE_TRUSTED_PROXIES is 'many', not a whole number" in output
    assert "study.contact in study.toml is empty" in output


@on_sqlite
def test_a_launch_that_began_is_read_and_left_alone(
    make_site: Callable[..., Site], alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = make_site(listeners=2, trials=1)
    folder = site.study.folder
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    before = state(tmp_path)
    assert "Launched on" not in preview(folder)[1]
    assert site.query("SELECT count(*) FROM launch") == [(0,)]
    opened = CliRunner().invoke(rootnote.cli, ["server", "open", str(folder), "--budget", "5"])
    assert opened.exit_code == 0, opened.output
    assert state(tmp_path) != before
    before = state(tmp_path)
    assert "0 places ordered, 0 filled, budget $5.00." in preview(folder)[1]
    assert state(tmp_path) == before


def test_only_a_study_that_cannot_be_read_is_an_error(tmp_path: Path, alone: None) -> None:
    folder = make_study(tmp_path / "study").folder
    (folder / "study.toml").write_text("[study]\nname = ")
    assert preview(folder)[0] == 1
    assert preview(tmp_path / "nothing")[0] != 0


@on_sqlite
def test_nobody_is_invited_to_unfinished_texts_and_terms_are_fixed_by_consent(
    make_site: Callable[..., Site], alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(listeners=2, trials=1, toml='[prescreen]\nkind = "none"\n')
    folder = site.study.folder
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)

    def open_(*options: str) -> tuple[int, str]:
        run = CliRunner().invoke(rootnote.cli, ["server", "open", str(folder), *options])
        return run.exit_code, f"{run.output}{run.exception or ''}"

    consent = (folder / "consent.md").read_text()
    (folder / "consent.md").write_text(UNFINISHED)
    status, output = open_()
    assert (status, "consent.md has placeholders" in output) == (1, True)
    assert site.query("SELECT count(*) FROM launch") == [(0,)]
    (folder / "consent.md").write_text(consent)
    assert "a plain link has no drafts; leave out --draft" in open_("--draft")[1]
    assert open_()[0] == 0
    toml = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(toml + "[pay]\nreward = 2.00\n")
    assert open_()[0] == 0, "nobody was promised anything yet"
    site.walker().consent()
    (folder / "study.toml").write_text(toml)
    assert "pay.reward in study.toml was changed after the launch" in open_()[1]


def test_study_check_warns_of_pay_below_the_marketplaces_minimum(tmp_path: Path, alone: None) -> None:
    for reward, warned in (("1.59", True), ("1.60", False)):
        toml = set_recruiter(f"[pay]\nminutes = 12.0\nreward = {reward}\n", "prolific")
        folder = make_study(tmp_path / reward, toml=toml).folder
        output = CliRunner().invoke(rootnote.cli, ["study", "check", str(folder)]).output
        assert ("below the minimum of Prolific, 8.00: pay at least 1.60 for 12 minutes" in output) is warned


def test_the_documentation_shows_what_its_settings_give(
    tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "prolific.md").read_text(encoding="utf-8")
    settings = text.partition("```toml\n")[2].partition("```")[0]
    shown = text.partition("```\nProlific: 90 places")[2].partition("```")[0]
    folder = make_study(
        tmp_path / "study", listeners=90, trials=1, toml="[pay]" + settings.partition("[pay]")[2]
    ).folder
    (folder / "consent.md").write_text(UNFINISHED)
    for name, value in READY.items():
        monkeypatch.setenv(name, value)
    assert preview(folder)[1].strip() == " ".join(f"Prolific: 90 places{shown}".split())
