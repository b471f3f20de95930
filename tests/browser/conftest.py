"""A headless Chromium and a real server process with a small study."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from server.assignments.rehearsal_clock import HEADER
from server.simulation.server_process import read_address, stop
from study.config import Study
from tests.paper_study import make_study

QUICK = {HEADER: "60"}
SECRET = "a secret for tests only, 32 characters and more"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]
KNOWN = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """Chromium: ROOTNOTE_CHROMIUM or the system's; None: Playwright's own."""
    return os.environ.get("ROOTNOTE_CHROMIUM") or next(filter(None, map(shutil.which, KNOWN)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without any the tests fail."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Six trials of quarter-second clips, for eighteen listeners; the prescreen has few tones, so it is short too."""
    return make_study(
        tmp_path_factory.mktemp("browser") / "study",
        prompts=6,
        listeners=18,
        trials=6,
        seconds=0.25,
        toml="[prescreen]\nmin_tones = 1\nmax_tones = 3\n",
    )


@pytest.fixture(scope="module")
def site(study: Study) -> Iterator[str]:
    """The address of a server, in a rehearsal: a test may skip pages by stating the time it would have taken (QUICK).

    What the page's own script sends has no such header, so the server's clock decides there as in a real study.
    """
    environment = {**os.environ, "ROOTNOTE_SECRET": SECRET}
    environment.pop("ROOTNOTE_DATABASE_URL", None)
    environment["ROOTNOTE_REHEARSAL_DATABASE_URL"] = f"sqlite:///{study.folder / 'rootnote.sqlite3'}"
    command = [sys.executable, "-m", "rootnote", "server"]
    subprocess.run(
        [*command, "migrate", str(study.folder), "--rehearsal"], env=environment, check=True, capture_output=True
    )
    log = (Path(study.folder) / "server.log").open("w")
    run = [*command, "run", str(study.folder), "--rehearsal", "--port", "0"]
    child = subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    assert child.stdout is not None
    address = read_address(child.stdout)
    assert address, (Path(study.folder) / "server.log").read_text()
    yield address
    stop(child)
    child.stdout.close()
    log.close()
