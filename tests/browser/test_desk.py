"""The desk in a real browser: its pages fit, are accessible, refresh themselves, and work without scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text
from sqlalchemy.engine import URL

from server.accounts import users
from server.accounts.roles import Role
from server.db import database
from server.db.models import AssignmentState
from study.config import Study
from tests.browser.conftest import SECRET
from tests.scale import is_soak
from tests.server.desk.half_finished import fill

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"
SIZES = ({"width": 390, "height": 844}, {"width": 1280, "height": 800})
PAGES = (
    "", "listeners", "quality", "triplets", "questions", "agreement", "study", "log", "account", "users", "users/anna",
    "users/ben",
)  # fmt: skip
ENDS = {
    AssignmentState.FINISHED: 10,
    AssignmentState.SCREENED_OUT: 2,
    AssignmentState.WITHDRAWN: 1,
    AssignmentState.LISTENING: 2,
}


@pytest.fixture(scope="module")
def desk(site: str, study: Study) -> Iterator[str]:
    """The desk's address; some listeners have finished, anna is an owner and ben a monitor."""
    engine = database.connect(URL.create("sqlite", database=str(study.folder / "rootnote.sqlite3")))
    fill(engine, study, datetime.now(UTC), ENDS)
    engine.dispose()
    command = [sys.executable, "-m", "rootnote", "server", "user", "add", "anna", str(study.folder)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOTNOTE_")}
    subprocess.run(
        command,
        env=inherited | {"ROOTNOTE_SECRET": SECRET, "ROOTNOTE_DESK_PASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )
    engine = database.connect(URL.create("sqlite", database=str(study.folder / "rootnote.sqlite3")))
    with database.writing(engine) as session, session.begin():
        users.add(session, "ben", PASSWORD, datetime.now(UTC), Role.MONITOR)
    engine.dispose()
    yield f"{site}/desk/"


def sign_in(page: Page, desk: str, name: str = "anna") -> None:
    page.goto(desk)
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    if name == "anna":
        page.wait_for_selector("main[data-page=overview]")


def test_every_page_fits_and_is_accessible(browser: Browser, desk: str) -> None:
    """Every page fits at both sizes; axe reads each at one of them, in a soak at both."""
    problems: list[str] = []
    for turn, (size, scheme) in enumerate(zip(SIZES, ("light", "dark"), strict=True)):
        with browser.new_context(viewport=size, color_scheme=scheme) as context:  # type: ignore[arg-type]
            page = context.new_page()
            page.on("console", lambda message: problems.append(message.text))
            page.on("request", lambda request: problems.extend([request.url] * (not request.url.startswith(desk[:-5]))))
            sign_in(page, desk)
            listener = page.request.get(f"{desk}listeners").text().partition("/desk/listeners/")[2][:16]
            for number, path in enumerate((*PAGES, f"listeners/{listener}")):
                page.goto(desk + path)
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
                if number % 2 != turn and not is_soak():
                    continue
                problems.extend(f"{path}: {violation['id']}" for violation in Axe().run(page).response["violations"])
    assert problems == []


def test_the_overview_refreshes_itself(browser: Browser, desk: str, study: Study) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.clock.install()
        sign_in(page, desk)
        tile = page.locator(".tile", has_text="Places filled")
        expect(tile).to_contain_text("10 of 18")
        engine = database.connect(URL.create("sqlite", database=str(study.folder / "rootnote.sqlite3")))
        with engine.execution_options(writes=True).begin() as connection:
            connection.execute(
                text("UPDATE places SET filled = true WHERE id = (SELECT min(id) FROM places WHERE NOT filled)")
            )
        engine.dispose()
        page.clock.run_for(10_500)
        expect(tile).to_contain_text("11 of 18")
        page.click("[data-pause]")
        expect(page.locator("[data-pause]")).to_have_text("Resume")


def test_the_desk_works_without_scripts(browser: Browser, desk: str) -> None:
    with browser.new_context(java_script_enabled=False, viewport=SIZES[0]) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(desk)
        page.fill("#name", "anna")
        page.fill("#password", "not the password")
        page.click("button.primary")
        expect(page.get_by_role("alert")).to_contain_text("Wrong name or password")
        sign_in(page, desk)
        assert page.context.cookies()[0]["path"] == "/desk"
        page.click("nav >> text=Study")
        page.fill("#stop", "lunch")
        page.click("main button >> nth=0")
        expect(page.locator(".status")).to_contain_text("Recruiting stopped")
        page.click("main button >> nth=0")
        page.click("nav >> text=Listeners")
        page.select_option("#state", "finished")
        page.click("main button")
        expect(page.locator("main")).to_contain_text("10 listeners")
        page.click("header button")
        assert page.url.endswith("/desk/sign-in")
        page.goto(desk)
        assert page.url.endswith("/desk/sign-in")


def test_a_second_factor_can_be_set_up_and_used(browser: Browser, desk: str) -> None:
    """On a phone, with scripts (checked by axe) and without."""
    problems: list[str] = []
    with browser.new_context(viewport=SIZES[0]) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))

        def check_page() -> None:
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), page.url
            problems.extend(f"{page.url}: {violation['id']}" for violation in Axe().run(page).response["violations"])

        sign_in(page, desk, "ben")
        expect(page.locator("nav")).not_to_contain_text("Listeners")
        page.click("header >> text=ben")
        page.fill("#password-begin", PASSWORD)
        page.click("text=Set it up")
        key = page.locator("[data-key]").inner_text().replace(" ", "")
        assert page.locator(".qr svg").bounding_box()["width"] >= 200  # type: ignore[index]
        check_page()
        app, now = pyotp.TOTP(key), int(time.time())
        page.fill("#code", app.at(now))
        page.click("text=Turn it on")
        expect(page.locator("[data-codes] li")).to_have_count(10)
        check_page()
        page.click("text=I have saved them")
    with browser.new_context(viewport=SIZES[0], java_script_enabled=False) as context:  # type: ignore[arg-type]
        page = context.new_page()
        sign_in(page, desk, "ben")
        expect(page.locator("h1")).to_have_text("Your second factor")
        page.fill("#code", app.at(now))
        page.click("button.primary")
        expect(page.get_by_role("alert")).to_contain_text("already been used")
        page.fill("#code", app.at(now + 30))
        page.click("button.primary")
        expect(page.locator("h1")).to_have_text("Overview")
        page.goto(f"{desk}listeners")
        expect(page.locator("h1")).to_have_text("Not allowed")
    assert problems == []


def test_the_desk_cannot_be_framed(browser: Browser, desk: str, tmp_path: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        (tmp_path / "frame.html").write_text(f'<iframe src="{desk}sign-in"></iframe>')
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto((tmp_path / "frame.html").as_uri())
