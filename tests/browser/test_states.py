"""Every page that ends or interrupts a study, in a real browser: it fits, is accessible, and has one heading.

The application produces the pages by the events that lead to them; the browser shows them unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route
from sqlalchemy import make_url

from server.app import create_app
from server.audit import study_control
from server.db import database
from server.participant import views
from server.settings import Settings
from study.languages import LANGUAGES
from tests.browser.test_player import WCAG
from tests.server.conftest import SECRET, FakeClock, Site, Walker
from tests.server.small_study import make_study

pytestmark = pytest.mark.browser


def make_site(folder: Path, **options: int) -> Site:
    """A separate site in every language, without a prescreen."""
    (folder / "study").mkdir(parents=True)
    for code in LANGUAGES:
        (folder / "study" / f"consent.{code}.md").write_text("No heading.\n")
    toml = "[prescreen]\nsteps = []\n"
    study = make_study(folder / "study", trials=1, languages=list(LANGUAGES), toml=toml, **options)
    url, clock = make_url(f"sqlite:///{folder / 'a.sqlite3'}"), FakeClock()
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    settings = Settings(url, SECRET, requests_per_second=0)
    return Site(study, create_app(study, settings, clock=clock), clock, str(url))


def steer(site: Site, act: Callable[..., None]) -> None:
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        act(session, "anna", "because it is a test", site.clock.now)


def ends(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The pages in a language, by state."""
    site = make_site(folder / "one", listeners=7)
    query, pages = f"?lang={code}", {}

    def walk() -> Walker:
        return site.walker().open(query).agree()

    for name, path, fields in (("withdrawn", "leave", {"confirm": "yes"}), ("technical", "technical", {})):
        pages[name] = walk().go(path, **fields).html
    pages |= _rights(walk(), query)
    consent = site.walker().open(query + "&worker=W")
    pages["consent"] = consent.html
    pages["consent text"] = consent.client.get(consent.find(r'href="(/consent/[0-9a-f]{64}[^"]*)"')).text
    site.walker().open(query + "&worker=W").agree()
    pages["taken"] = site.walker().open(query + "&worker=W").agree().html
    slow = walk()
    pages["refused"] = slow.post("trial", choice="C").text
    pages["too long"] = slow.post("questions", q_remarks="x" * 70_000).text
    monkeypatch.setattr(views.steps, "current_step", lambda *_: 1 / 0)
    pages["failed"] = slow.reload().html
    monkeypatch.undo()
    pages["nothing"] = site.walker().client.get(f"/nothing{query}").text
    while (one := site.walker().open(query)).step == "consent":
        one.agree()
    pages["full"] = one.html
    site.clock.advance(90)
    walk()
    pages["expired"] = slow.reload().html
    steer(site, study_control.stop)
    pages["paused"] = site.walker().open(query).html
    steer(site, study_control.close)
    pages["closed"] = site.walker().open(query).html
    site.app.extensions["rootnote"].engine.dispose()
    return pages


def _rights(walker: Walker, query: str) -> dict[str, str]:
    """The pages of a listener's data rights, and their results."""
    pages = {"leave": walker.client.get(f"{walker.address}/leave").text}
    walker.go("leave", confirm="yes")
    pages["withdraw"] = walker.client.get(f"/withdraw{query}").text
    pages["wrong code"] = walker.client.post(f"/withdraw{query}", data={"code": "nobody's"}).text
    pages["withdraw here"] = walker.client.get(f"{walker.address}/withdraw").text
    pages["withdraw asked"] = walker.client.post("/withdraw", data={"code": walker.code}).text
    pages["access"] = walker.client.get(f"/accessibility{query}").text
    pages["erased"] = walker.client.post("/withdraw", data={"code": walker.code, "confirm": "yes"}).text
    pages["erased end"] = walker.reload().html
    return pages


@pytest.mark.parametrize("code", ["de", "ar"])
def test_every_end_fits_and_is_accessible(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    pages = ends(tmp_path, code, monkeypatch)
    shown = {name: f'lang="{code}" dir="{LANGUAGES[code].direction}"' in html for name, html in pages.items()}
    assert all(shown.values()), shown
    folder = Path(views.__file__).parents[1] / "static"

    def serve(route: Route) -> None:
        name = route.request.url.partition("/page/")[2]
        file = folder / route.request.url.rpartition("/")[2].partition("?")[0]
        if name:
            route.fulfill(body=pages[name.replace("%20", " ")], content_type="text/html")
        else:
            route.fulfill(path=file) if file.is_file() else route.abort()

    with browser.new_context(viewport={"width": 320, "height": 640}) as context:
        page = context.new_page()
        page.route("**/*", serve)
        for number, name in enumerate(pages):
            page.emulate_media(color_scheme="dark" if number % 2 else "light")
            page.goto(f"http://study.test/page/{name}")
            assert page.locator("h1").count() == 1, name
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), name
            if code == "ar":
                found = Axe().run(page, options=WCAG).response["violations"]
                assert [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]] == [], name
