"""Complete launches with a real browser among the simulated workers: from the preview to Table 1 and the last payment.

Mechanical Turk shows the study in a frame on another site, and third-party cookies are blocked, as in Safari and
Firefox; Prolific opens it at top level, and listeners return to it through a link.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, Page, expect

from server.simulation.bots import ResponseModel
from server.simulation.hearing import LOUDSPEAKERS, answer_by_ear
from server.simulation.launch import LaunchOutcome, RehearsedLaunch, rehearse_launch, set_recruiter
from server.simulation.marketplace_client import MarketplaceClient
from server.simulation.marketplace_workers import WorkerVisit as WorkersVisit
from study.config import Study
from study.config_sections import RehearsalConfig
from tests.browser.conftest import FLAGS, chromium_path
from tests.browser.test_whole_study import LAPTOP, Visit
from tests.paper_study import make_study

pytestmark = pytest.mark.browser
TRIALS = 6
BLOCKED = {"profile": {"cookie_controls_mode": 1, "block_third_party_cookies": True}}
STORES = "() => { try { localStorage.setItem('a', 'b'); return true } catch (error) { return false } }"


class InFrame(Visit):
    """A visit whose pages are in a frame, or at top level."""

    def tones(self) -> int:
        source = self.page.locator("audio[data-clip=tones]").get_attribute("src")
        return answer_by_ear("tones", httpx.get(f"{self.site}{source}").content, LOUDSPEAKERS, np.random.default_rng())

    def take_the_study(self) -> None:
        """From the consent page to the last one."""
        self.page.click("button.primary")
        self.page.wait_for_selector("main[data-step=prescreen]")
        while self.step == "prescreen":
            self.count()
        self.hear("volume")
        self.go_on()
        for position in range(1, TRIALS + 1):
            assert (self.step, self.position) == ("trial", position)
            self.compare("AB"[position % 2])
        self.page.locator("input[name=q_device]").first.check(force=True)
        self.go_on()
        assert self.step == "done"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    toml = "[prescreen]\nitems = 1\nmin_tones = 1\nmax_tones = 3\n[rehearsal]\nfail_prescreen = 0\nabandon = 0\n"
    return make_study(tmp_path / "study", prompts=6, listeners=6, trials=TRIALS, seconds=0.25, toml=toml)


@pytest.fixture
def context(browser: Browser, tmp_path: Path) -> Iterator[BrowserContext]:
    """A separate browser context in which third-party cookies and storage are blocked."""
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Default" / "Preferences").write_text(json.dumps(BLOCKED))
    opened = browser.browser_type.launch_persistent_context(
        str(profile),
        executable_path=chromium_path(),
        args=FLAGS,
        viewport=LAPTOP,  # type: ignore[arg-type]
    )
    opened.set_default_timeout(15_000)
    yield opened
    opened.close()


def launch(study: Study, kind: str, guest: Callable[[MarketplaceClient], WorkersVisit]) -> LaunchOutcome:
    wanted = RehearsedLaunch(
        seed=1, model=ResponseModel(RehearsalConfig(fail_prescreen=0, abandon=0)), at_once=4, patience=60
    )
    outcome = rehearse_launch(study.folder, kind, wanted, guest=guest)
    assert outcome.ledger == outcome.shown == sum(row.paid + row.fees for row in outcome.payments) > 0
    assert outcome.on_hold == 0
    assert outcome.workers["finished"] >= 6
    return outcome


def require_table1(study: Study) -> None:
    with (study.folder / "rehearsal" / "report" / "table1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows, "the launch ends with Table 1"


def site_of(frame: Frame | Page) -> str:
    return str(httpx.URL(frame.url).copy_with(raw_path=b"/")).rstrip("/")


def watch(page: Page, visit: InFrame) -> None:
    page.on("console", visit.on_console)
    page.on("pageerror", lambda error: visit.problems.append(str(error)))


def offered(place: MarketplaceClient, worker: str, page: Page) -> str:
    """Wait until the launch offers its first places."""
    for _ in range(100):
        if offer := place.offer(worker):
            return offer
        page.wait_for_timeout(100)
    raise AssertionError("no place was offered")


def test_a_launch_on_mechanical_turk_in_a_frame_without_third_party_cookies(
    study: Study, context: BrowserContext, capsys: pytest.CaptureFixture[str]
) -> None:
    def guest(place: MarketplaceClient) -> WorkersVisit:
        page, worker = context.new_page(), place.enrol(9000)
        hit = offered(place, worker, page)
        page.goto(f"{place.market.worker_url}/projects/{hit}/preview?workerId={worker}")
        frame = frame_of(page)
        frame.wait_for_selector("[data-preview]")
        assert frame.locator("form, audio").count() == 0, "who only looks can neither begin nor hear"
        assert site_of(frame).startswith("http://127.0.0.1:") and "localhost" in page.url, "two sites"
        assert not frame.evaluate(STORES), "third-party storage is blocked, or this test shows nothing"
        assert page.evaluate(STORES)
        page.click("button")  # Accept
        frame = frame_of(page)
        visit = InFrame(frame, site_of(frame))  # type: ignore[arg-type]
        watch(page, visit)
        visit.take_the_study()
        frame.click("form[data-back] button")
        expect(page.frame_locator("#question").locator("[data-submitted]")).to_be_visible()
        assert visit.problems == []
        assert context.cookies() == []
        return WorkersVisit(worker, "", "finished", previewed=True, submitted=1)

    outcome = launch(study, "mturk", guest)
    assert {row.kind for row in outcome.payments} >= {"reward", "screen_out"}
    require_table1(study)
    assert "6 x ($1.50 + $0.30 fee) = $10.80" in capsys.readouterr().out


def frame_of(page: Page) -> Frame:
    page.wait_for_selector("iframe#question")
    element = page.query_selector("iframe#question")
    assert element is not None
    frame = element.content_frame()
    assert frame is not None
    frame.wait_for_selector("main")
    return frame


def test_a_launch_on_prolific_with_its_completion_link(
    study: Study, context: BrowserContext, capsys: pytest.CaptureFixture[str]
) -> None:
    def guest(place: MarketplaceClient) -> WorkersVisit:
        page, person = context.new_page(), place.enrol(9000)
        offered(place, person, page)
        page.goto(f"{place.market.worker_url}/signin?participant={person}")
        page.click("button")  # Take part
        page.click("#open")
        page.wait_for_selector("main[data-step=consent]")
        visit = InFrame(page, site_of(page))
        watch(page, visit)
        visit.take_the_study()
        page.click("a[data-back]")
        expect(page.locator("[data-submitted]")).to_have_text("Your submission is AWAITING REVIEW.")
        assert visit.problems == []
        assert {cookie["name"] for cookie in context.cookies()} == {"prolific_participant"}, "none is ours"
        return WorkersVisit(person, "", "finished", submitted=1)

    outcome = launch(study, "prolific", guest)
    assert {row.kind for row in outcome.payments} >= {"reward", "screen_out"}
    require_table1(study)
    assert "6 x ($1.50 + $0.50 fee) = $12.00" in capsys.readouterr().out


# ------------------------------------------------------------------ the study with another recruiter


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[study]\nname = "a"\n',
        '[recruiter]\nkind = "link"\nreservation_minutes = 5\n[pay]\n',
        "[recruiter]\nreservation_minutes = 5\n",
        '[recruiter.mturk]\ntitle = "kind = 1"\n[[questions]]\nkind = "single"\n',
        '[ recruiter ]\n  kind="prolific"  # where from\n',
    ],
)
def test_a_study_is_rehearsed_with_another_recruiter_only(text: str) -> None:
    before, after = tomllib.loads(text), tomllib.loads(set_recruiter(text, "mturk"))
    expected: dict[str, Any] = before | {"recruiter": before.get("recruiter", {}) | {"kind": "mturk"}}
    assert after == expected
