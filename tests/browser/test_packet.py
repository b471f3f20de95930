"""The board packet of a small study, as the command makes it: every screen is there, and both files are accessible."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from server.irb import screen_list
from server.irb.screen_list import Screen, check_screens
from study.languages import LANGUAGES
from tests.browser.test_player import WCAG
from tests.paper_study import make_study
from tests.server.irb.test_packet import SECTIONS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
OFFERED = ("ar",)
# What only a marketplace's listeners meet.
ELSEWHERE = {screen_list.PREVIEW, screen_list.OWED, screen_list.WAITING}
TOML = """\
[prescreen]
steps = ["tones"]
[prescreen.tones]
items = 1
[[questions]]
id = "age"
type = "age_band"
required = true
"""


@pytest.fixture(scope="module")
def packet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command wrote, in a separate process because Playwright is in use in this one."""
    folder = tmp_path_factory.mktemp("packet")
    study = make_study(folder / "study", prompts=6, listeners=6, trials=6, toml=TOML, languages=OFFERED)
    study.text("consent", "ar").write_text("# عن هذه الدراسة\n\nستقارنون أصواتا قصيرة.\n", encoding="utf-8")
    command = [sys.executable, "-m", "rootnote", "study", "irb", str(study.folder), "--out", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ROOTNOTE_SECRET": ""})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(path.name for path in study.folder.iterdir() if "sqlite" in path.name) == [], "no database was made"
    return folder / "out"


def expected() -> list[str]:
    """The titles of all screens, including those of the listening check."""
    known = [screen for screen in vars(screen_list).values() if isinstance(screen, Screen) and screen not in ELSEWHERE]
    first, _, again = check_screens("tones")
    return sorted(screen.title for screen in [*known, first, again])


def test_every_screen_has_a_screenshot_in_every_language_and_width(packet: Path) -> None:
    page = (packet / "packet.html").read_text(encoding="utf-8")
    parts = re.split(r"<h3>In ([^<]+)</h3>", page)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert found.keys() == {LANGUAGES[code].english for code in OFFERED}
    for part in found.values():
        assert sorted(re.findall(r"<strong>\d+\. ([^<]+)</strong>", part)) == expected()
        assert part.count('class="laptop"') == part.count('class="phone"') == len(expected())
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(set(pictures)) == len(pictures), "no two pages look the same"
    assert (packet / "packet.html").stat().st_size < 8e6


def test_the_page_is_accessible_and_the_pdf_is_tagged_with_bookmarks(browser: Browser, packet: Path) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.goto((packet / "packet.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = Axe().run(page, options=WCAG).response["violations"]
        assert [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]] == []
    pdf = (packet / "packet.pdf").read_bytes()
    assert b"/Marked true" in pdf and b"/StructTreeRoot" in pdf and b"/Outlines" in pdf and b"/Lang (en)" in pdf
    for number, title in enumerate(SECTIONS, start=1):
        assert f"/Title ({number}. {title})".encode() in pdf
    assert pdf.count(b"/Alt (") >= 2 * len(OFFERED) * len(expected())
    assert len(pdf) < 8e6
