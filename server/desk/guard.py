"""The guard before every page and form of the desk."""

from __future__ import annotations

from flask import redirect, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.accounts import roles
from server.desk import auth, rendering


def guard() -> WebResponse | None:
    """Let signed-in users open what their role allows; redirect everyone else to the sign-in page.

    Each blueprint calls it before a request. None: the page may be opened.
    """
    if roles.is_public(request.endpoint):
        auth.prepare_sign_in_form()
        return None
    if not auth.load_sign_in():
        return redirect(url_for("account.sign_in"), 303)
    if request.method == "POST":
        auth.require_own_form()
    if auth.is_permitted(request.endpoint):
        return None
    if not auth.is_enrolled() and request.method == "GET":
        return redirect(url_for("account.account"), 303)
    return rendering.render_forbidden()
