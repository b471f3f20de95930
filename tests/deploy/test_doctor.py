"""The doctor finds no error in a sound deployment, and finds every fault introduced into one."""

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
from server.doctor.database import _is_public
from server.doctor.run import CHECKS, run_checks
from server.identity.arrival import Arrival
from server.identity.vault import Vault, new_key, store_identity
from server.settings import Settings, read_settings
from study.config import Study, load_study
from study.secret_key import draw_key
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
    """What one check finds: text and fix -> level."""
    environment = {"ROOTNOTE_SECRET": SECRET} | environment
    deployment = DoctorContext(study, read_settings(study, environment, secret=False), environment)
    skip = set(CHECKS) - {check}
    return {f"{finding.text} {finding.fix}": finding.level for _, finding in run_checks(deployment, skip)}


def error(findings: dict[str, str], *words: str) -> bool:
    """Whether an error was found that has these words."""
    return any(level == "error" and all(word in text for word in words) for text, level in findings.items())


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
    add_researcher(Site(study, app, FakeClock(datetime.now(UTC)), ""), "anna")
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
        assert "1 error to fix" in sick.output
        made = CliRunner().invoke(rootnote.cli, ["server", "backup", str(study.folder)])
        assert made.exit_code == 0, made.output
        done = CliRunner().invoke(rootnote.cli, ["server", "doctor", str(study.folder), "--json"])
    app.extensions["rootnote"].engine.dispose()
    report = json.loads(done.output)
    assert (done.exit_code, report["fit"]) == (0, True), done.output
    assert {one["check"] for one in report["findings"]} == set(CHECKS)
    assert set(report["findings"][0]) == {"check", "level", "text", "fix"}
    good = " ".join(one["text"] for one in report["findings"] if one["level"] == "ok")
    for words in (
        "is ready",
        "headers arrive",
        "certificate is valid for",
        "neither drop, alter",
        "newest",
        "stimuli present",
    ):
        assert words in good
    assert SECRET not in done.output
    assert "app's" not in done.output


# ------------------------------------------------------------------ faults


def test_secrets(study: Study) -> None:
    assert found(study, "secrets") == {f"ROOTNOTE_SECRET has {len(SECRET)} characters. ": "ok"}
    assert error(found(study, "secrets", ROOTNOTE_SECRET=""), "ROOTNOTE_SECRET is not set")
    assert error(found(study, "secrets", ROOTNOTE_SECRET="abc" * 20), "can be guessed")
    assert "warning" in found(study, "secrets", ROOTNOTE_DESK_PASSWORD="a password").values()


@pytest.mark.both_databases
def test_rights_and_the_log(site: Site, tmp_path: Path) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    walker = site.walker().consent("?worker=ann")
    walker.go("withdraw", confirm="yes")
    assert any("(1 erasure)" in text for text in found(site.study, "rights", **url))
    assert set(found(site.study, "log", **url).values()) == {"ok"}
    journal = tmp_path / "journal"
    journal.write_text("nonsense\nnonsense\n")
    assert error(found(site.study, "rights", **url, ROOTNOTE_ERASURES=str(journal)), "Line 1 of the journal")
    engine = site.app.extensions["rootnote"].engine
    with database.writing(engine) as session, session.begin():
        study_control.close(session, "anna", "everybody was heard", datetime.now(UTC) - timedelta(days=31))
    assert error(found(site.study, "rights", **url), "identities of 1 participant were due", "rootnote server purge")
    with database.writing(engine) as session, session.begin():
        session.execute(text("UPDATE log_head SET hash = 'x'"))
    assert error(found(site.study, "log", **url), "The log or the answers have been changed", "audit --verify")


def test_the_study_and_its_stimuli(study: Study) -> None:
    assert "error" not in found(study, "study").values()
    (study.folder / "consent.md").write_text("Ask [YOUR NAME].")
    (study.folder / "debrief.md").unlink()
    assert error(found(study, "study"), "consent.md", "[YOUR NAME]")
    assert error(found(study, "study"), "debrief.md is missing")
    study.key.chmod(0o644)
    assert found(study, "stimuli")[f"Other users of this host can read {study.key}. chmod 600 {study.key}"] == "warning"
    sound = next(study.stimuli.iterdir())
    sound.write_bytes(sound.read_bytes()[:-1])
    assert error(found(study, "stimuli"), "damaged", "rootnote study build")
    toml = study.folder / "study.toml"
    toml.write_text(toml.read_text() + "[bins]\nhalf_width = 0.03\n")
    assert error(found(load_study(study.folder), "study"), "stale")


@pytest.mark.both_databases
def test_the_database(site: Site) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    assert set(found(site.study, "database", **url).values()) == {"ok"}
    role = found(site.study, "role", **url)
    if site.database_url.startswith("sqlite"):
        path = Path(str(make_url(site.database_url).database))
        path.chmod(0o644)
        assert error(found(site.study, "role", **url), "chmod go=")
        path.chmod(0o600)
        assert set(found(site.study, "role", **url).values()) == {"warning"}
    else:
        assert error(role, "is a superuser", "can drop and alter tables", "roles.sql")
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE study SET schedule = 'another'"))
    assert error(found(site.study, "database", **url), "another schedule")
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert error(found(site.study, "database", **url), "rootnote server migrate")


def test_the_desk(site: Site) -> None:
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    required = url | {"ROOTNOTE_DESK_SECOND_FACTOR": "required"}

    def levels(words: str, **environment: str) -> list[str]:
        return [level for text, level in found(site.study, "desk", **environment).items() if words in text]

    assert levels("rootnote server user add", **url) == ["warning"]
    add_researcher(site, "anna")
    assert levels("0 of 1", **url) == ["warning"]
    assert levels("0 of 1", **required) == ["ok"]
    visit = Visit(site).signed_in("anna")
    visit.enrol()
    assert set(found(site.study, "desk", **url).values()) == {"ok"}
    assert levels("does not decrypt 1 of 1", **url, ROOTNOTE_SECRET=SECRET[::-1]) == ["error"]
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE researchers SET role = 'monitor'"))
    assert levels("no owner", **url) == ["error"]
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert levels("", **url) == ["unknown"]


def test_identities(site: Site) -> None:
    old, new = new_key(), new_key()
    url = {"ROOTNOTE_DATABASE_URL": site.database_url}
    assert set(found(site.study, "identities", **url).values()) == {"ok"}
    site.walker().consent()
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        listener = session.scalars(select(Listener)).one()
        store_identity(session, Vault([old]), listener, Arrival("A1WORKER"), site.clock.now)
    for keys in (old, f"{new},{old}"):
        assert set(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY=keys).values()) == {"ok"}
    assert error(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY=new), "1 of 1", "cannot be paid")
    assert error(found(site.study, "identities", **url, ROOTNOTE_VAULT_KEY="none"), "valid key")


def test_a_database_that_is_not_there_names_no_password(study: Study) -> None:
    away = found(study, "database", ROOTNOTE_DATABASE_URL="postgresql://anna:secret@127.0.0.1:9/study")
    assert error(away, "cannot be reached", "127.0.0.1:9")
    assert "secret" not in str(away)


def test_backups(study: Study, tmp_path: Path) -> None:
    assert error(found(study, "backups"), "ROOTNOTE_BACKUPS is not set")
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    assert error(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "contains no backup")
    path = folder / "rootnote-20260301T020000Z.sqlite3"
    path.write_bytes(b"something")
    path.chmod(0o600)
    assert set(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)).values()) == {"ok", "warning"}
    os.utime(path, (time.time() - 80 * 3600,) * 2)
    assert error(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "is 3 days old", "daily")
    os.utime(path)
    path.chmod(0o644)
    assert error(found(study, "backups", ROOTNOTE_BACKUPS=str(folder)), "chmod -R go=")
    assert set(found(study, "backups", ROOTNOTE_BACKUPS="provider").values()) == {"warning"}


def test_a_full_disk(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(study.folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10 * 2**20))
    assert error(found(study, "disk"), "make room")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(total=10 * 2**40, free=5 * 2**40))
    assert set(found(study, "disk").values()) == {"ok"}


def test_the_clock(study: Study) -> None:
    assert set(found(study, "clock").values()) < {"ok", "warning", "unknown"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "ROOTNOTE_PUBLIC_URL is not set"),
        ({"ROOTNOTE_PUBLIC_URL": "http://study.example.org"}, "not https"),
        (
            {"ROOTNOTE_PUBLIC_URL": "https://127.0.0.1:9", "ROOTNOTE_TRUSTED_PROXIES": "1"},
            "cannot be reached from here",
        ),
        ({"ROOTNOTE_PUBLIC_URL": "https://127.0.0.1:9"}, "share one rate limit"),
        ({"ROOTNOTE_PUBLIC_URL": "https://nowhere.invalid"}, "has no address"),
    ],
)
def test_invalid_addresses(study: Study, environment: dict[str, str], words: str) -> None:
    assert error(found(study, "address", **environment), words)


def test_what_a_proxy_does_to_pages(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header removed or duplicated, a version revealed, /metrics open, a wrong page, an expiring certificate."""
    url = make_url(f"sqlite:///{tmp_path / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    app = create_app(study, Settings(url, SECRET, public_url="https://localhost", trusted_proxies=1))
    spoil: dict[str, Any] = {}

    def proxy(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            passed_on = [(name, value) for name, value in headers if name != spoil.get("without")]
            return start(spoil.get("status", status), passed_on + spoil.get("with", []), *rest)

        return app({**environ, "PATH_INFO": spoil.get(environ["PATH_INFO"], environ["PATH_INFO"])}, begin)

    certificate, soon = make_certificate(tmp_path, 60), make_certificate(tmp_path, 5)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(certificate.read_bytes() + soon.read_bytes())
    with serving(proxy, certificate) as address, serving(proxy, soon) as ending:

        def check(address: str = address, **fault: Any) -> dict[str, str]:
            spoil.clear()
            spoil.update(fault)
            return found(study, "address", ROOTNOTE_PUBLIC_URL=address, ROOTNOTE_TRUSTED_PROXIES="1")

        assert error(check(), "certificate verify failed")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert "error" not in check().values()
        assert error(check(without="Content-Security-Policy"), "Content-Security-Policy at /take", "deploy/Caddyfile")
        assert error(check(without="Strict-Transport-Security"), "Strict-Transport-Security")
        assert error(check(**{"with": [("X-Frame-Options", "SAMEORIGIN")]}), "X-Frame-Options at /take")
        assert error(check(**{"/metrics": "/healthz"}), "/metrics can be read")
        assert error(check(**{"/readyz": "/take"}), "/readyz answers 200")
        assert any("reveals its version" in text for text in check(**{"with": [("Server", "nginx/1.22.1")]}))
        assert error(check(ending), "valid for another 5 days")
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
    assert any("at its signed address" in text for text in private)
    for key in bucket.written():
        bucket.client.put_object_acl(Bucket=BUCKET, Key=key, ACL="public-read")
    assert error(found(study, "stimuli", **here), "without a signature")
    for key in bucket.written():
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    assert error(found(study, "stimuli", **here), "lacks a stimulus", "rootnote study publish")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert error(found(study, "stimuli", **here), "cannot be read", "Could not connect")
    write_stimuli(study, draw_key())
    assert error(found(study, "stimuli", **here), "stale", "rootnote study publish")


@pytest.mark.parametrize(
    ("host", "query", "public"),
    [
        ("1.1.1.1", None, True),
        ("10.1.2.3", None, False),
        ("localhost", None, False),
        (None, "/var/run/postgresql", False),
        (None, "1.1.1.1", True),
        (None, None, False),
    ],
)
def test_when_the_connection_to_a_database_must_be_encrypted(host: str | None, query: str | None, public: bool) -> None:
    assert _is_public(host, query) is public
