"""Listeners' rights over HTTP and by command: lasting erasure, disclosure, versions of the consent text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from werkzeug.test import Client

from embeddings.errors import RootnoteError
from server.app import create_app
from server.db import backup, database
from server.db.models import Assignment, Base, Place
from server.privacy.erasure import Journal
from server.settings import Settings
from tests.deploy.conftest import client_programs  # noqa: F401 (a fixture)
from tests.server.commands.test_server import quick
from tests.server.conftest import SECRET, FakeClock, Site, Walker

TELL_TALE = "a very particular remark"
# Every table that refers to a run, except payments: taken from the models, so that none is forgotten.
PAYMENT_TABLES = {"places", "submissions", "payments"}
ANSWERED = [
    mapper.class_
    for mapper in Base.registry.mappers
    if "assignment_id" in mapper.columns and mapper.class_.__tablename__ not in PAYMENT_TABLES
]


def engine_of(site: Site) -> Engine:
    engine = site.app.extensions["rootnote"].engine
    assert isinstance(engine, Engine)
    return engine


def answer_counts(site: Site) -> dict[str, int]:
    """How many rows there are of everything that a listener answers."""
    with database.reading(engine_of(site)) as session:
        return {table.__tablename__: len(list(session.scalars(select(table)))) for table in ANSWERED}


def one(site: Site) -> Assignment:
    with database.reading(engine_of(site)) as session:
        found = session.scalars(select(Assignment).order_by(Assignment.id)).first()
        assert found is not None
        session.expunge_all()
        return found


def finished(site: Site) -> Walker:
    walker = site.walker().begin().listen()
    return walker.go("questions", q_device="Headphones or earbuds", q_music="None", q_remarks=TELL_TALE)


def withdraw(site: Site, code: str, **fields: str) -> Any:
    return Client(site.app).post("/withdraw", data={"code": code, **fields})


# ------------------------------------------------------------------ by the code


def test_erasing_by_code_after_the_end(site: Site) -> None:
    walker = finished(site)
    code, other = walker.code, site.walker().begin().answer()
    before = answer_counts(site)
    page = withdraw(site, f" {code[:5].lower()}-{code[5:]} ")  # as somebody types it
    assert (page.status_code, "Erase my answers?" in page.text) == (200, True)
    assert answer_counts(site) == before  # confirmation is required
    assert "Your answers are erased" in withdraw(site, code, confirm="yes").text
    with database.reading(engine_of(site)) as session:
        left = session.scalars(select(Assignment).order_by(Assignment.id)).all()
        for table in ANSWERED:
            assert {row.assignment_id for row in session.scalars(select(table))} <= {left[1].id}
        place = session.scalar(select(Place).where(Place.assignment_id == left[0].id))
        assert place is not None
        assert place.filled  # what is erased is not asked of another
    gone = one(site)
    assert (gone.screened_at, gone.listening_at, gone.ended_at) == (None, None, None)
    assert gone.erased_at is not None
    assert "Your answers are erased" in withdraw(site, code, confirm="yes").text  # again: nothing happens
    assert "Your answers are erased" in walker.reload().html
    assert walker.code == code  # it is still what pays them
    assert other.reload().step == "trial"  # nobody else is touched


def test_invalid_codes(site: Site) -> None:
    finished(site)
    for code in ("", "ABCDEFGHJK", "~" * 15, "x" * 4000, "' OR 1=1 --", "\0", "AB\0CDEFGHJ", "ÄÖÜ"):
        page = withdraw(site, code, confirm="yes")
        assert page.status_code == 400
        assert 'id="problem"' in page.text or not code
    assert one(site).erased_at is None


def test_erasing_by_the_runs_address(site: Site) -> None:
    walker = site.walker().begin().answer()
    assert walker.client.get(f"{walker.address}/withdraw").status_code == 200
    assert walker.post("withdraw").location.endswith("/withdraw")  # without confirming: asked
    assert one(site).erased_at is None
    walker.go("withdraw", confirm="yes")
    assert walker.step == "withdrawn"
    assert "Your answers are erased" in walker.html
    assert not any(answer_counts(site).values())
    with database.reading(engine_of(site)) as session:
        assert session.scalar(select(Place).where(Place.assignment_id.is_not(None))) is None  # the place is free
    assert walker.client.get(f"{walker.address}/withdraw").status_code == 303


def test_leaving_with_and_without_answers(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=2)
    keeps, erases = (site.walker().begin().answer() for _ in range(2))
    keeps.go("leave", confirm="yes")
    erases.go("leave", confirm="yes", answers="erase")
    with database.reading(engine_of(site)) as session:
        rows = session.scalars(select(Assignment).order_by(Assignment.id)).all()
        assert [row.erased_at is None for row in rows] == [True, False]
        assert {row.state.value for row in rows} == {"withdrawn"}
    assert answer_counts(site)["responses"] == 1


def test_the_erased_do_not_come_back(site: Site) -> None:
    walker = site.walker().begin().answer()
    walker.hear_all()
    fields = walker.answer_fields("A")
    walker.go("withdraw", confirm="yes")
    for step, sent in (("trial", fields), ("instructions", {}), ("questions", {"q_device": "x"}), ("prescreen", {})):
        walker.post(step, **sent)
    assert not any(answer_counts(site).values())


def test_an_answer_after_expiry_is_not_kept_of_the_erased(site: Site) -> None:
    late = site.walker().begin()
    late.hear_all()
    fields = late.answer_fields("A")
    site.clock.advance(120)
    for _ in range(2):
        site.walker().consent()  # both places are taken
    late.post("trial", **fields)
    assert answer_counts(site)["responses"] == 1
    late.go("withdraw", confirm="yes")
    late.post("trial", **(fields | {"position": 2}))
    assert answer_counts(site)["responses"] == 0


def test_where_the_journal_cannot_be_written_nothing_is_erased(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(settings={"erasures": str(tmp_path / "journal.jsonl")})
    walker = finished(site)
    before = answer_counts(site)
    (tmp_path / "journal.jsonl").mkdir()  # as a full or broken disk would
    reply = walker.post("withdraw", confirm="yes")
    assert (reply.status_code, "Something went wrong" in reply.text) == (500, True)
    assert answer_counts(site) == before
    assert one(site).erased_at is None


def test_a_full_disk_leaves_the_journal_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record("one", FakeClock().now)
    whole, write = journal.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda number, line: write(number, line[:7]))  # there was room for seven bytes
    with pytest.raises(RootnoteError, match="No space left"):
        journal.record("two", FakeClock().now)
    monkeypatch.undo()
    assert journal.path.read_bytes() == whole
    journal.record("two", FakeClock().now)
    assert [pseudonym for pseudonym, _ in journal.read()] == ["one", "two"]


@pytest.mark.both_databases
def test_two_confirm_at_once(site: Site) -> None:
    code = finished(site).code
    with ThreadPoolExecutor(6) as pool:
        pages = list(pool.map(lambda _: withdraw(site, code, confirm="yes"), range(6)))
    assert {page.status_code for page in pages} == {200}
    assert len((site.study.folder / "erasures.jsonl").read_text().splitlines()) == 1
    assert site.query("SELECT count(*) FROM log WHERE what LIKE 'erased%'") == [(1,)]


# ------------------------------------------------------------------ yesterday's backup


@pytest.mark.both_databases
@pytest.mark.usefixtures("client_programs")
def test_the_erased_stay_erased_when_a_backup_is_restored(site: Site, tmp_path: Path) -> None:
    walker, stays = finished(site), site.walker().begin().answer()
    url = engine_of(site).url
    saved = backup.backup(url, tmp_path / "backups", keep=3)
    withdraw(site, walker.code, confirm="yes")
    engine_of(site).dispose()
    if url.drivername == "sqlite":
        for path in Path(str(url.database)).parent.glob(f"{Path(str(url.database)).name}*"):
            path.unlink()
    else:
        with engine_of(site).begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine_of(site).dispose()
    backup.restore(url, saved)
    assert answer_counts(site)["answers"] > 0  # the backup is older than the erasure
    engine_of(site).dispose()
    again = Site(site.study, create_app(site.study, Settings(url, SECRET), clock=site.clock), site.clock, str(url))
    with database.reading(engine_of(again)) as session:
        rows = session.scalars(select(Assignment).order_by(Assignment.id)).all()
        assert [row.erased_at is not None for row in rows] == [True, False]
        assert {row.assignment_id for table in ANSWERED for row in session.scalars(select(table))} == {rows[1].id}
    assert Client(again.app).get(stays.address).status_code == 200
    engine_of(again).dispose()


# ------------------------------------------------------------------ texts


def test_the_consent_text_can_be_kept(site: Site) -> None:
    page = site.walker().open()
    address = page.find(r'href="(/consent/[0-9a-f]{64}[^"]*)"')
    shown = page.client.get(address)
    assert (shown.status_code, "You will compare" in shown.text, "<script>alert" in shown.text) == (200, True, False)
    assert "Version 1 of this text" in shown.text
    assert page.client.get("/consent").location == address
    for strange in ("0" * 64, "x", "../" * 5, "%00" * 64, "a" * 63 + "%00"):
        assert page.client.get(f"/consent/{strange}").status_code == 404


def test_a_change_of_the_consent_text_opens_a_new_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.walker().consent()
    site.study.text("consent", "en").write_text("# About this study\n\nThe second version.\n")
    url = engine_of(site).url
    later = create_app(site.study, Settings(url, SECRET), clock=site.clock)
    Site(site.study, later, site.clock, str(url)).walker().consent()
    later.extensions["rootnote"].engine.dispose()
    engine_of(site).dispose()
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", url.render_as_string(hide_password=False))
    data = json.loads(quick("server", "consents", "--json", site.study.folder).output)
    assert [(one["number"], one["agreed"]) for one in data] == [(1, 1), (2, 1)]
    lines = quick("server", "consents", "--listeners", site.study.folder).output.splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == sorted(one["hash"] for one in data)
    text_now = quick("server", "consents", "--show", data[1]["hash"][:8], site.study.folder).output
    assert text_now == "# About this study\n\nThe second version.\n"
    assert "no version has" in str(quick("server", "consents", "--show", "zz", site.study.folder).exception)
    assert "version 2" in quick("server", "audit", site.study.folder).output
    assert first.reload().step == "prescreen"  # who agreed to the former text goes on


def test_accessibility_says_what_those_are_paid_who_cannot_use_sound(make_site: Callable[..., Site]) -> None:
    same = make_site().walker().client.get("/accessibility").text
    assert "paid the same" in same and "US dollars" not in same
    less = make_site(toml="[pay]\nwithout_sound = 0.75\n").walker().client.get("/accessibility").text
    assert "0.75 US dollars" in less


def test_who_cannot_use_sound_is_paid_the_reward(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    walker = site.walker().consent()
    assert "1.50 US dollars" in walker.client.get(f"{walker.address}/technical").text
    walker.go("technical")
    assert (walker.step, "1.50 US dollars" in walker.html) == ("technical", True)
    engine_of(site).dispose()
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", engine_of(site).url.render_as_string(hide_password=False))
    assert f"{walker.code},technical,1.50" in quick("server", "codes", site.study.folder).output


# ------------------------------------------------------------------ by command


@pytest.fixture
def commanded(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, at the command line too."""
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", engine_of(site).url.render_as_string(hide_password=False))
    return site


def test_erase(commanded: Site) -> None:
    walker = finished(commanded)
    folder = commanded.study.folder
    assert "no listener has" in str(quick("server", "erase", "NOBODYHERE", folder).exception)
    assert "Erase all answers" in quick("server", "erase", walker.code, folder).output  # asks, and gets no yes
    assert one(commanded).erased_at is None
    result = quick("server", "erase", walker.code, folder, "--yes", "--reason", "wrote on 1 March")
    assert one(commanded).pseudonym in result.output
    assert len(result.output.splitlines()) == 1, "nothing about an encrypted id"
    assert not any(answer_counts(commanded).values())
    again = quick("server", "erase", one(commanded).pseudonym, folder, "--yes").output
    assert "already erased on" in again
    log = quick("server", "audit", folder).output
    assert "erased a listener's answers" in log
    assert "wrote on 1 March" in log


@pytest.mark.both_databases
def test_the_erased_are_in_no_export_and_are_counted(commanded: Site) -> None:
    walker, other = finished(commanded), finished(commanded)
    quick("server", "erase", walker.code, commanded.study.folder, "--yes")
    data = json.loads(quick("server", "export", commanded.study.folder, "--json").output)
    rows = Path(data["listeners"]).read_text().splitlines()
    assert len(rows) == 2  # the header, and the other
    assert data["completed"] == 1
    assert '"erased": 1' in Path(data["manifest"]).read_text()
    assert other.code not in Path(data["listeners"]).read_text()


@pytest.mark.both_databases
def test_disclose(commanded: Site) -> None:
    walker = finished(commanded)
    finished(commanded)
    folder = commanded.study.folder
    data = json.loads(quick("server", "disclose", walker.code, folder).output)
    assert data["run"]["state"] == "finished"
    assert len(data["responses"]) == 3
    assert {answer["value"] for answer in data["answers"]} >= {TELL_TALE}
    assert data["consent"]["text"].startswith("# About this study")
    assert data["identity"] is None
    hidden = json.dumps(data)
    for secret in ("high_side", "bin_high", "token_hash", "entry_hash"):
        assert secret not in hidden  # what would unblind, or open the run
    out = commanded.study.folder / "answer.json"
    result = quick("server", "disclose", data["listener"], folder, "--out", out)
    assert result.exit_code == 0
    assert out.stat().st_mode & 0o077 == 0
    assert json.loads(out.read_text())["run"] == data["run"]
    assert quick("server", "audit", folder).output.count("disclosed a listener's data") == 2


DISCLOSED_AS = {"prescreen_items": "prescreen", "servings": "deliveries", "places": "place"}


def test_what_is_stored_under_a_run_is_disclosed(commanded: Site) -> None:
    code = finished(commanded).code
    data = json.loads(quick("server", "disclose", code, commanded.study.folder).output)
    stored = {table.name for table in Base.metadata.tables.values() if "assignment_id" in table.columns}
    assert {DISCLOSED_AS.get(name, name) for name in stored} <= set(data)
    assert len(data["deliveries"]) == 9 and all(one["fetched_at"] for one in data["deliveries"][:3])
    assert {one["elapsed_s"] is None for one in data["responses"]} == {False}


def test_a_damaged_journal_stops_the_server_and_the_commands(commanded: Site) -> None:
    walker = finished(commanded)
    quick("server", "erase", walker.code, commanded.study.folder, "--yes")
    journal = commanded.study.folder / "erasures.jsonl"
    good = journal.read_text()
    journal.write_text(good + '{"assignment": "cut sho')  # broken off while it was written: never confirmed
    assert quick("server", "export", commanded.study.folder).exit_code == 0
    finished_too = finished(commanded)
    quick("server", "erase", finished_too.code, commanded.study.folder, "--yes")
    assert len(journal.read_text().splitlines()) == 2  # the cut line spoils no other, and is gone
    assert quick("server", "export", commanded.study.folder).exit_code == 0
    assert all(json.loads(line)["assignment"] for line in journal.read_text().splitlines())
    journal.write_text("nonsense\n" + good)
    refused = quick("server", "export", commanded.study.folder)
    assert "line 1 of the journal of erasures" in str(refused.exception)


@pytest.mark.both_databases
def test_erased_text_is_in_no_file_of_the_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `server erase`; PostgreSQL's WAL is not covered."""
    finished(site)
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    assert TELL_TALE.encode() in files_of(site)
    done = quick("server", "erase", one(site).pseudonym, site.study.folder, "--yes")
    assert done.exit_code == 0, done.output
    assert "may still contain" not in done.output
    assert TELL_TALE.encode() not in files_of(site)


def files_of(site: Site) -> bytes:
    """The content of the database's files, as they are on the disk."""
    engine = engine_of(site)
    if engine.dialect.name == "sqlite":
        file = Path(str(engine.url.database))
        return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    with engine.connect() as connection:
        folder = Path(str(connection.scalar(text("SHOW data_directory"))))
        connection.rollback()
        paths = [
            folder / str(connection.scalar(text("SELECT pg_relation_filepath(:name)"), {"name": table.__tablename__}))
            for table in ANSWERED
        ]
    with engine.execution_options(alone=True).connect() as connection:
        connection.exec_driver_sql("CHECKPOINT")
    return b"".join(path.read_bytes() for path in paths)
