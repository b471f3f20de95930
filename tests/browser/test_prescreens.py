"""The prescreen's steps in a real browser: one channel per ear, keyboard only, no axe violations."""

from __future__ import annotations

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from server.simulation.hearing import HEADPHONES, answer_by_ear
from study.config import Study
from tests.browser.conftest import QUICK
from tests.browser.test_player import LAPTOP, WCAG
from tests.paper_study import make_study

pytestmark = pytest.mark.browser
TOML = """\
[prescreen]
steps = ["volume", "tones", "huggins", "antiphase"]
tones = { items = 1 }
huggins = { items = 1 }
antiphase = { items = 1, threshold = 1 }
[pay]
screened_out = 0.75
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("prescreens") / "study"
    return make_study(folder, prompts=6, listeners=12, trials=6, seconds=0.25, toml=TOML)


# The page's own player in an offline context, which computes at once what a listener would wait for; then the power of
# the sum and of the difference of both channels in each third of what came out.
OFFLINE = """async () => {
  const [player] = step.deck.players;
  const context = new OfflineAudioContext(2, Math.ceil((player.duration + 0.1) * 44100), 44100);
  speaker.use(context);
  context.suspend(0.01).then(() => { step.deck.switchTo(player); context.resume(); });
  const out = await context.startRendering();
  await new Promise((done) => setTimeout(done));
  speaker.context = null;
  const [left, right] = [out.getChannelData(0), out.getChannelData(1)];
  const thirds = [0, 1, 2].map(() => [0, 0]);
  left.forEach((value, index) => {
    const third = thirds[Math.min(2, Math.floor((3 * index) / left.length))];
    third[0] += (value + right[index]) ** 2;
    third[1] += (value - right[index]) ** 2;
  });
  return thirds;
}"""


def hear(page: Page) -> list[list[float]]:
    page.wait_for_selector("main[data-ready]")
    thirds = page.evaluate(OFFLINE)
    expect(page.locator("main [data-heard]")).to_have_text("Heard")
    return [list(third) for third in thirds]


def right_answer(page: Page, site: str) -> int:
    data = page.request.get(site + str(page.locator("audio").get_attribute("src"))).body()
    return answer_by_ear(kind(page), data, HEADPHONES, np.random.default_rng(1))


def kind(page: Page) -> str:
    return page.locator("main").get_attribute("data-kind") or ""


def choose_by_keys(page: Page, number: int) -> None:
    """From the play button: Tab to the choices, arrow keys to the right one, Enter."""
    page.locator(".play").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    for _ in range(number - 1):
        page.keyboard.press("ArrowDown")
    expect(page.locator("input:checked")).to_have_attribute("value", str(number))
    page.keyboard.press("Enter")


def check(page: Page) -> None:
    found = Axe().run(page, options=WCAG).response["violations"]
    assert [one["id"] for one in found] == [], kind(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_every_step_with_the_keyboard_only_and_at_every_size(browser: Browser, site: str) -> None:
    # Sounds are computed at once here, and the server is told that they were waited for.
    with browser.new_context(viewport=LAPTOP, extra_http_headers=QUICK) as context:  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.goto(f"{site}/take")
        page.click("button.primary")
        page.wait_for_selector("main[data-kind=volume]")
        check(page)
        expect(page.locator("[data-submit]")).to_be_disabled()
        hear(page)
        page.keyboard.press("Tab")
        page.locator("[data-submit]").press("Enter")

        page.wait_for_selector("main[data-kind=tones]")
        for third in hear(page):
            assert third[1] == 0, "both ears get the same"
        page.fill("input[name=count]", str(right_answer(page, site)))
        page.keyboard.press("Enter")

        page.wait_for_selector("main[data-kind=huggins]")
        page.set_viewport_size({"width": 320, "height": 640})
        check(page)
        assert page.locator("[name=interval]:disabled").count() == 3, "first it is to be heard"
        target = right_answer(page, site)
        apart = [difference / both for both, difference in hear(page)]
        assert [number for number, each in enumerate(apart, start=1) if each > 1e-3] == [target]
        choose_by_keys(page, target)

        page.wait_for_selector("main[data-kind=antiphase]")
        page.emulate_media(color_scheme="dark")
        check(page)
        soft = right_answer(page, site)
        thirds = hear(page)
        [antiphase] = [number for number, third in enumerate(thirds, start=1) if third[0] < 1e-6 * third[1]]
        assert antiphase != soft, "cancels where the channels meet, and is not the softest"
        choose_by_keys(page, soft % 3 + 1)

        expect(page.locator(".notice", has_text="not quite right")).to_be_visible()
        page.wait_for_selector("main[data-ready]")
        check(page)
        # What sounds now is marked, while it does.
        page.locator(".play").press("Space")
        expect(page.locator(".sounding")).to_have_text("First tone")
        page.locator(".play").press("Space")
        expect(page.locator(".sounding")).to_have_count(0)
        hear(page)
        choose_by_keys(page, right_answer(page, site) % 3 + 1)
        page.wait_for_selector("main[data-step=screened_out]")
        expect(page.locator("main")).to_contain_text("You will be paid for your time: 0.75 US dollars.")
        check(page)
