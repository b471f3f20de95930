"""The doctor finds a sound deployment sound, and every fault that is put into one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, select, text

import rootnote
from server.app import create_app
from server.audit import study_control
from server.db import database
from server.db.models import Listener
from server.doctor.check import DoctorContext
from server.doctor.database import _is_far
from server.doctor.run import CHECKS, run_checks
from server.identity.arrival import Arrival
from server.identity.vault import Vault, new_key, remember
from server.settings import Settings, read_settings
from study.config import Study, load_study
from study.stimuli.storage import publish
from tests.deploy.conftest import Roles
from tests.deploy.https import make_certificate, serving
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.small_study import make_study, write_stimuli
from tests.study.stimuli.bucket import BUCKET, Bucket, keep_in_bucket, serving_bucket

TEXTS = dict.fromkeys(("consent.md", "instructions.md", "debrief.md"), "# Complete\n")


def finished(study: Study) -> Study:
    """The study with every text written."""
    for name, words in TEXTS.items():
        (study.folder / name).write_text(words)
    return study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return finished(make_study(tmp_path / "study", listeners=2, trials=3))


def found(study: Study, check: str, **environment: str) -> dict[str, str]:
    """What one check finds: text -> state, mends included."""
    environment = {"ROOTNOTE_SECRET": SECRET} | environment
    case = DoctorContext(study, read_settings(study, environment, secret=False), environment)
    skip = set(CHECKS) - {check}
    return {f"{finding.text} {finding.mend}": finding.state for _, finding in run_checks(case, skip)}


def wrong(findings: dict[str, str], *words: str) -> bool:
    """Whether something wrong was found that has these words."""
    return any(state == "wrong" and all(word in text for word in words) for text, state in findings.items())


# ------------------------------------------------------------------ a sound deployment


def test_a_sound_deployment(study: Study, roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL with two roles, https, a backup: the command says so, and exits 0; without the backup, 1."""
    owner, app_role = roles.prepare("doctor_of_tests")
    engine = database.connect(owner)
    database.migrate(engine)
    engine.dispose()
    certificate = make_certificate(tmp_path, 60)
    settings = Settings(app_role, SECRET, public_url="https://localhost", trusted_proxies=1)
    app = create_app(study, settings)
    add_researcher(Site(study, app, FakeClock(), ""), "anna")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", app_role.render_as_string(hide_password=False))
    monkeypatch.setenv("ROOTNOTE_TRUSTED_PROXIES", "1")
    monkeypatch.setenv("ROOTNOTE_BACKUPS", str(tmp_path / "backups"))
    with serving(app, certificate) as url:
        monkeypatch.setenv("ROOTNOTE_PUBLIC_URL", url)
        sick = CliRunner().invoke(rootnote.cli, ["server", "doctor", str(study.folder)])
        assert sick.exit_code == 1
        assert "backups   " in sick.output
        assert "1 to mend before listeners come." in sick.output
        made = CliRunner().invoke(rootnote.cli, ["server", "backup", str(study.folder)])
        assert made.exit_code == 0, made.output
        done = CliRunner().invoke(rootnote.cli, ["server", "doctor", str(study.folder), "--json"])
    app.extensions["rootnote"].engine.dispose()
    told = json.loads(done.output)
    assert (done.exit_code, told["fit"]) == (0, True), done.output
    assert {one["check"] for one in told["findings"]} == set(CHECKS)
    good = " ".join(one["text"] for one in told["findings"] if one["state"] == "ok")
    for words in (
        "is ready",
        "headers arrive",
        "certificate is good for",
        "neither drop, alter",
        "newest",
        "stimuli are as",
    ):
        assert words in good
    assert SECRET not in done.output
    assert "app's" not in done.output


# ------------------------------------------------------------------ faults


def test_secrets(study: Study) -> None:
    assert found(study, "secrets") == {f"ROOTNOTE_SECRET has {len(SECRET)} characters. ": "ok"}
    assert wrong(found(study, "secrets", ROOTNOTE_SECRET=""), "ROOTNOTE_SECRET is not set")
    assert wrong(found(study, "secrets", ROOTNOTE_SECRET="abc" * 20), "can be guessed")
    assert "look" in found(study, "secrets", ROOTNOTE_DESK_PASSWORD="a password").values()


@pytest.mark.both_databases
def test_rights_and_the_log(site: Site, tmp_path: Path) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    walker = site.walker().consent("?worker=ann")
    walker.go("withdraw", confirm="yes")
    assert any("(1 erasures)" in text for text in found(site.study, "rights", **url))
    assert set(found(site.study, "log", **url).values()) == {"ok"}
    journal = tmp_path / "journal"
    journal.write_text("nonsense\nnonsense\n")
    assert wrong(found(site.study, "rights", **url, ROOTNOTE_ERASURES=str(journal)), "Line 1 of the journal")
    engine = site.app.extensions["rootnote"].engine
    with database.writing(engine) as session, session.begin():
        study_control.close(session, "anna", "everybody was heard", datetime.now(UTC) - timedelta(days=31))
    assert wrong(found(site.study, "rights", **url), "Who 1 people are was due", "rootnote server purge")
    with database.writing(engine) as session, session.begin():
        session.execute(text("UPDATE log_head SET hash = 'x'"))
    assert wrong(found(site.study, "log", **url), "The log is not as it was written", "audit --verify")


def test_the_study_and_its_stimuli(study: Study) -> None:
    assert "wrong" not in found(study, "study").values()
    (study.folder / "consent.md").write_text("Ask [YOUR NAME].")
    (study.folder / "debrief.md").unlink()
    assert wrong(found(study, "study"), "consent.md", "[YOUR NAME]")
    assert wrong(found(study, "study"), "debrief.md is missing")
    sound = next(study.stimuli.iterdir())
    sound.write_bytes(sound.read_bytes()[:-1])
    assert wrong(found(study, "stimuli"), "spoilt", "rootnote study build")
    toml = study.folder / "study.toml"
    toml.write_text(toml.read_text() + "[bins]\nhalf_width = 0.03\n")
    assert wrong(found(load_study(study.folder), "study"), "stale")


@pytest.mark.both_databases
def test_the_database(site: Site) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    assert set(found(site.study, "database", **url).values()) == {"ok"}
    role = found(site.study, "role", **url)
    if site.database_url.startswith("sqlite"):
        path = Path(str(make_url(site.database_url).database))
        path.chmod(0o644)
        assert wrong(found(site.study, "role", **url), "chmod go=")
        path.chmod(0o600)
        assert set(found(site.study, "role", **url).values()) == {"look"}
    else:
        assert wrong(role, "is a superuser", "may drop and alter tables", "roles.sql")
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE study SET schedule = 'another'"))
    assert wrong(found(site.study, "database", **url), "another schedule")
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert wrong(found(site.study, "database", **url), "rootnote server migrate")


def test_the_desk(site: Site) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    required = url | {"ROOTNOTE_DESK_SECOND_FACTOR": "required"}

    def told(words: str, **environment: str) -> list[str]:
        return [state for text, state in found(site.study, "desk", **environment).items() if words in text]

    assert told("rootnote server user add", **url) == ["look"]
    add_researcher(site, "anna")
    assert told("0 of 1", **url) == ["look"]
    assert told("0 of 1", **required) == ["ok"]
    visit = Visit(site).signed_in("anna")
    visit.enrol()
    assert set(found(site.study, "desk", **url).values()) == {"ok"}
    assert told("does not open 1 of 1", **url, ROOTNOTE_SECRET=SECRET[::-1]) == ["wrong"]
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE researchers SET role = 'monitor'"))
    assert told("no owner", **url) == ["wrong"]
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert told("", **url) == ["unknown"]


def test_identities(site: Site) -> None:
    old, new = new_key(), new_key()
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    assert set(found(site.study, "identities", **url).values()) == {"ok"}
    site.walker().consent()
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        listener = session.scalars(select(Listener)).one()
        remember(session, Vault([old]), listener, Arrival("A1WORKER"), site.clock.now)
    for keys in (old, f"{new},{old}"):
        assert set(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY=keys).values()) == {"ok"}
    assert wrong(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY=new), "1 of 1", "cannot be paid")
    assert wrong(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY="none"), "valid key")


def test_a_database_that_is_not_there_names_no_password(study: Study) -> None:
    away = found(study, "database", ROOTNOTE_DATABASE_URL="postgresql://anna:secret@127.0.0.1:9/study")
    assert wrong(away, "cannot be reached", "127.0.0.1:9")
    assert "secret" not in str(away)


def test_backups(study: Study, tmp_path: Path) -> None:
    assert wrong(found(study, "backups"), "ROOTNOTE_BACKUPS names no folder")
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    assert wrong(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "holds no backup")
    path = folder / "rootnote-20260301T020000Z.sqlite3"
    path.write_bytes(b"something")
    path.chmod(0o600)
    assert set(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)).values()) == {"ok", "look"}
    os.utime(path, (time.time() - 80 * 3600,) * 2)
    assert wrong(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "is 3 days old", "daily")
    os.utime(path)
    path.chmod(0o644)
    assert wrong(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "chmod -R go=")
    assert set(found(study, "backups", ROOTNOTE_BACKUPS="provider").values()) == {"look"}


def test_a_full_disk(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(study.folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10 * 2**20))
    assert wrong(found(study, "disk"), "make room")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(total=10 * 2**40, free=5 * 2**40))
    assert set(found(study, "disk").values()) == {"ok"}


def test_the_clock_is_asked(study: Study) -> None:
    assert set(found(study, "clock").values()) < {"ok", "look", "unknown"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "ROOTNOTE_PUBLIC_URL is not set"),
        ({"ROOTNOTE_PUBLIC_URL": "http://study.example.org"}, "no https"),
        (
            {"ROOTNOTE_PUBLIC_URL": "https://127.0.0.1:9", "ROOTNOTE_TRUSTED_PROXIES": "1"},
            "cannot be reached from here",
        ),
        ({"ROOTNOTE_PUBLIC_URL": "https://127.0.0.1:9"}, "limited as if they were one"),
        ({"ROOTNOTE_PUBLIC_URL": "https://nowhere.invalid"}, "has no address"),
    ],
)
def test_addresses_that_are_none(study: Study, environment: dict[str, str], words: str) -> None:
    assert wrong(found(study, "address", **environment), words)


def test_what_a_proxy_does_to_pages(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header removed, one doubled, a version told, /metrics opened, another server's page, a certificate run out."""
    url = make_url(f"sqlite:///{tmp_path / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    app = create_app(study, Settings(url, SECRET, public_url="https://localhost", trusted_proxies=1))
    spoil: dict[str, Any] = {}

    def proxy(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if name != spoil.get("without")]
            return start(spoil.get("status", status), kept + spoil.get("with", []), *rest)

        return app({**environ, "PATH_INFO": spoil.get(environ["PATH_INFO"], environ["PATH_INFO"])}, begin)

    certificate, soon = make_certificate(tmp_path, 60), make_certificate(tmp_path, 5)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(certificate.read_bytes() + soon.read_bytes())
    with serving(proxy, certificate) as address, serving(proxy, soon) as ending:

        def look(address: str = address, **fault: Any) -> dict[str, str]:
            spoil.clear()
            spoil.update(fault)
            return found(study, "address", ROOTNOTE_PUBLIC_URL=address, ROOTNOTE_TRUSTED_PROXIES="1")

        assert wrong(look(), "certificate verify failed")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert "wrong" not in look().values()
        assert wrong(look(without="Content-Security-Policy"), "Content-Security-Policy at /take", "deploy/Caddyfile")
        assert wrong(look(without="Strict-Transport-Security"), "Strict-Transport-Security")
        assert wrong(look(**{"with": [("X-Frame-Options", "SAMEORIGIN")]}), "X-Frame-Options at /take")
        assert wrong(look(**{"/metrics": "/healthz"}), "/metrics answers")
        assert wrong(look(**{"/readyz": "/take"}), "/readyz answers 200")
        assert any("tells its version" in text for text in look(**{"with": [("Server", "nginx/1.22.1")]}))
        assert wrong(look(ending), "good for 5 days")
    app.extensions["rootnote"].engine.dispose()


# ------------------------------------------------------------------ a bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.mark.slow
def test_a_bucket(study: Study, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    study = finished(keep_in_bucket(study))
    publish(study)
    here = {"ROOTNOTE_PUBLIC_URL": "https://study.example.org"}
    private = found(study, "stimuli", **here)
    assert set(private.values()) == {"ok"}
    assert any("A signed address gives the sound" in text for text in private)
    for key in bucket.written():
        bucket.client.put_object_acl(Bucket=BUCKET, Key=key, ACL="public-read")
    assert wrong(found(study, "stimuli", **here), "to everybody, unsigned")
    for key in bucket.written():
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    assert wrong(found(study, "stimuli", **here), "lacks a stimulus", "rootnote study publish")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert wrong(found(study, "stimuli", **here), "cannot be read", "Could not connect")
    write_stimuli(study)
    assert wrong(found(study, "stimuli", **here), "stale", "rootnote study publish")


@pytest.mark.parametrize(
    ("host", "query", "far"),
    [
        ("1.1.1.1", None, True),
        ("10.1.2.3", None, False),
        ("localhost", None, False),
        (None, "/var/run/postgresql", False),
        (None, "1.1.1.1", True),
        (None, None, False),
    ],
)
def test_where_a_database_must_be_reached_encrypted(host: str | None, query: str | None, far: bool) -> None:
    assert _is_far(host, query) is far
