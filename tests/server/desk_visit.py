"""A researcher with a browser: signs in to the desk and sends its forms, as the page that shows them says."""

from __future__ import annotations

import html
import re
from typing import Any

from werkzeug.test import Client, TestResponse

from server import database, users
from tests.server.conftest import Site

PASSWORD = "correct horse battery"
PAGES = ("", "listeners", "listeners?state=finished", "triplets", "questions", "agreement", "study", "log")


def add_researcher(site: Site, name: str = "anna") -> None:
    with database.writing(site.app.extensions["rootnote.engine"]) as session, session.begin():
        users.add(session, name, PASSWORD, site.clock.now)


class Visit:
    """A browser at the desk."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.site, self.client, self.options = site, Client(site.app), options

    def open(self, path: str = "", **headers: str) -> TestResponse:
        return self.client.get(f"/desk/{path}", headers=headers, **self.options)

    def page(self, path: str = "") -> str:
        reply = self.open(path)
        assert reply.status_code == 200, reply.text
        return reply.text

    def form(self, path: str) -> str:
        found = re.search(r'name="form" value="(\w+)"', self.page(path))
        assert found
        return found[1]

    def send(self, path: str, at: str | None = None, **fields: str) -> TestResponse:
        """Send a form that stands on the page `at`."""
        form = {"form": self.form(path.partition("/")[0] if at is None else at)}
        return self.client.post(f"/desk/{path}", data={**form, **fields}, **self.options)

    def sign_in(self, name: str = "anna", password: str = PASSWORD) -> TestResponse:
        return self.send("sign-in", name=name, password=password)

    def signed_in(self, name: str = "anna") -> Visit:
        assert self.sign_in(name).status_code == 303
        return self


def seen(text: str) -> str:
    """A page's words without its form tokens."""
    return html.unescape(re.sub(r'name="form" value="\w+"', "", text))
