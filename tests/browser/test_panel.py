"""A panel like CloudResearch Connect in headless Chromium: three parameters, the whole study, back to the panel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from server.simulation.server_process import read_address, stop
from study.config import Study
from tests.browser.test_whole_study import LAPTOP, PHONE, Visit
from tests.commands import run
from tests.paper_study import make_study
from tests.server.conftest import SECRET
from tests.server.recruiting.panel_study import KEY, PanelServer, panel_server, recipe

pytestmark = pytest.mark.browser
TRIALS = 2
QUICK = "[prescreen]\nitems = 1\nmin_tones = 1\nmax_tones = 3\n"


@pytest.fixture
def panel() -> Iterator[PanelServer]:
    with panel_server() as panel:
        yield panel


@pytest.fixture
def study(tmp_path: Path, panel: PanelServer, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study with the settings of the documentation, at a panel on this machine, opened."""
    toml = QUICK + recipe("CloudResearch Connect").replace("https://connect.cloudresearch.com", panel.url)
    environment = {"SECRET": SECRET, "VAULT_KEY": KEY, "PUBLIC_URL": "https://study.example.org"}
    for name, value in environment.items():
        monkeypatch.setenv(f"ROOTNOTE_{name}", value)
    monkeypatch.delenv("ROOTNOTE_DATABASE_URL", raising=False)
    study = make_study(tmp_path / "study", prompts=6, listeners=18, trials=TRIALS, seconds=0.25, toml=toml)
    for words in (["migrate"], ["open", "--dry-run"], ["open"]):
        type_command(study, *words)
    return study


def type_command(study: Study, name: str, *options: str) -> str:
    """Run a command of `rootnote server`, and keep what the terminal shows."""
    done = run("server", name, study.folder, *options)
    assert done.returncode == 0, done.stderr
    with (study.folder.parent / "terminal.txt").open("a") as file:
        file.write(f"$ {' '.join(['rootnote server', name, 'my-study', *options])}\n{done.stdout}\n")
    return done.stdout


@pytest.fixture
def site(study: Study, tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "rootnote", "server", "run", str(study.folder), "--port", "0"]
    with (tmp_path / "server.log").open("w") as log:
        child = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=log, text=True)
        assert child.stdout is not None
        yield read_address(child.stdout)
        stop(child)
        child.stdout.close()


def test_a_whole_run_from_the_panel_and_back(
    browser: Browser, site: str, panel: PanelServer, study: Study, tmp_path: Path
) -> None:
    sent = {"participantId": "5F2e", "assignmentId": "a-77", "projectId": "3b/9 ü"}
    page: Page = browser.new_page(viewport=LAPTOP)  # type: ignore[arg-type]
    visit = Visit(page, site)
    address = f"{site}/take?{urlencode(sent)}"
    page.goto(address)
    page.click("button.primary")
    page.wait_for_selector("main[data-step=prescreen]")
    own = page.url
    page.close()  # the tab is lost, and the panel's link opened again
    page = browser.new_page(viewport=LAPTOP)  # type: ignore[arg-type]
    visit = Visit(page, site)
    page.goto(address)
    assert page.url == own
    while visit.step == "prescreen":
        visit.count()
    visit.hear("volume")
    visit.go_on()
    for position in range(1, TRIALS + 1):
        assert (visit.step, visit.position) == ("trial", position)
        visit.compare("AB"[position % 2])
    page.locator("input[name=q_device]").first.check(force=True)
    visit.go_on()
    assert visit.step == "done"
    page.get_by_role("link", name="Back to CloudResearch Connect").click()
    expect(page.get_by_role("heading")).to_have_text("Welcome back")
    expected = "/participant/project/3b%2F9%20%C3%BC/complete"
    assert page.url == panel.url + expected
    assert [path for path in panel.asked if path != "/favicon.ico"] == [expected]
    page.goto(address)
    assert visit.step == "done", "whoever comes again reads that they are done"
    code = page.locator("[data-code]").inner_text()
    for size in (PHONE, LAPTOP):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert visit.fits()
        page.screenshot(path=tmp_path / f"done-{size['width']}.png", full_page=True)
    page.close()
    assert f"{code}  $1.50  reward" in type_command(study, "pay", "--yes")
    assert type_command(study, "codes") == f"code,outcome,usd\n{code},paid,1.50\n"
    for words in (["sync"], ["status"], ["close", "--yes"]):
        shown = type_command(study, *words)
    assert "paid so far $1.50" in shown
    found = json.loads(run("server", "status", study.folder, "--json").stdout)
    assert (found["listeners"]["paid"], found["money"]["paid"], found["identities"]["kept"]) == (1, "$1.50", 1)
