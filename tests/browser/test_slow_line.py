"""A slow line: with 1.6 Mbit/s and 100 ms, trials of three seconds a clip can be played in time, from a cold cache."""

from __future__ import annotations

import math
import time

import pytest
from playwright.sync_api import Browser, Page, expect

from study.config import Study
from study.trial_plan import read_plan
from tests.paper_study import make_study

pytestmark = pytest.mark.browser
LINE = {"offline": False, "latency": 100, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 1.6e6 / 8}
SECONDS, TRIALS = 3.0, 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two trials with clips of the usual length; the only prescreen step sets the volume."""
    folder = tmp_path_factory.mktemp("slow") / "study"
    toml = '[prescreen]\nsteps = ["volume"]\n'
    return make_study(folder, prompts=6, listeners=18, trials=TRIALS, seconds=SECONDS, toml=toml)


def shown(page: Page, position: int) -> float:
    """Wait until a trial can be played; how long that took."""
    began = time.monotonic()
    page.wait_for_selector(f"main[data-step=trial][data-position='{position}'][data-ready]")
    return time.monotonic() - began


def test_trials_can_be_played_in_time(browser: Browser, study: Study, site: str) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(30_000)
        page = context.new_page()
        line = context.new_cdp_session(page)
        line.send("Network.enable")
        line.send("Network.emulateNetworkConditions", LINE)
        page.goto(f"{site}/take")
        page.click("button.primary")
        page.get_by_role("button", name="Play").first.click()
        page.locator("[data-submit]:enabled").click()
        page.wait_for_selector("main[data-step=instructions]")
        # Nothing of the first trial is there yet: the listener does not read the instructions.
        page.locator("[data-submit]:enabled").click()
        first = shown(page, 1)
        for clip in ("X", "A", "B"):
            page.get_by_role("button", name=f"Play {clip}").click()
            player = page.locator("[data-player]").filter(has=page.locator(f"audio[data-clip={clip}]"))
            expect(player.locator("[data-heard]")).to_have_text("Heard", timeout=10_000)
        page.check("input[name=choice][value=A]", force=True)
        page.locator("[data-submit]:enabled").click()
        second = shown(page, 2)
    assert (first <= 5.0, second <= 0.5) == (True, True), f"{first:.2f} s, {second:.2f} s"


def test_the_consent_page_states_the_size_of_the_sounds(browser: Browser, study: Study, site: str) -> None:
    """What the server sends to a listener, counted by the browser."""
    clips = 3 * TRIALS * (44 + 2 * round(SECONDS * 44100))
    assert read_plan(study).bytes_per_listener == clips
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/take")
        with page.expect_response("**/audio/*") as reply:
            page.click("button.primary")
        volume = len(reply.value.body())
        page.goto(f"{site}/take")
        stated = page.locator("[data-megabytes]").inner_text()
    assert f"about {math.ceil((clips + 2 * volume) / 1e6)} MB" in stated
