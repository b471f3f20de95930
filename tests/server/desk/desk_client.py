"""A researcher's browser at the desk: signs in, opens pages and sends their forms."""

from __future__ import annotations

import html
import re
from typing import Any

import pyotp
import pytest
from werkzeug.test import Client, TestResponse

from server.accounts import users
from server.accounts.roles import Role
from server.db import database
from tests.server.conftest import Site

# For tests that do not depend on the database.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PASSWORD = "correct horse battery"
PAGES = ("", "listeners", "listeners?state=finished", "triplets", "questions", "agreement", "study", "log")


def add_researcher(site: Site, name: str = "anna", role: Role | None = None) -> None:
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        users.add(session, name, PASSWORD, site.clock.now, role)


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
        """Send a form of the page `at`."""
        form = {"form": self.form(path.partition("/")[0] if at is None else at)}
        return self.client.post(f"/desk/{path}", data={**form, **fields}, **self.options)

    def sign_in(self, name: str = "anna", password: str = PASSWORD) -> TestResponse:
        return self.send("sign-in", name=name, password=password)

    def enrol(self, password: str = PASSWORD) -> tuple[pyotp.TOTP, list[str]]:
        """Set up a second factor; returns the app with its key, and the recovery codes."""
        offer = self.send("account/factor", at="account", password=password)
        assert offer.status_code == 200, offer.text
        app = pyotp.TOTP(find(r"data-key>([A-Z2-7 ]+)<", offer.text).replace(" ", ""))
        fields = {"sealed": sealed(offer.text), "code": app.at(self.site.clock.now)}
        confirmed = self.send("account/factor/confirm", at="account", **fields)
        assert confirmed.status_code == 200, confirmed.text
        return app, re.findall(r"<li>([A-Z2-7-]{29})</li>", confirmed.text)

    def send_code(self, code: str, name: str = "anna") -> TestResponse:
        """Sign in with the password, then a code."""
        asked = self.sign_in(name)
        assert asked.status_code == 200, asked.text
        return self.send("sign-in/code", at="sign-in", sealed=sealed(asked.text), code=code)

    def signed_in(self, name: str = "anna") -> Visit:
        assert self.sign_in(name).status_code == 303
        return self


def find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, f"{pattern} not in {text}"
    return found[1]


def sealed(page: str) -> str:
    return find(r'name="sealed" value="([^"]+)"', page)


def visible(text: str) -> str:
    """A page without its form tokens, which differ between browsers."""
    return html.unescape(re.sub(r'name="form" value="\w+"', "", text))
