"""Pages in every language in a real browser: they fit, are accessible, say which language they are in, and in a
script that runs from right to left are mirrored, but for sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from server.web import i18n
from study.config import Study
from study.languages import LANGUAGES
from tests.browser.conftest import QUICK
from tests.browser.test_player import WCAG
from tests.paper_study import make_study

pytestmark = pytest.mark.browser
# Pages with everything that there is on others; of other languages nothing but the words is different.
TOLD = ("consent", "huggins huggins-1-1", "answered trial", "questions again", "done")
PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
TOML = """
[player]
confidence = true
[prescreen]
steps = ["volume", "tones", "huggins", "antiphase"]
[prescreen.tones]
items = 1
required = false
[prescreen.huggins]
items = 1
threshold = 1
attempts = 1
required = false
[prescreen.antiphase]
items = 1
threshold = 1
required = false
[[questions]]
id = "device"
type = "single"
text = "What did you listen with?"
options = ["Headphones or earbuds", "Laptop or phone speakers", "External loudspeakers"]
required = true
[[questions]]
id = "age"
type = "age_band"
[[questions]]
id = "remarks"
type = "text"
text = "Is there anything we should know? (optional)"
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study in every language; one trial for 24 listeners."""
    folder = tmp_path_factory.mktemp("languages") / "study"
    made = make_study(folder, prompts=4, listeners=24, trials=1, seconds=0.1, languages=list(LANGUAGES), toml=TOML)
    for code in LANGUAGES:
        if code != "en":
            (folder / f"consent.{code}.md").write_text(f"# {i18n.catalogue(code).gettext('Continue')}\n")
    return made


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport=PHONE) as context:  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        yield context.new_page()


def walk(page: Page, site: str, code: str, look: Callable[[str], None]) -> None:
    """Visit every page and state of a study in a language; slow steps are posted without the page's script."""
    page.goto(f"{site}/take?lang={code}")
    look("consent")
    page.click("button.primary")
    page.wait_for_selector("main[data-step=prescreen][data-ready]")
    address = page.url
    while page.locator("main").get_attribute("data-step") == "prescreen":
        page.wait_for_selector("main[data-ready]")
        look(f"{page.locator('main').get_attribute('data-kind')} {page.input_value('[name=item]')}")
        pass_item(page, address)
    for path in ("technical", "leave"):
        page.goto(f"{address}/{path}")
        look(path)
    page.goto(address)
    page.wait_for_selector("main[data-step=instructions][data-ready]")
    look("instructions")
    page.request.post(f"{address}/instructions")
    page.goto(address)
    page.wait_for_selector("main[data-step=trial][data-ready]")
    look("trial")
    for clip in "XAB":
        player = page.locator("[data-player]").filter(has=page.locator(f"audio[data-clip={clip}]"))
        player.locator(".play").click()
        expect(player.locator("[data-heard]")).to_have_text(i18n.catalogue(code).gettext("Heard"))
    first_side = "ArrowRight" if LANGUAGES[code].direction == "rtl" else "ArrowLeft"
    page.keyboard.press(first_side)
    expect(page.locator(":focus")).to_have_attribute("value", "A")
    page.check("input[name=confidence][value='3']", force=True)
    page.evaluate("() => document.querySelectorAll('[data-notice]').forEach((notice) => { notice.hidden = false; })")
    look("answered trial")
    page.click("[data-submit]")
    page.wait_for_selector("main[data-step=questions]")
    look("questions")
    page.evaluate("() => document.querySelectorAll('[required]').forEach((field) => { field.required = false; })")
    page.click("[data-submit]")
    page.wait_for_selector("main [data-focus]")
    look("questions again")
    page.locator("input[name=q_device]").first.check(force=True)
    page.click("[data-submit]")
    page.wait_for_selector("main[data-step=done]")
    look("done")
    page.set_extra_http_headers({"Accept-Language": code})
    page.goto(f"{site}/nothing")
    look("error")


def pass_item(page: Page, address: str) -> None:
    """Give any answer: none of the checks is required here."""
    item = page.input_value("input[name=item]")
    form = {"item": item, "count": "0", "interval": "1", "heard": "1"}
    page.request.post(f"{address}/prescreen", form=form, headers=QUICK)
    page.goto(address)


@pytest.mark.parametrize("code", ["de", "ar"])  # pages in English are looked at elsewhere
def test_every_page_fits_and_is_accessible(page: Page, site: str, code: str) -> None:
    seen: list[str] = []
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def look(state: str) -> None:
        page.wait_for_load_state("load")
        html = page.locator("html")
        assert (html.get_attribute("lang"), html.get_attribute("dir")) == (code, LANGUAGES[code].direction), state
        # Every other page in the dark, so that each is seen in one of them in every other language.
        page.emulate_media(color_scheme="dark" if len(seen) % 2 else "light")
        for size in (LAPTOP, PHONE):
            page.set_viewport_size(size)  # type: ignore[arg-type]
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), (state, size)
        if code == "ar" and state in TOLD:
            found = Axe().run(page, options=WCAG).response["violations"]
            assert [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]] == [], state
        seen.append(state)

    walk(page, site, code, look)
    assert len(seen) >= 15 and problems == []
    assert page.context.cookies() == []


def test_right_to_left_pages_put_a_on_the_right_and_do_not_mirror_sound(page: Page, site: str) -> None:
    page.goto(f"{site}/take?lang=ar")
    page.click("button.primary")
    page.wait_for_selector("main[data-step=prescreen][data-ready]")
    address = page.url
    while page.locator("main").get_attribute("data-step") == "prescreen":
        pass_item(page, address)
    page.request.post(f"{address}/instructions")
    page.goto(address)
    page.wait_for_selector("main[data-step=trial][data-ready]")
    boxes = [page.locator(f".pair .clip:nth-of-type({number})").bounding_box() for number in (1, 2)]
    assert boxes[0] and boxes[1] and boxes[0]["x"] > boxes[1]["x"] + boxes[1]["width"]
    direction = "(selector) => getComputedStyle(document.querySelector(selector)).direction"
    assert page.evaluate(direction, ".played") == "ltr", "a sound's position"
    assert page.evaluate(direction, ".progress progress") == "rtl", "the way through the study"
    keys = page.locator(".keys kbd")
    places = {name: keys.get_by_text(name, exact=True).bounding_box() for name in ("X", "A", "B", "→", "←")}
    x = {name: box["x"] for name, box in places.items() if box}
    assert x["X"] > x["A"] > x["B"] and x["→"] > x["←"], "each comes after the one before; → is named first, for A"
    # A keyboard that writes Arabic: the keys where X, A and B are, and its own digits.
    for code, letter, clip in (("KeyX", "ء", "X"), ("KeyA", "ش", "A"), ("Digit3", "٣", "B")):
        event = "new KeyboardEvent('keydown', { code, key, bubbles: true })"
        page.evaluate(f"([code, key]) => document.body.dispatchEvent({event})", [code, letter])
        player = page.locator("[data-player]").filter(has=page.locator(f"audio[data-clip={clip}]"))
        expect(player.locator("[data-heard]")).to_have_text(i18n.catalogue("ar").gettext("Heard"))
    expect(page.locator("[data-time]").first).to_have_text("0.1 ث")
