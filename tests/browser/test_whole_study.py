"""A listener takes a complete study in a real browser."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from server.simulation.hearing import LOUDSPEAKERS, answer_by_ear
from study.config import Study
from study.trial_plan import read_plan
from tests.browser.conftest import QUICK, SECRET
from tests.commands import run

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
LAPTOP = {"width": 1280, "height": 800}
TRIALS = 6


@dataclass
class Visit:
    """A page with its console errors and the hosts it contacted."""

    page: Page
    site: str
    problems: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def on_request(self, request: Request) -> None:
        if not request.url.startswith(self.site + "/"):
            self.strangers.append(request.url)

    # what is seen
    @property
    def step(self) -> str:
        return self.page.locator("main").get_attribute("data-step") or ""

    @property
    def position(self) -> int:
        return int(self.page.locator("main").get_attribute("data-position") or 0)

    @property
    def submit(self) -> str:
        return "[data-submit]"

    def fits(self) -> bool:
        """Whether the loaded page needs no horizontal scrolling."""
        self.page.wait_for_load_state("load")
        self.page.wait_for_function("document.documentElement !== null && document.readyState === 'complete'")
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    # what is done
    def consent(self) -> None:
        self.page.goto(f"{self.site}/take")
        assert self.step == "consent"
        self.page.click("button.primary")
        self.page.wait_for_selector("main[data-step=prescreen]")

    def hear(self, clip: str) -> None:
        """Press play like a person and wait until the clip was heard to its end."""
        player = self.page.locator("[data-player]").filter(has=self.page.locator(f"audio[data-clip={clip}]"))
        player.locator(".play").click()
        self.page.wait_for_function(  # looked at with every frame; `expect` looks less and less often
            """clip => document.querySelector(`audio[data-clip=${clip}]`).closest("[data-player]")
                 .querySelector("[data-heard]").textContent.trim() === "Heard" """,
            arg=clip,
            timeout=15_000,
        )

    def count(self, error: int = 0) -> None:
        self.hear("tones")
        self.page.fill("input[name=count]", str(self.tones() + error))
        self.go_on()

    def go_on(self) -> None:
        """Submit the page and wait for the next."""
        field_now = self.page.locator("input[name=item], input[name=position]")
        before = (self.step, field_now.get_attribute("value") if field_now.count() else None)
        self.page.click(self.submit)
        self.page.wait_for_function(
            """([step, value]) => {
                 const main = document.querySelector("main");
                 const field = document.querySelector("input[name=item], input[name=position]");
                 return main && document.readyState === "complete"
                   && (main.dataset.step !== step || (field ? field.value : null) !== value);
               }""",
            arg=list(before),
        )

    def begin(self) -> None:
        """From the consent page to the first trial."""
        self.consent()
        while self.step == "prescreen":
            self.count()
        assert self.step == "instructions"
        self.hear("volume")
        self.go_on()

    def begin_quickly(self) -> None:
        """Like `begin`, but with fetched and posted steps, because another test listens to them."""
        self.consent()
        while self.step == "prescreen":
            self.post_count()
        self.post("instructions")

    def post_count(self, error: int = 0) -> None:
        self.post("prescreen", item=self.page.input_value("input[name=item]"), count=str(self.tones() + error))

    def post(self, step: str, **fields: str) -> None:
        """Post to a step without the page's script, then open the page."""
        assert self.page.request.post(f"{self.page.url}/{step}", form=dict(fields), headers=QUICK).ok
        self.page.reload()

    def tones(self) -> int:
        source = self.page.locator("audio[data-clip=tones]").get_attribute("src")
        sound = self.page.request.get(self.site + str(source)).body()
        return answer_by_ear("tones", sound, LOUDSPEAKERS, np.random.default_rng())

    def compare(self, choice: str) -> None:
        for clip in ("X", "A", "B"):
            self.hear(clip)
        self.page.check(f"input[name=choice][value={choice}]", force=True)
        self.go_on()


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Callable[..., Visit]]:
    """Open a separate browser context: `visit(PHONE)`."""
    contexts = []

    def open_one(viewport: dict[str, int]) -> Visit:
        context = browser.new_context(viewport=viewport)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        contexts.append(context)
        opened = Visit(context.new_page(), site)
        opened.page.on("console", opened.on_console)
        opened.page.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.page.on("request", opened.on_request)
        return opened

    yield open_one
    for context in contexts:
        context.close()


@contextmanager
def nothing_wrong(visit: Visit) -> Iterator[None]:
    yield
    assert visit.problems == []
    assert visit.strangers == []
    assert visit.page.context.cookies() == []


def test_a_listener_takes_the_whole_study_on_a_phone(visit: Callable[..., Visit], study: Study, site: str) -> None:
    phone = visit(PHONE)
    with nothing_wrong(phone):
        phone.page.goto(f"{site}/take")
        assert phone.fits()
        phone.begin()
        for position in range(1, TRIALS + 1):
            assert (phone.step, phone.position) == ("trial", position)
            assert phone.fits()
            phone.compare("AB"[position % 2])
        assert phone.step == "questions" and phone.fits()
        phone.page.locator("input[name=q_device]").first.check(force=True)
        phone.page.fill("textarea[name=q_remarks]", "All was <b>well</b> & clear.")
        phone.go_on()
        assert phone.step == "done" and phone.fits()
        assert len(phone.page.locator("[data-code]").inner_text()) >= 8
    rows = exported(study)
    mine = [row for row in rows if row["completed"] == "1"]
    assert [row["choice"] for row in mine] == ["B", "A", "B", "A", "B", "A"]
    assert all(int(row["response_ms"]) > 700 for row in mine), "three clips of a quarter second were heard"
    assert {row[name] for row in mine for name in ("plays_x", "plays_a", "plays_b")} == {"1"}
    high_sides = {
        trial.position: trial.high_side for trial in read_plan(study).lists[int(mine[0]["trial"].split("-")[0])]
    }
    assert all(row["agreed"] == str(int(row["choice"] == high_sides[int(row["position"])])) for row in mine)


def exported(study: Study) -> list[dict[str, str]]:
    out = study.folder / "exported"
    done = run("server", "export", study.folder, "--out", out, environment={"ROOTNOTE_SECRET": SECRET})
    assert done.returncode == 0, done.stderr
    with (out / "responses.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_no_answer_before_all_three_clips_were_heard(visit: Callable[..., Visit]) -> None:
    laptop = visit(LAPTOP)
    with nothing_wrong(laptop):
        laptop.begin_quickly()
        choices = laptop.page.locator("input[name=choice]")
        for clip in ("A", "X"):
            laptop.hear(clip)
            expect(laptop.page.locator(laptop.submit)).to_be_disabled()
            expect(choices.first).to_be_disabled()
        laptop.hear("B")
        expect(choices.first).to_be_enabled()
        expect(laptop.page.locator(laptop.submit)).to_be_disabled()
        laptop.page.check("input[name=choice][value=A]", force=True)
        expect(laptop.page.locator(laptop.submit)).to_be_enabled()


def test_reload_and_back_lead_to_where_the_listener_was(visit: Callable[..., Visit]) -> None:
    laptop = visit(LAPTOP)
    with nothing_wrong(laptop):
        laptop.begin_quickly()
        laptop.page.reload()
        laptop.compare("A")
        assert laptop.position == 2
        laptop.hear("X")
        laptop.page.reload()
        laptop.page.wait_for_selector("main[data-step=trial][data-position='2']")
        assert laptop.position == 2, "an answered trial stays answered, the next one starts again"
        expect(laptop.page.locator(laptop.submit)).to_be_disabled()
        laptop.page.go_back()
        laptop.page.wait_for_selector("main[data-step=trial][data-position='2']")
        laptop.compare("B")
        assert laptop.position == 3


def test_two_failed_attempts_end_with_a_completion_code(visit: Callable[..., Visit]) -> None:
    laptop = visit(LAPTOP)
    with nothing_wrong(laptop):
        laptop.consent()
        laptop.count(error=1)
        while laptop.step == "prescreen":
            laptop.post_count(error=1)
        assert laptop.step == "screened_out"
        assert laptop.page.locator("[data-code]").inner_text()


def test_leaving_asks_once_and_then_ends(visit: Callable[..., Visit]) -> None:
    phone = visit(PHONE)
    with nothing_wrong(phone):
        phone.begin_quickly()
        phone.page.click("footer button")
        phone.page.wait_for_selector("button.danger")
        assert phone.fits()
        phone.page.click("a.button")
        phone.page.wait_for_selector("main[data-step=trial][data-position='1']")
        phone.page.click("footer button")
        phone.page.click("button.danger")
        phone.page.wait_for_selector("main[data-step=withdrawn]")
        assert phone.page.locator("[data-code]").inner_text()
