"""All question types in a real browser: by keyboard only, with errors shown where they are, and accessible."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from study.config import Study
from tests.browser.conftest import QUICK
from tests.browser.test_player import WCAG
from tests.paper_study import make_study
from tests.server.participant.test_questions import TOML

pytestmark = pytest.mark.browser
SIZES = ({"width": 390, "height": 844}, {"width": 1280, "height": 800}, {"width": 320, "height": 640})
LONG = '[[questions]]\nid = "sure"\ntype = "scale"\ntext = "How sure?"\npoints = 11\noptions = ["Not", "Very"]\n'


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("questions") / "study"
    toml = '[prescreen]\nkind = "none"\n' + TOML + LONG
    return make_study(folder, prompts=1, listeners=6, trials=1, seconds=0.1, toml=toml)


def go_to_the_questions(page: Page, site: str) -> None:
    """Go to the questions; earlier steps are posted without the page's script."""
    page.goto(f"{site}/take")
    page.click("button.primary")
    page.wait_for_selector("main[data-step=instructions]")
    address = page.url
    assert page.request.post(f"{address}/instructions").ok
    for sound in page.request.get(address).text().split('src="/audio/')[1:]:
        page.request.get(f"{site}/audio/{sound.split(chr(34))[0]}")
    form = {"position": "1", "choice": "A", "response_ms": "9000", "plays_x": "1", "plays_a": "1", "plays_b": "1"}
    assert page.request.post(f"{address}/trial", form=form, headers=QUICK).ok  # type: ignore[arg-type]
    page.goto(address)
    page.wait_for_selector("main[data-step=questions]")


def sound(page: Page, *schemes: str) -> None:
    """Check that nothing overflows at any size and that the page is accessible on a phone and a laptop."""
    for size in SIZES:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), size
    for size, scheme in zip(SIZES, schemes, strict=False):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        _accessible(page)


def _accessible(page: Page) -> None:
    found = Axe().run(page, options=WCAG).response["violations"]
    assert [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]] == []


def answers(study: Study) -> dict[str, Any]:
    with sqlite3.connect(study.folder / "rootnote.sqlite3") as base:
        return dict(base.execute("SELECT question, value FROM answers").fetchall())


def test_questions_are_answered_with_the_keyboard_only(browser: Browser, site: str, study: Study) -> None:
    with browser.new_context(viewport=SIZES[1]) as context:  # type: ignore[arg-type]
        page = context.new_page()
        go_to_the_questions(page, site)
        sound(page, "light", "dark")
        expect(page.get_by_role("group", name="Which do you play? (choose at most 2)")).to_be_visible()
        expect(page.get_by_role("radio", name="1 Silent")).to_be_visible()
        # Tab goes from group to group; within one arrows choose, and the space bar ticks boxes.
        for keys in (
            ("Tab", "Space", "ArrowDown", "ArrowUp"),  # device: the first, the second, the first
            ("Tab", "Space", "Tab", "Space", "Tab", "Space"),  # all three boxes: one too many
            ("Tab", "ArrowRight"),  # how loud: 2
            ("Tab", *"many"),
            ("Tab", "Space"),  # the youngest band
            ("Tab", *"fine"),
        ):
            for key in keys:
                page.keyboard.press(key)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # sure: 1
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        alert = page.get_by_role("alert").filter(has_text="Please check these answers")
        expect(alert).to_be_visible()
        assert page.evaluate("() => document.activeElement.matches('[data-focus]')"), "a screen reader begins there"
        expect(page.get_by_label("How many years?")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label("Anything else?")).to_have_value("fine")
        sound(page, "dark", "light")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the summary's first link leads to the first wrong question
        assert page.evaluate("() => document.activeElement.id") == "q_plays"
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        page.get_by_label("How many years?").fill("12")
        page.keyboard.press("Enter")
        page.wait_for_selector("main[data-step=done]")
    kept = {"device": "Headphones", "plays": "Violin|Oud", "loud": "2", "years": "12", "age": "18 to 29"}
    assert answers(study) == kept | {"remarks": "fine", "sure": "1"}
