"""The built documentation in a browser, opened as files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


def test_the_search_works_without_a_server(browser: Browser, docs: Path) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((docs / "index.html").as_uri())
    field = page.locator("input[data-md-component=search-query]")
    field.focus()
    field.press_sequentially("Bradley-Terry")
    result = page.locator(".md-search-result__link").first
    result.wait_for(timeout=20_000)
    assert page.locator(".md-search-result__link").count() >= 1
    with page.expect_navigation():
        result.click()
    assert page.url.startswith("file:") and "index.html" not in page.url
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert problems == []
    page.close()


def test_a_generated_page_has_the_options_of_commands(browser: Browser, docs: Path) -> None:
    page = browser.new_page()
    page.goto((docs / "reference" / "study.html").as_uri())
    text = page.locator("article").inner_text().partition("\nrootnote study irb")[2]
    assert "--out PATH" in text.partition("\nrootnote study recruiters")[0]
    page.close()
