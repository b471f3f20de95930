"""The desk's door: who is signed in, by a cookie; what their role opens; and that a form came from a page of ours.

The cookie goes to /desk alone, is out of scripts' reach and is sent by no other site's link or form (SameSite=Strict);
by https it is Secure. Every form carries a token made from the cookie, so that no other site can make one. Before
somebody is signed in, a cookie of the sign-in form takes that place.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from flask import abort, g, redirect, render_template, request, url_for
from sqlalchemy import Engine
from werkzeug.wrappers import Response as WebResponse

from server.accounts import roles, users
from server.app_context import current_context
from server.db.database import reading, writing
from server.db.models import Researcher, SignIn
from server.identity.tokens import random_token
from server.settings import Settings

RENEW = timedelta(minutes=1)  # the desk's use is noted no oftener, so that looking writes little
FIELD_LIMIT = 128
NEEDS_ROLE = "This page or action needs another role at this desk; its owner can give it to you."
NEEDS_FACTOR = "This desk asks everybody for a second factor. Please set yours up first, under your name."


def settings() -> Settings:
    return current_context().settings


def engine() -> Engine:
    return current_context().engine


def now() -> datetime:
    return current_context().now()


def _is_secure() -> bool:
    return settings().secure or request.is_secure


def _cookie(kind: str) -> str:
    # By https the prefix keeps a page on http from planting one.
    return f"{'__Secure-' if _is_secure() else ''}rootnote-{kind}"


def _set_cookie(response: WebResponse, kind: str, value: str) -> None:
    response.set_cookie(_cookie(kind), value, path="/desk", httponly=True, secure=_is_secure(), samesite="Strict")


def _drop_cookie(response: WebResponse, kind: str) -> None:
    response.delete_cookie(_cookie(kind), path="/desk", httponly=True, secure=_is_secure(), samesite="Strict")


# ------------------------------------------------------------------ forms


def _form_token(cookie: str) -> str:
    return hmac.digest(settings().secret.encode(), f"rootnote.form:{cookie}".encode(), "sha256").hex()


def form_token() -> str:
    """What a form of this page must carry."""
    return _form_token(g.desk_cookie)


def require_own_form() -> None:
    """Refuse a form that was not made by a page of this desk in this browser."""
    cookie = request.cookies.get(_cookie("desk" if "sign_in" in g else "form"), "")
    sent = request.form.get("form", "")
    # A neighbour under the same domain could plant a cookie, but not this header.
    foreign = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    if foreign or not cookie or not hmac.compare_digest(sent.encode(), _form_token(cookie).encode()):
        abort(400)


# ------------------------------------------------------------------ being signed in


def guard() -> WebResponse | None:
    """Let only who is signed in pass, to what their role opens; others are led to the sign-in page."""
    if roles.is_open(request.endpoint):
        prepare_form()
        return None
    token = request.cookies.get(_cookie("desk"), "")[:FIELD_LIMIT]
    found = _look_up(token) if token else None
    if found is None:
        return redirect(url_for("account.sign_in"), 303)
    g.sign_in, g.desk_cookie = found, token
    if request.method == "POST":
        require_own_form()
    if is_permitted(request.endpoint):
        return None
    if not is_enrolled() and request.method == "GET":
        return redirect(url_for("account.account"), 303)
    return _refused()


def _refused() -> WebResponse:
    page = render_template(
        "desk/error.html",
        title="Not open to you",
        problem=NEEDS_ROLE if is_enrolled() else NEEDS_FACTOR,
        researcher=researcher(),
        form=form_token(),
        now=now(),
        may=is_permitted,
    )
    return WebResponse(page, status=403, mimetype="text/html")


def is_permitted(endpoint: str | None) -> bool:
    """Whether who is signed in may open a page."""
    return roles.is_allowed(researcher().role, endpoint, enrolled=is_enrolled())


def is_enrolled() -> bool:
    """Whether who is signed in has the second factor, where this server requires one."""
    return researcher().factor is not None or not settings().factor_required


def _look_up(token: str) -> SignIn | None:
    """The sign-in of a cookie, its use noted; a page that refreshes itself is no use."""
    moment = now()
    with reading(engine()) as session:
        found = users.signed_in(session, token, moment)
        if found is None:
            return None
        found.researcher  # noqa: B018 (loaded while the session is open)
        session.expunge_all()
    if moment - found.seen_at >= RENEW and "Rootnote-Live" not in request.headers:
        with writing(engine()) as session, session.begin():
            users.renew(session, found, moment)
    return found


def researcher() -> Researcher:
    """Who is signed in."""
    return g.sign_in.researcher  # type: ignore[no-any-return]


def open_form(response_of: str) -> WebResponse:
    """The sign-in page, with the cookie that its form needs."""
    response = WebResponse(response_of, mimetype="text/html")
    _set_cookie(response, "form", g.desk_cookie)
    return response


def prepare_form() -> None:
    """Take or make the cookie of the sign-in form."""
    g.desk_cookie = request.cookies.get(_cookie("form"), "")[:FIELD_LIMIT] or random_token()


def start_session(token: str) -> WebResponse:
    """Give the cookie of a sign-in and lead to the desk."""
    response = redirect(url_for("researcher.overview"), 303)
    set_sign_in(response, token)
    _drop_cookie(response, "form")
    return response


def set_sign_in(response: WebResponse, token: str) -> None:
    """Give the cookie of another sign-in with a reply."""
    _set_cookie(response, "desk", token)


def leave() -> WebResponse:
    """Take the cookie away and go to the sign-in page."""
    response = redirect(url_for("account.sign_in"), 303)
    _drop_cookie(response, "desk")
    return response
