"""The secret key stays in the study folder, and the sides that it draws are balanced over a complete study."""

from __future__ import annotations

import base64
import csv
import errno
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

import rootnote
from server.app import create_app
from server.db import database, key_backup
from server.settings import Settings
from study.preregistration.create import freeze
from tests.analysis.preregistration.test_plan import build
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.small_study import TEST_KEY

LISTENERS, TRIALS = 12, 6


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Site:
    """Twelve places of six trials; no prescreen."""
    study = build(tmp_path / "study", '[prescreen]\nkind = "none"\n', prompts=6, listeners=LISTENERS, trials=TRIALS)
    url = make_url(f"sqlite:///{tmp_path / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    return Site(study, create_app(study, Settings(url, SECRET, requests_per_second=0), clock=clock), clock, str(url))


def command(site: Site, *words: object) -> Result:
    environment = {"ROOTNOTE_DATABASE_URL": site.database_url, "ROOTNOTE_SECRET": SECRET, "LOGNAME": "researcher"}
    done = CliRunner().invoke(rootnote.cli, [str(word) for word in words], env=environment)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_a_complete_study_is_balanced_and_the_key_has_left_nothing_behind(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, key = site.study.folder, TEST_KEY.value
    freeze(site.study, datetime(2026, 3, 1, tzinfo=UTC))
    # A third of the listeners leaves midway; their places go to others.
    for number in range(LISTENERS + LISTENERS // 3):
        walker = site.walker().consent()
        walker.hear("volume")
        walker.go("instructions")
        if number % 4 == 1:
            walker.answer("A").answer("B").post("leave", confirm="yes")
        else:
            walker.listen().finish()
    output = [command(site, *words, folder).output for words in (("server", "status"), ("server", "audit"))]
    command(site, "server", "export", folder, "--out", tmp_path / "export")
    release = ["--out", tmp_path / "release", "--licence", "CC-BY-4.0", "--author", "A", "--unchecked", "--k", "2"]
    release += ["--before-closing", "a test of the secret key"]
    command(site, "server", "anonymize", folder, *release)

    with (tmp_path / "export" / "responses.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["completed"] == "1" and row["kind"] == "scored"]
    assert len(rows) == LISTENERS * TRIALS
    sides = Counter((row["bin_high"], row["bin_low"], row["high_side"]) for row in rows)
    assert sides == dict.fromkeys(sides, LISTENERS * TRIALS // 12) and len(sides) == 12
    assert len(set(Counter(row["listener"] for row in rows if row["high_side"] == "A").values())) > 1

    forms = (key, key.hex().encode(), base64.b64encode(key)[:-2], str(list(key)).encode())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != site.study.key]
    assert {"preregistration.json", "responses.csv", "study.toml", "answers.sqlite3", "schedule.parquet"} <= {
        path.name for path in files
    }
    told = {str(path): path.read_bytes() for path in files} | {"output": "".join(output).encode()}
    told["log"] = caplog.text.encode()
    assert [name for name, data in told.items() if any(form in data for form in forms)] == []
    assert str(TEST_KEY) == "SecretKey()"
    site.app.extensions["rootnote"].engine.dispose()


def test_a_key_that_cannot_be_put_back_is_one_sentence(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(site, "server", "backup", site.study.folder, "--to", tmp_path / "backups")
    site.study.key.unlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(key_backup, "copy_key", refuse)
    copy = next((tmp_path / "backups").glob("*.sqlite3"))
    environment = {"ROOTNOTE_DATABASE_URL": f"sqlite:///{tmp_path / 'restored.sqlite3'}", "ROOTNOTE_SECRET": SECRET}
    done = CliRunner().invoke(rootnote.cli, ["server", "restore", str(copy), str(site.study.folder)], env=environment)
    assert done.exit_code == 1 and "cannot be written (Read-only file system); copy" in str(done.exception)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_server_can_read_what_root_wrote_into_its_folder(tmp_path: Path) -> None:
    study = build(tmp_path / "study", '[prescreen]\nkind = "none"\n', prompts=6, listeners=LISTENERS, trials=TRIALS)
    environment = {"ROOTNOTE_SECRET": SECRET, "LOGNAME": "root", "ROOTNOTE_DATABASE_URL": ""}
    backups = tmp_path / "backups"
    backups.mkdir()
    for folder in (study.folder, backups):
        os.chown(folder, 10001, 10001)

    def root(*words: object) -> None:
        done = CliRunner().invoke(rootnote.cli, ["server", *map(str, words)], env=environment)
        assert done.exit_code == 0, (done.output, done.exception)

    root("migrate", study.folder)
    root("backup", study.folder, "--to", backups)
    copy = next(backups.glob("*.sqlite3"))
    database_file = study.folder / "rootnote.sqlite3"
    assert database_file.stat().st_uid == 10001
    for path in (*study.folder.glob("rootnote.sqlite3*"), study.key):
        path.unlink()
    root("restore", copy, study.folder)
    for path in (database_file, study.key, study.folder / "witness.jsonl", copy, copy.with_suffix(".key")):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (10001, 0o600), path
