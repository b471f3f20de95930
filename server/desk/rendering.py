"""Rendering the desk's pages: one function for a page, the template filters, and the common error replies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from flask import render_template
from werkzeug.wrappers import Response as WebResponse

from embeddings.wording import counted
from server.audit import study_control
from server.desk import auth, context

TABS = (
    ("desk.overview", "Overview"),
    ("desk.listeners", "Listeners"),
    ("desk.data_quality", "Data quality"),
    ("desk.triplets", "Triplets"),
    ("desk.questions", "Questions"),
    ("desk.agreement", "Agreement"),
    ("study.study", "Study"),
    ("desk.log", "Log"),
    ("users.users", "Users"),
)
ROLE_REQUIRED = "Your role does not allow this. An owner of this desk can change your role."
TWO_FACTOR_REQUIRED = "This desk requires a second factor. Please set yours up first, under your name."


def render(page: str, status: int = 200, *, tab: str = "", **values: object) -> WebResponse:
    """Render a page for the current user.

    Args:
        page: the template's name.
        tab: the name of the tab to highlight, if it is not the page's own.
    """
    control = study_control.control(context.session())
    html = render_template(f"desk/{page}.html", page=page, tab=tab or page, control=control, **_user(), **values)
    return WebResponse(html, status=status, mimetype="text/html")


def render_forbidden() -> WebResponse:
    """The page that says that the current user may not open this."""
    problem = ROLE_REQUIRED if auth.is_enrolled() else TWO_FACTOR_REQUIRED
    html = render_template("desk/error.html", title="Not allowed", problem=problem, **_user())
    return WebResponse(html, status=403, mimetype="text/html")


def _user() -> dict[str, object]:
    """The values that every page of a signed-in user needs."""
    return {
        "researcher": auth.current_user(),
        "form": auth.form_token(),
        "now": context.now(),
        "tabs": [(endpoint, title) for endpoint, title in TABS if auth.is_permitted(endpoint)],
        "may": auth.is_permitted,
    }


def too_many_attempts(minutes: int) -> str:
    return f"Too many failed attempts to sign in. Please wait {counted(minutes, 'minute')}, then try again."


def retry_later(response: WebResponse, minutes: int) -> WebResponse:
    """Turn a page into a 429 reply that says when to try again."""
    response.status_code = 429
    response.headers["Retry-After"] = str(60 * minutes)
    return response


# ------------------------------------------------------------------ template filters


def utc(moment: datetime, form: str = "%-d %b %H:%M") -> str:
    """A moment in UTC, by default as "3 Mar 14:05"."""
    return moment.astimezone(UTC).strftime(form)


def percent(rate: float | None, digits: int = 0) -> str:
    """A rate in [0, 1] as a percentage; a dash for None."""
    return "–" if rate is None else f"{100 * rate:.{digits}f} %"


def duration(minutes: float | None) -> str:
    """Minutes in readable units: 48 s, 4 min 05 s, 2 h 10 min; a dash for None."""
    if minutes is None:
        return "–"
    seconds = round(60 * minutes)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


FILTERS: dict[str, Callable[..., str]] = {"utc": utc, "percent": percent, "duration": duration, "counted": counted}
