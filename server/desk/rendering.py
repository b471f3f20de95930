"""What every page of the desk is made with: the request's session, and one way to render."""

from __future__ import annotations

from flask import g, render_template
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.audit import study_control
from server.db.models import Researcher
from server.desk import auth


def session() -> Session:
    assert isinstance(g.session, Session)
    return g.session


def present_researcher() -> Researcher:
    """Who is signed in, as the database has them now."""
    return session().get_one(Researcher, auth.researcher().id)


def render(page: str, status: int = 200, **context: object) -> WebResponse:
    """A page for who is signed in."""
    text = render_template(
        f"desk/{page}.html",
        page=page,
        control=study_control.control(session()),
        researcher=auth.researcher(),
        form=auth.form_token(),
        now=auth.now(),
        may=auth.is_permitted,
        **context,
    )
    return WebResponse(text, status=status, mimetype="text/html")


def too_many(minutes: int) -> str:
    unit = "minute" if minutes == 1 else "minutes"
    return f"Signing in did not work several times in a row. Please wait {minutes} {unit}, then try again."


def retry_later(response: WebResponse, minutes: int) -> WebResponse:
    response.status_code = 429
    response.headers["Retry-After"] = str(60 * minutes)
    return response
