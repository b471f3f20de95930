"""Authentication at the desk: who is signed in (a cookie), what their role allows, and CSRF protection of forms.

The cookie is sent to /desk only, is invisible to scripts and is not sent with another site's links or forms
(SameSite=Strict); over https it is Secure. Every form carries a token derived from the cookie, which no other site can
make. On the sign-in page, before there is a sign-in, a separate cookie serves this purpose.
"""

from __future__ import annotations

import hmac
from datetime import timedelta

from flask import abort, g, redirect, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.accounts import roles, users
from server.accounts.two_factor import KeyCipher
from server.db.database import reading, writing
from server.db.models import Researcher, SignIn
from server.desk import context
from server.identity.tokens import random_token, sha256

RENEW_INTERVAL = timedelta(minutes=1)  # use of the desk is recorded at most this often, so that reading writes little
FIELD_LIMIT = 128
DEVICE_SECONDS, DEVICE_LIMIT = 180 * 24 * 3600, 1024


def _is_secure() -> bool:
    return context.settings().secure or request.is_secure


def _cookie_name(kind: str) -> str:
    # Over https, the prefix prevents a page on http from planting one.
    return f"{'__Secure-' if _is_secure() else ''}rootnote-{kind}"


def _set_cookie(response: WebResponse, kind: str, value: str, max_age: int | None = None) -> None:
    name, secure = _cookie_name(kind), _is_secure()
    response.set_cookie(name, value, max_age, path="/desk", httponly=True, secure=secure, samesite="Strict")


def _delete_cookie(response: WebResponse, kind: str) -> None:
    response.delete_cookie(_cookie_name(kind), path="/desk", httponly=True, secure=_is_secure(), samesite="Strict")


# ------------------------------------------------------------------ forms


def _form_token(cookie: str) -> str:
    return hmac.digest(context.settings().secret.encode(), f"rootnote.form:{cookie}".encode(), "sha256").hex()


def prepare_sign_in_form() -> None:
    """Take the cookie of the sign-in form from the browser, or make one."""
    g.desk_cookie = request.cookies.get(_cookie_name("form"), "")[:FIELD_LIMIT] or random_token()


def form_token() -> str:
    """The token that the forms of this page must carry."""
    return _form_token(g.desk_cookie)


def require_own_form() -> None:
    """Refuse a form that was not made by a page of this desk in this browser."""
    cookie = request.cookies.get(_cookie_name("desk" if "sign_in" in g else "form"), "")
    sent = request.form.get("form", "")
    # A site on the same parent domain could plant a cookie, but not this header.
    foreign = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    if foreign or not cookie or not hmac.compare_digest(sent.encode(), _form_token(cookie).encode()):
        abort(400)


# ------------------------------------------------------------------ the current user


def is_permitted(endpoint: str | None) -> bool:
    """Whether the current user may open a page."""
    return roles.is_allowed(current_user().role, endpoint, enrolled=is_enrolled())


def is_enrolled() -> bool:
    """Whether the current user has a second factor, if this server requires one."""
    return current_user().factor is not None or not context.settings().factor_required


def current_user() -> Researcher:
    """The user who is signed in, as loaded before the request's own session."""
    return g.sign_in.researcher  # type: ignore[no-any-return]


def load_sign_in() -> bool:
    """Load the sign-in of the browser's cookie; False if there is none or it has expired.

    Its use is recorded, unless a page is only refreshing itself.
    """
    token = request.cookies.get(_cookie_name("desk"), "")[:FIELD_LIMIT]
    current = _find_sign_in(token) if token else None
    if current is None:
        return False
    g.sign_in, g.desk_cookie = current, token
    return True


def _find_sign_in(token: str) -> SignIn | None:
    now = context.now()
    with reading(context.engine()) as session:
        current = users.find_sign_in(session, token, now)
        if current is None:
            return None
        current.researcher  # noqa: B018 (loaded while the session is open)
        session.expunge_all()
    if now - current.seen_at >= RENEW_INTERVAL and "Rootnote-Live" not in request.headers:
        with writing(context.engine()) as session, session.begin():
            users.renew(session, current, now)
    return current


# ------------------------------------------------------------------ known devices


def known_device(user: Researcher) -> str:
    """The random id of this browser if this user has signed in with it, under the present password; "" otherwise."""
    sealed = request.cookies.get(_cookie_name("device"), "")[:DEVICE_LIMIT]
    found = _device_cipher().open(sealed, context.now(), DEVICE_SECONDS) if sealed else None
    if found is None or any(found.get(key) != value for key, value in _owner(user).items()):
        return ""
    return str(found["device"])


def _owner(user: Researcher) -> dict[str, str]:
    return {"name": user.name, "hash": sha256(user.password_hash)[:16]}


def _device_cipher() -> KeyCipher:
    return KeyCipher(context.settings().secret, "device")


# ------------------------------------------------------------------ replies that set or delete cookies


def sign_in_page(html: str, status: int) -> WebResponse:
    """A page before the sign-in, with the cookie that its form needs."""
    response = WebResponse(html, status=status, mimetype="text/html")
    _set_cookie(response, "form", g.desk_cookie)
    return response


def begin_sign_in(token: str, user: Researcher) -> WebResponse:
    """Set the cookies of a new sign-in and of a known device, and redirect to the overview."""
    response = redirect(url_for("desk.overview"), 303)
    set_sign_in(response, token)
    sealed = _device_cipher().seal({**_owner(user), "device": random_token()}, context.now())
    _set_cookie(response, "device", sealed, max_age=DEVICE_SECONDS)
    _delete_cookie(response, "form")
    return response


def set_sign_in(response: WebResponse, token: str) -> None:
    """Set the cookie of a sign-in."""
    _set_cookie(response, "desk", token)


def end_sign_in() -> WebResponse:
    """Delete the cookie and redirect to the sign-in page."""
    response = redirect(url_for("account.sign_in"), 303)
    _delete_cookie(response, "desk")
    return response
