"""The player and its pages in a real browser: what counts as heard, keys, size, accessibility, lost connections.

Sounds switch at the current position (`position`), and listeners state their confidence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect

from study.config import Study
from tests.browser.conftest import QUICK
from tests.paper_study import make_study

pytestmark = pytest.mark.browser
SECONDS, RATE, TRIALS = 0.25, 44100, 3
LAPTOP = {"width": 1280, "height": 800}
LINE = {"offline": False, "latency": 40, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three trials for 24 listeners, no prescreen."""
    toml = '[prescreen]\nkind = "none"\n[player]\nswitching = "position"\nconfidence = true\n'
    folder = tmp_path_factory.mktemp("player") / "study"
    return make_study(folder, prompts=12, listeners=24, trials=TRIALS, seconds=SECONDS, toml=toml)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport=LAPTOP) as opened:  # type: ignore[arg-type]
        opened.set_default_timeout(15_000)
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def arrive(page: Page, site: str) -> None:
    """From the link to the instructions."""
    page.goto(f"{site}/take")
    page.click("button.primary")
    page.wait_for_selector("main[data-step=instructions][data-ready]")


def begin(page: Page, site: str, position: int = 1) -> None:
    """Go to a trial whose sounds are ready; earlier steps are posted without the page's script."""
    arrive(page, site)
    address = page.url
    assert page.request.post(f"{address}/instructions").ok
    for number in range(1, position):
        trial = page.request.get(address).text()
        for sound in trial.split('src="/audio/')[1:]:
            page.request.get(f"{site}/audio/{sound.split(chr(34))[0]}")
        heard = {f"plays_{clip}": "1" for clip in "xab"}
        form = {"position": str(number), "choice": "A", "response_ms": "9000", "confidence": "3", **heard}
        assert page.request.post(f"{address}/trial", form=form, headers=QUICK).ok  # type: ignore[arg-type]
    page.goto(address)
    shown(page, position)


def shown(page: Page, position: int) -> None:
    page.wait_for_selector(f"main[data-step=trial][data-position='{position}'][data-ready]")


def state_of(page: Page, clip: str) -> Any:
    return page.locator("[data-player]").filter(has=page.locator(f"audio[data-clip={clip}]")).locator("[data-heard]")


def hear_all(page: Page) -> None:
    for clip in ("X", "A", "B"):
        page.get_by_role("button", name=f"Play {clip}").click()
        expect(state_of(page, clip)).to_have_text("Heard")


def choose(page: Page, choice: str = "A", sure: int = 3) -> None:
    page.check(f"input[name=choice][value={choice}]", force=True)
    page.check(f"input[name=confidence][value='{sure}']", force=True)


def saved(study: Study, page: Page) -> list[dict[str, Any]]:
    """The responses in the database for the listener of this page."""
    from server.identity.tokens import sha256

    with sqlite3.connect(study.folder / "rootnote.sqlite3") as base:
        base.row_factory = sqlite3.Row
        query = "SELECT r.* FROM responses r JOIN assignments a ON a.id = r.assignment_id WHERE a.token_hash = ?"
        return [dict(row) for row in base.execute(query, [sha256(page.url.split("/a/")[1].split("/")[0])])]


# ------------------------------------------------------------------ what is rendered

# A study's own player in an offline context: time goes as fast as it can be computed, and stands still where we act.
OFFLINE = """async (acts) => {
  const context = new OfflineAudioContext(1, 44100, 44100);
  speaker.use(context);
  const { deck } = step;
  const [x, a] = deck.players;
  const runs = [];
  for (const [at, act] of acts) context.suspend(at).then(() => {
    if (act === "stop") deck.stop();
    else {
      deck.switchTo(act === "X" ? x : a);
      const { when, from } = deck.playing.run;
      runs.push({ when, from });
    }
    context.resume();
  });
  const rendered = await context.startRendering();
  await new Promise((done) => setTimeout(done));
  const samples = (buffer) => Array.from(buffer.getChannelData(0));
  return { runs, out: samples(rendered), X: samples(x.sound.buffer), A: samples(a.sound.buffer),
    plays: [x.plays, a.plays], seconds: [x.seconds, a.seconds], order: deck.order };
}"""


def render(page: Page, *acts: tuple[float, str]) -> dict[str, Any]:
    return dict(page.evaluate(OFFLINE, [list(act) for act in acts]))


def test_sounds_begin_on_a_sample_and_switch_at_the_same_position(page: Page, site: str) -> None:
    begin(page, site)
    seen = render(page, (0.1, "X"), (0.2, "A"))
    out, x, a = (np.array(seen[name], dtype=np.float32) for name in ("out", "X", "A"))
    assert len(x) == len(a) == round(SECONDS * RATE)
    first, second = (round(run["when"] * RATE) for run in seen["runs"])
    assert [run["when"] * RATE for run in seen["runs"]] == pytest.approx([first, second], abs=1e-6)
    assert seen["runs"][0]["from"] == 0
    # A goes on at the very sample at which X was when it was left, and X is as it was made until then.
    assert round(seen["runs"][1]["from"] * RATE) == second - first
    fade = round(0.01 * RATE)
    assert not out[:first].any()
    assert np.array_equal(out[first:second], x[: second - first])
    rest = a[second - first :]
    assert np.array_equal(out[second + fade + 128 : second + len(rest)], rest[fade + 128 :])
    # In between both are faded, in a straight line that sums to one.
    ramp = np.arange(fade) / fade
    mixed = x[second - first :][:fade] * (1 - ramp) + rest[:fade] * ramp
    assert np.abs(out[second : second + fade] - mixed).max() < 1e-3
    assert not out[second + len(rest) + 1 :].any()


def test_only_rendered_audio_counts_as_heard(page: Page, site: str) -> None:
    begin(page, site)
    # Left early for A, which goes on from there to its end: neither was heard, though one has ended.
    seen = render(page, (0.1, "X"), (0.2, "A"))
    assert seen["plays"] == [0, 0]
    assert sum(seen["seconds"]) == pytest.approx(SECONDS, abs=0.03)
    # The missing beginning of A and the missing end of X make both whole.
    seen = render(page, (0.1, "A"), (0.2, "X"))
    assert seen["plays"] == [1, 1]
    assert seen["order"] == "XAAX"
    # Stopped just before the end, three times: seconds add up, plays do not.
    page.reload()
    shown(page, 1)
    page.evaluate("() => { step.deck.switching = 'restart'; }")
    seen = render(page, (0.1, "X"), (0.3, "stop"), (0.4, "X"), (0.6, "A"), (0.7, "X"), (0.9, "stop"))
    assert seen["plays"] == [0, 0]
    assert seen["seconds"][0] == pytest.approx(0.54, abs=0.04)
    assert [run["from"] for run in seen["runs"]] == [0, 0, 0, 0], "here each begins at its start"
    assert render(page, (0.1, "X"))["plays"] == [1, 0]


def test_a_suspended_audio_context_plays_nothing(page: Page, site: str) -> None:
    begin(page, site)
    stand_still = "async () => { await speaker.wake(); await speaker.context.suspend(); }"
    page.evaluate(stand_still)
    page.evaluate("() => step.deck.switchTo(step.deck.players[0])")
    expect(state_of(page, "X")).to_have_text("Partly heard")
    expect(page.locator("[data-say]")).to_have_text("")
    page.get_by_role("button", name="Play X").click()
    expect(state_of(page, "X")).to_have_text("Heard")


# ------------------------------------------------------------------ keys


def test_a_trial_with_the_keyboard_only(page: Page, site: str, study: Study) -> None:
    begin(page, site)
    for key, clip, left in (("x", "X", "A, B"), ("3", "B", "A"), ("a", "A", "")):
        page.keyboard.press(key)
        expect(state_of(page, clip)).to_have_text("Heard")
        expect(page.locator("[data-say]")).to_have_text(f"{clip} is heard.{f' Still to hear: {left}.' * bool(left)}")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator(":focus")).to_have_attribute("value", "B")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    shown(page, 2)
    (row,) = saved(study, page)
    assert (row["choice"], row["confidence"], row["play_order"]) == ("B", 2, "XBA")
    assert [row[f"plays_{clip}"] for clip in "xab"] == [1, 1, 1]
    assert all(SECONDS - 0.03 < row[f"seconds_{clip}"] < SECONDS + 0.01 for clip in "xab")
    assert row["response_ms"] > 3 * 1000 * SECONDS - 100
    assert row["sample_rate"] >= 8000 and row["output_latency_ms"] is not None
    assert (row["focus_losses"], row["agent_class"]) == (0, "chrome-desktop")
    # The heading is where a screen reader goes on.
    assert page.evaluate("() => document.activeElement.tagName") == "H1"


def test_everything_is_reachable_with_tab_and_letter_keys_can_be_disabled(page: Page, site: str) -> None:
    begin(page, site)
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.innerText || ''")
        )
    assert reached[:3] == ["Play X", "Play A", "Play B"]
    assert reached[4:6] == ["Leave the study", "No sound?"]
    page.focus("[data-keys]")
    page.keyboard.press("Space")
    page.keyboard.press("x")
    assert page.evaluate("() => step.deck.wanted") is None
    page.reload()
    shown(page, 1)
    expect(page.locator("[data-keys]")).not_to_be_checked()
    page.get_by_role("button", name="Play X").press("Enter")
    expect(state_of(page, "X")).to_have_text("Heard")


def test_leaving_the_page_is_counted(page: Page, site: str, study: Study) -> None:
    begin(page, site)
    hear_all(page)
    hide = "(state) => { Object.defineProperty(document, 'hidden', { value: state, configurable: true });" \
        " document.dispatchEvent(new Event('visibilitychange')); }"  # fmt: skip
    for state in (True, True, False, True, False):
        page.evaluate(hide, state)
    choose(page)
    page.click("[data-submit]")
    shown(page, 2)
    assert [row["focus_losses"] for row in saved(study, page)] == [2]


# ------------------------------------------------------------------ the line


def test_the_next_trial_is_preloaded_on_a_slow_connection_and_pages_are_small(
    context: BrowserContext, page: Page, site: str
) -> None:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", LINE)
    arrive(page, site)

    def sounds() -> list[str]:
        return [request.url.partition("/audio/")[2] for request in asked if "/audio/" in request.url]

    page.wait_for_function("() => [...sounds.keys()].length === 4")
    assert len(set(sounds())) == 4, "the volume sound and the first trial's"
    page.evaluate("() => { step.deck.players[0].plays = 1; update(); }")  # as if it had been heard
    page.click("[data-submit]")
    for position in range(1, TRIALS + 1):
        before = len(sounds())
        shown(page, position)
        names = page.evaluate("() => [...document.querySelectorAll('audio')].map((audio) => audio.getAttribute('src'))")
        assert {name.removeprefix("/audio/") for name in names} <= set(sounds()[: before or None])
        assert len(sounds()) == len(set(sounds())), "nothing is fetched twice"
        if position < TRIALS:
            page.wait_for_function("() => step.main.dataset.next.split(' ').every((address) => sounds.has(address))")
            hear_all(page)
            choose(page)
            page.click("[data-submit]")
    assert len(sounds()) == 1 + 3 * TRIALS
    assert all(request.url.startswith(f"{site}/") for request in asked)
    weight = {r.url: r.sizes()["responseBodySize"] + r.sizes()["responseHeadersSize"] for r in asked if r.response()}
    assert sum(size for url, size in weight.items() if "/audio/" not in url) < 150_000, "of all these pages together"


def test_an_answer_whose_reply_was_lost_is_sent_again_and_saved_once(page: Page, site: str, study: Study) -> None:
    begin(page, site)
    hear_all(page)
    choose(page)
    lost = []

    def lose(route: Route) -> None:
        lost.append(route.request.post_data)
        if len(lost) == 1:
            route.fetch(max_redirects=0)  # it reaches the server; nobody hears of it
            route.abort()
        else:
            route.continue_()

    page.route("**/trial", lose)
    page.click("[data-submit]")
    expect(page.get_by_text("The connection is lost.")).to_be_visible()
    assert page.locator("main").get_attribute("data-position") == "1", "no page moves on before it is acknowledged"
    shown(page, 2)
    assert lost[0] == lost[1]
    assert [row["position"] for row in saved(study, page)] == [1]
    expect(page.get_by_text("The connection is lost.")).to_be_hidden()


def test_an_answer_survives_a_closed_page(context: BrowserContext, page: Page, site: str, study: Study) -> None:
    begin(page, site)
    hear_all(page)
    choose(page, "B")
    page.route("**/trial", lambda route: route.abort())
    page.click("[data-submit]")
    expect(page.get_by_text("The connection is lost.")).to_be_visible()
    address = page.url
    page.close()
    again = context.new_page()
    again.goto(address)
    shown(again, 2)
    assert [(row["position"], row["choice"]) for row in saved(study, again)] == [(1, "B")]
    assert again.evaluate("() => localStorage.length") == 0


def test_another_device_continues_in_the_same_place(browser: Browser, page: Page, site: str, study: Study) -> None:
    begin(page, site, position=2)
    hear_all(page)
    choose(page)
    with browser.new_context() as elsewhere:
        other = elsewhere.new_page()
        other.goto(page.url)
        shown(other, 2)
        hear_all(other)
        choose(other, "B", 5)
        other.click("[data-submit]")
        shown(other, 3)
    # The first device is behind: its answer changes nothing, and it is led on.
    page.click("[data-submit]")
    shown(page, 3)
    assert [(row["choice"], row["confidence"]) for row in saved(study, page)] == [("A", 3), ("B", 5)]


# ------------------------------------------------------------------ where sounds cannot be played


@pytest.mark.parametrize("fault", ["codec", "web audio"])
def test_without_sound_there_is_a_way_out(page: Page, site: str, fault: str) -> None:
    if fault == "codec":
        page.route("**/audio/*", lambda route: route.fulfill(body=b"fLaC is all there is", content_type="audio/flac"))
    else:
        page.add_init_script("delete window.AudioContext; delete window.webkitAudioContext;")
    page.goto(f"{site}/take")
    page.click("button.primary")
    expect(page.get_by_role("alert")).to_contain_text("Sounds cannot be played in this browser.")
    page.get_by_role("link", name="See what you can do").click()
    expect(page.get_by_role("main")).to_contain_text("US dollars")
    page.get_by_role("button", name="I cannot hear the sounds: stop here").click()
    page.wait_for_selector("main[data-step=technical]")
    assert len(page.locator("[data-code]").inner_text()) == 10


def test_a_refused_sound_is_requested_twice_and_then_there_is_a_way_out(page: Page, site: str) -> None:
    """As by a bucket whose keys were changed: no loop, and nothing is spent of what the listener may ask for."""
    arrive(page, site)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.route("**/audio/*", lambda route: route.fulfill(status=403))
    assert page.request.post(f"{page.url}/instructions").ok
    page.goto(page.url)
    expect(page.get_by_role("alert")).to_contain_text("Sounds cannot be played")
    page.wait_for_timeout(1500)
    assert sum("/audio/" in url for url in asked) < 10, "two rounds of three, and what the page before fetched ahead"
    assert sum(url == page.url for url in asked) <= 3
    page.unroute("**/audio/*")
    page.reload()
    shown(page, 1)


# ------------------------------------------------------------------ accessibility


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=WCAG).response["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]


def test_no_page_or_state_has_an_axe_violation(page: Page, site: str) -> None:
    seen: list[str] = []

    def look(state: str) -> None:
        assert violations(page) == [], state
        seen.append(state)

    page.goto(f"{site}/take")
    look("consent")
    arrive(page, site)
    look("instructions")
    page.set_viewport_size({"width": 320, "height": 640})
    begin(page, site, position=TRIALS)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "a zoom of 400 % fits"
    look("trial")
    hear_all(page)
    choose(page)
    look("answered trial")
    page.emulate_media(color_scheme="dark")
    look("answered trial, dark")
    page.evaluate("() => document.querySelectorAll('[data-notice]').forEach((notice) => { notice.hidden = false; })")
    look("every notice")
    page.click("[data-submit]")
    page.wait_for_selector("main[data-step=questions]")
    look("questions")
    address = page.url
    for path in ("/technical", "/leave"):
        page.goto(address + path)
        look(path)
    page.get_by_role("button", name="Leave and keep my answers").click()
    page.wait_for_selector("main[data-step=withdrawn]")
    look("end")
    page.goto(f"{site}/nothing")
    look("error")
