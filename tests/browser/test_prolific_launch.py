"""A launch on Prolific as its researcher types it, with participants in Chromium.

Draft, preview, publish; somebody is screened out and uses up the paid screen-outs, so the study pauses; it goes on with
a larger budget; a participant finishes and is approved, gets a bonus, and the study is complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from server.simulation.fake_prolific import FakeProlific
from server.simulation.server_process import own_server
from study.config import load_study
from tests.browser.test_marketplaces import TRIALS, InFrame, site_of, watch
from tests.browser.test_whole_study import LAPTOP, PHONE
from tests.server.conftest import SECRET
from tests.server.recruiting.mturk_study import KEY
from tests.server.recruiting.typed_commands import Launched
from tests.server.small_study import make_study

pytestmark = pytest.mark.browser
TOML = """[prescreen]
items = 1
min_tones = 1
max_tones = 3
[recruiter]
kind = "prolific"
[pay]
reward = 1.50
screened_out = 0.30
without_sound = 0.30
"""
OUT, DONE, LATE = (f"{number:024x}" for number in (1, 2, 3))


class Researcher(Launched):
    """Types commands, and keeps what the terminal shows."""

    def type(self, *words: str, rehearsal: bool = True) -> str:
        shown = super().type(*words, rehearsal=rehearsal)
        with (self.folder.parent / "terminal.txt").open("a") as file:
            file.write(f"$ rootnote server {words[0]} my-study {' '.join(words[1:])}\n{shown}\n")
        return " ".join(shown.split())


@pytest.fixture
def researcher(tmp_path: Path) -> Iterator[Researcher]:
    """A researcher with a built study, a server that is running, and an account at the local Prolific."""
    study = make_study(tmp_path / "my-study", listeners=1, trials=TRIALS, seconds=0.25, toml=TOML)
    with FakeProlific("50.00") as market:
        environment = {
            "ROOTNOTE_SECRET": SECRET,
            "ROOTNOTE_VAULT_KEY": KEY,
            "ROOTNOTE_MARKET_URL": market.url,
            "ROOTNOTE_REHEARSAL_DATABASE_URL": f"sqlite:///{tmp_path / 'rehearsal.sqlite3'}",
            "ROOTNOTE_RESERVATION_MINUTES": "60",
        }
        with own_server(load_study(study.folder), {**os.environ, **environment}) as address:
            yield Researcher(study.folder, market, environment | {"ROOTNOTE_PUBLIC_URL": address})


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=LAPTOP)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def look(page: Page, folder: Path, name: str) -> None:
    """Check that a page fits a phone and a laptop, and keep a picture of both."""
    for size in (PHONE, LAPTOP):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, size)
        page.screenshot(path=folder / f"{name}-{size['width']}.png", full_page=True)


def take_place(page: Page, market: FakeProlific, who: str) -> InFrame:
    """Sign in at Prolific, take a place and open the study."""
    market.participants.add(who)
    page.goto(f"{market.worker_url}/signin?participant={who}")
    page.click("button")  # Take part
    page.click("#open")
    page.wait_for_selector("main[data-step=consent]")
    visit = InFrame(page, site_of(page))
    watch(page, visit)
    return visit


def test_from_the_draft_to_the_last_payment(researcher: Researcher, page: Page, tmp_path: Path) -> None:
    market = researcher.market

    # Draft and preview: nobody is offered the study, and looking at it stores nothing.
    drafted = researcher.type("open", "--draft", "--budget", "2.40")
    assert "1 x ($1.50 + $0.50 fee) = $2.00" in drafted and "at most $2.40 with 1 screen-out" in drafted
    [study] = market.state.studies.values()
    assert (study.status, study.slots) == ("UNPUBLISHED", 1) and study.id in drafted
    market.participants.add(LATE)
    page.goto(f"{market.worker_url}/signin?participant={LATE}")
    expect(page.locator("button")).to_have_count(0)
    ids = {"PROLIFIC_PID": "f" * 24, "STUDY_ID": study.id, "SESSION_ID": "e" * 24}
    page.goto(re.sub(r"\{\{%(\w+)%\}\}", lambda match: ids[match[1]], study.given.external_study_url))
    assert page.locator("main").get_attribute("data-step") == "consent"
    look(page, tmp_path, "preview")
    assert researcher.query("SELECT count(*) FROM assignments") == [(0,)]

    # Published: somebody does not hear the tones and is screened out; Prolific pays them, and the study pauses.
    published = researcher.type("open", "--yes", "--budget", "2.40")
    assert "Prolific pays 0.30 USD by itself to everyone" in published and "Opened 1 place" in published
    assert "at most $2.40 with 1 screen-out" in published, "as it was for the draft"
    visit = take_place(page, market, OUT)
    page.click("button.primary")
    page.wait_for_selector("main[data-step=prescreen]")
    look(page, tmp_path, "prescreen")
    while visit.step == "prescreen":
        visit.count(error=1)
    assert visit.step == "screened_out"
    look(page, tmp_path, "screened-out")
    page.click("a[data-back]")
    expect(page.locator("[data-submitted]")).to_have_text("Your submission is SCREENED OUT.")
    assert (visit.problems, study.status) == ([], "PAUSED")
    assert "all paid screen-outs are used and the budget is spent" in researcher.type("sync")
    page.goto(f"{market.worker_url}/signin?participant={LATE}")
    expect(page.locator("button")).to_have_count(0)

    # A larger budget pays for more screen-outs, and the study goes on.
    assert "1 screen-out used; 3 more may be paid, and the study goes on." in researcher.type(
        "open", "--yes", "--budget", "10"
    )
    assert (study.status, study.slots) == ("ACTIVE", 4)
    page.context.clear_cookies()
    visit = take_place(page, market, DONE)
    look(page, tmp_path, "consent")
    visit.take_the_study()
    look(page, tmp_path, "done")
    shown = page.locator("[data-panel-code]").inner_text()
    assert (page.locator("a[data-back]").get_attribute("href") or "").endswith(f"?cc={shown}")
    assert shown in {one.code for one in study.given.completion_codes}
    page.click("a[data-back]")
    expect(page.locator("[data-submitted]")).to_have_text("Your submission is AWAITING REVIEW.")
    assert visit.problems == []

    # Approved, a bonus paid, complete: our ledger and Prolific's agree.
    assert "Approved 1 submission" in researcher.type("sync")
    [(pseudonym,)] = researcher.query("SELECT pseudonym FROM assignments WHERE state NOT IN ('screened_out')")
    researcher.type("pay", "--bonus", pseudonym, "0.45", "--reason", "Thank you for your report.", "--yes")
    researcher.type("sync")
    status = researcher.type("status")
    researcher.type("close", "--yes")
    assert study.status == "COMPLETED"
    paid = sorted((entry.kind, f"{entry.amount:.2f}") for entry in market.ledger() if entry.kind not in ("fee", "tax"))
    assert paid == [("bonus", "0.45"), ("reward", "1.50"), ("screen-out", "0.30")]
    spent = sum(entry.amount for entry in market.ledger())
    assert (f"{spent:.2f}", market.on_hold) == ("3.00", 0)
    assert "$3.00" in status
    page.goto(f"{market.worker_url}/signin?participant={LATE}")
    expect(page.locator("button")).to_have_count(0)
