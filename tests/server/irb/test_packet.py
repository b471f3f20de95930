"""The board packet, all but its pictures: the data map is complete, the words follow from the study."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

import rootnote
from embeddings.errors import RootnoteError
from server.db.models import Base
from server.irb.context import PacketContext, gather
from server.irb.data_flow import boxes, draw, in_words
from server.irb.html import header, render, sections
from server.irb.summary import missing
from study.config import Study, StudyConfig
from study.marketplaces import MARKETPLACES, load_marketplace
from tests.server.conftest import TAKEN, Site
from tests.server.small_study import make_study

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECTIONS = [
    "The study in brief", "Protocol", "Participants", "Recruitment", "Consent", "Compensation and time",
    "Risks and benefits", "Withdrawal and participants' rights", "Data flow", "Stored data", "Data security",
    "Pages that participants see",
    "Appendix: every column of the database",
]  # fmt: skip


def text_of(html: str) -> str:
    """The visible text, on one line."""

    class Reader(HTMLParser):
        read: list[str] = []  # noqa: RUF012
        hidden = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.hidden = tag == "style"

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                self.read.append(data)

    reader = Reader()
    reader.read = []
    reader.feed(html)
    return " ".join(" ".join(reader.read).split())


def gathered(folder: Path, **options: Any) -> PacketContext:
    return gather(make_study(folder, **options), {}, NOW)


def recruited(folder: Path, kind: str, toml: str = "") -> PacketContext:
    return gathered(folder, toml=f'[recruiter]\nkind = "{kind}"\n{toml}')


# ------------------------------------------------------------------ the diagram


@pytest.mark.parametrize("kind", ["link", "mturk", "prolific"])
@pytest.mark.parametrize("delivery", ["", "redirect", "proxy"])
def test_the_diagram_is_complete_and_has_a_description(kind: str, delivery: str) -> None:
    storage = {"stimuli": "s3://bucket/clips", "delivery": delivery} if delivery else {}
    config = StudyConfig.model_validate(
        {"study": {"name": "A"}, "corpus": {"audio": "music"}, "recruiter": {"kind": kind}, "storage": storage}
    )
    drawn = ElementTree.fromstring(draw(config))
    space = "{http://www.w3.org/2000/svg}"
    assert drawn.findtext(f"{space}title") and drawn.findtext(f"{space}desc") == " ".join(in_words(config))
    shown = " ".join(node.text or "" for node in drawn.iter(f"{space}text"))
    assert all(box.name in shown for box in boxes(config).values())
    assert ("Database: vault" in shown) == (kind != "link")
    assert ("private bucket" in shown) == bool(delivery)
    _, _, across, down = map(int, drawn.attrib["viewBox"].split())
    for box in drawn.iter(f"{space}rect"):
        x, y, wide, tall = (int(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + wide <= across and y + tall <= down


# ------------------------------------------------------------------ the words


def test_the_page_is_reproducible_and_shows_its_fingerprints(tmp_path: Path) -> None:
    facts = gathered(tmp_path)
    page = render(facts, [])
    assert render(gather(facts.study, {}, NOW), []) == page
    assert re.findall(r"<h2>\d+\. ([^<]+)</h2>", page.replace("&#39;", "'"))[:-1] == SECTIONS
    assert [section.title for section in sections(facts, [])] == SECTIONS
    assert facts.consent_hash in page and facts.fingerprint in page
    assert facts.fingerprint[:12] in header(facts) and facts.consent_hash[:12] in header(facts)
    assert "<script" not in page and not re.search(r'(src|href)="(?!#)', page), "it needs no other file"
    for table in Base.metadata.tables.values():
        assert all(f"{table.name}.{column.name}" in page for column in table.columns)


def test_another_text_or_setting_changes_the_fingerprint(tmp_path: Path) -> None:
    one = gathered(tmp_path)
    (tmp_path / "consent.md").write_text("# Another text\n")
    other = gather(one.study, {}, NOW)
    assert other.fingerprint != one.fingerprint and other.consent_hash != one.consent_hash
    assert gathered(tmp_path / "paid", toml="[pay]\nreward = 2.0\n").fingerprint != one.fingerprint


def test_what_is_missing_in_the_files_is_listed(tmp_path: Path) -> None:
    toml = "[pay]\nreward = 0.75\nminutes = 4\nscreened_out = 0.5\nwithdrawn = 0.25\n"
    facts = gathered(tmp_path, toml=toml)
    (tmp_path / "consent.md").write_text("# A study\n\nThe [RESEARCHER] pays $0.75, or 0,50, by [CONTACT].\n")
    found = " ".join(missing(gather(facts.study, {}, NOW)))
    assert "study.researcher in study.toml is empty" in found and "study.contact" not in found
    assert "[RESEARCHER] and [CONTACT] must be filled in" in found
    assert "it does not mention these amounts of study.toml: $0.25 (left before the end)." in found
    assert "the planned hourly wage is below" in found
    assert "not been measured with people" in found and "has not been frozen yet" in found


def test_the_text_follows_from_the_settings(tmp_path: Path) -> None:
    plain = text_of(render(gathered(tmp_path / "a", toml="[prescreen]\nsteps = []\n"), []))
    assert "Listening check:" not in plain and "There is no deception" in plain
    assert "has not been measured yet" in plain
    toml = '[prescreen]\nsteps = ["volume", "huggins"]\n[pay]\nwithdrawn = 0.5\n[player]\nconfidence = true\n'
    rich = text_of(render(gathered(tmp_path / "b", toml=toml, catch=True), []))
    assert "6 sounds, all must be right, 2 attempts" in rich and "how sure they are (1 to 5)" in rich
    assert "leave early are paid $0.50" in rich


def test_the_recruitment_text_is_what_the_marketplace_shows(tmp_path: Path) -> None:
    mturk = text_of(render(recruited(tmp_path / "m", "mturk", '[recruiter.mturk]\ntitle = "Hear & <see>"\n'), []))
    assert "Hear & <see>" in mturk and "Time allotted 60 minutes" in mturk and "at least 1,000 HITs approved" in mturk
    assert "Worker ids, which payments need, are in one table" in mturk
    prolific = text_of(render(recruited(tmp_path / "p", "prolific", '[recruiter.prolific]\ncurrency = "GBP"\n'), []))
    assert "1.50 GBP" in prolific and "Finished £1.50" in prolific
    link = gather(make_study(tmp_path / "l"), {"ROOTNOTE_PUBLIC_URL": "https://study.example.org/"}, NOW)
    assert "https://study.example.org/take" in text_of(render(link, []))


def test_every_marketplace_is_described() -> None:
    for kind in MARKETPLACES:
        marketplace = load_marketplace(kind)
        assert marketplace.listing_note and marketplace.payment_note and marketplace.capabilities.name


# ------------------------------------------------------------------ measured time


def test_time_is_measured_where_people_took_part(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(listeners=3, trials=1, toml="[pay]\nreward = 1.5\nfloor_per_hour = 40\n")
    live = {"ROOTNOTE_DATABASE_URL": site.database_url}
    assert gather(site.study, live, NOW).measured == ()
    began = site.clock.now
    site.walker().take_part()
    with site.app.extensions["rootnote"].engine.begin() as connection:  # as fast as a simulated listener
        for table, column in (
            ("assignments", "screened_at"),
            ("assignments", "listening_at"),
            ("assignments", "ended_at"),
            ("prescreen_items", "answered_at"),
            ("responses", "answered_at"),
            ("answers", "answered_at"),
        ):
            connection.execute(
                text(f"UPDATE {table} SET {column} = :at"), {"at": began.strftime("%Y-%m-%d %H:%M:%S.%f")}
            )
    rehearsed = gather(site.study, {"ROOTNOTE_REHEARSAL_DATABASE_URL": site.database_url}, NOW)
    assert [one.source for one in rehearsed.measured] == ["simulation"]
    assert "A rehearsal with 1 simulated listener went through every page" in text_of(render(rehearsed, []))
    for minutes in (3, 4.5):
        listener = site.walker().begin()
        site.clock.advance(minutes - (2 * TAKEN["prescreen"] + TAKEN["trial"]) / 60)
        listener.listen().finish()
    facts = gather(site.study, live, NOW)
    [measured] = facts.measured
    assert (measured.source, measured.n, measured.median, measured.slow) == ("people", 3, 3, pytest.approx(4.2))
    assert measured.usd_at_median == pytest.approx(30) and measured.usd_at_slow == pytest.approx(22)
    words = text_of(render(facts, []))
    assert "$30.00 (BELOW the minimum)" in words and "not been measured yet" not in words
    other = make_study(tmp_path / "other", listeners=1)
    assert gather(other, live, NOW).measured == (), "the database of another study"


# ------------------------------------------------------------------ the command


def run(study: Study, *more: str) -> BaseException | None:
    return CliRunner().invoke(rootnote.cli, ["study", "irb", str(study.folder), *more]).exception


def test_the_command_is_listed_and_has_help() -> None:
    listed = CliRunner().invoke(rootnote.cli, ["study", "--help"]).output
    assert re.search(r"^  irb +Make the packet", listed, re.MULTILINE)
    own = CliRunner().invoke(rootnote.cli, ["study", "irb", "--help"])
    assert own.exit_code == 0 and "packet.pdf" in own.output and "--out" in own.output


def test_a_study_that_is_not_built_or_lacks_a_text_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    (tmp_path / "consent.md").unlink()
    assert "consent.md is missing or empty" in str(run(study))
    study.schedule.unlink()
    problem = run(study)
    assert isinstance(problem, RootnoteError) and "run `rootnote study build`" in str(problem)
    assert not (tmp_path / "irb").exists()


@pytest.mark.parametrize("package", ["PIL", "playwright.sync_api"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'rootnote[packet]'" in str(run(make_study(tmp_path)))


def test_a_missing_browser_is_an_error_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTNOTE_CHROMIUM", str(tmp_path / "nowhere"))
    problem = run(make_study(tmp_path / "study"))
    assert isinstance(problem, RootnoteError) and "ROOTNOTE_CHROMIUM" in str(problem)
    assert not (tmp_path / "study" / "irb").exists()
