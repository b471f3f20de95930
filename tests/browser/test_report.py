"""The report in a browser: no content is cut off on a phone, on a laptop, or in print."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser

from analysis.cli import cli
from tests.analysis.report.test_html import full

pytestmark = pytest.mark.browser

# Widths of what does not fit: the page, and what scrolls by itself.
CUT = """() => {
  const wide = [...document.querySelectorAll('body, .scroll, table, figure, svg, p, li, dd')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.right > document.documentElement.clientWidth + 1 && !one.closest('.scroll');
  });
  const hidden = [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth + 1);
  const name = one => one.tagName + ' ' + one.className + ' ' + one.textContent.trim().slice(0, 60);
  return {page: wide.map(name), scrolling: hidden.map(name)};
}"""
A4 = 680  # pixels between margins of 15 mm


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    long = {"CLAP": "CLAP, music and speech, 630k, fused", "CLMR": "clmr_magnatagatune_mlp"}
    full().replace({"embedder": long}).to_csv(folder / "responses.csv", index=False)
    done = CliRunner().invoke(
        cli, ["report", str(folder / "responses.csv"), "--out", str(folder), "--compare", "paper"]
    )
    assert done.exit_code == 0, done.output
    return folder / "report.html"


def test_no_content_is_cut_off(browser: Browser, report: Path) -> None:
    for width, medium in ((390, "screen"), (1280, "screen"), (A4, "print")):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.emulate_media(media=medium)
        page.goto(report.as_uri())
        found = page.evaluate(CUT)
        assert not found["page"], (width, found)
        # On a telephone wide tables are moved sideways; on paper nobody can.
        assert not found["scrolling"] or width == 390, (width, found)
        page.close()
