"""The desk's pages about the user's own account: sign in and out, and the second factor.

Changing the second factor asks for the password, and ends every other sign-in of the user.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.accounts import two_factor, users
from server.accounts.attempts import TooManyAttemptsError
from server.accounts.roles import Role
from server.accounts.two_factor import Enrolment
from server.audit import study_control
from server.db.models import Researcher
from server.desk import auth, rendering
from server.desk import sign_in as desk_sign_in
from server.desk.auth import FIELD_LIMIT
from server.desk.context import now, session, settings
from server.desk.guard import guard
from server.desk.rendering import render
from server.desk.sign_in import CodeRequired, StaleSignInError

blueprint = Blueprint("account", __name__, url_prefix="/desk")
blueprint.before_request(guard)
SEALED_LIMIT = 2048
WRONG_CODE = "This code is wrong or has already been used. Please wait for the next one and try again."
WRONG_PASSWORD = "This is not your password. Please try again."  # noqa: S105 (no password)
EXPIRED = "That took too long. Please start again."


# ------------------------------------------------------------------ signing in and out


@blueprint.get("/sign-in")
def sign_in() -> WebResponse:
    return _sign_in_page("sign_in")


@blueprint.post("/sign-in")
def send_sign_in() -> WebResponse:
    """Check name and password, and a code if it is sent with them; then sign in, or ask for a code."""
    auth.require_own_form()
    name = request.form.get("name", "").strip().lower()[:FIELD_LIMIT]
    try:
        code = request.form.get("code", "")[:FIELD_LIMIT]
        result = desk_sign_in.submit_password(name, request.form.get("password", ""), code)
    except TooManyAttemptsError as error:
        return _too_many_page(error, name)
    if result is None:
        return _sign_in_page("sign_in", 401, "Wrong name or password. Please try again.", name)
    return _sign_in_page("sign_in_code", sealed=result.sealed) if isinstance(result, CodeRequired) else result


@blueprint.post("/sign-in/code")
def send_code() -> WebResponse:
    """Check the code of the second factor, then sign in."""
    auth.require_own_form()
    sealed = request.form.get("sealed", "")[:SEALED_LIMIT]
    try:
        reply = desk_sign_in.submit_code(sealed, request.form.get("code", ""))
    except StaleSignInError:
        return _sign_in_page("sign_in", 401, "That took too long. Please start again with your password.")
    except TooManyAttemptsError as error:
        return _too_many_page(error)
    return reply or _sign_in_page("sign_in_code", 401, WRONG_CODE, sealed=sealed)


def _sign_in_page(page: str, status: int = 200, problem: str = "", name: str = "", sealed: str = "") -> WebResponse:
    values = {"page": page, "problem": problem, "name": name, "sealed": sealed, "form": auth.form_token()}
    return auth.sign_in_page(render_template(f"desk/{page}.html", with_code=status == 429, **values), status)


def _too_many_page(error: TooManyAttemptsError, name: str = "") -> WebResponse:
    page = _sign_in_page("sign_in", 429, rendering.too_many_attempts(error.minutes), name)
    return rendering.retry_later(page, error.minutes)


@blueprint.post("/sign-out")
def sign_out() -> WebResponse:
    users.sign_out(session(), g.sign_in)
    _log("signed out")
    return auth.end_sign_in()


@blueprint.post("/sign-out-everywhere")
def sign_out_everywhere() -> WebResponse:
    users.sign_out_everywhere(session(), auth.current_user())
    _log("signed out everywhere")
    return auth.end_sign_in()


# ------------------------------------------------------------------ the second factor


@blueprint.get("/account")
def account() -> WebResponse:
    """Role, second factor, sign-ins."""
    return _account_page()


def _account_page(problem: str = "", status: int = 200) -> WebResponse:
    left = two_factor.recovery_left(_stored_user())
    required, role = settings().factor_required, Role(auth.current_user().role)
    return render("account", status, problem=problem, recovery_left=left, required=required, role=role)


@blueprint.post("/account/factor")
def begin_two_factor() -> WebResponse:
    """Offer a key."""
    refused = _require_password()
    if refused is not None:
        return refused
    if _stored_user().factor is not None:
        return redirect(url_for("account.account"), 303)
    return _two_factor_page(two_factor.begin(settings().secret, auth.current_user(), _issuer(), now()))


@blueprint.post("/account/factor/confirm")
def confirm_two_factor() -> WebResponse:
    """Store the offered key, if the code belongs to it."""
    sealed, code = request.form.get("sealed", "")[:SEALED_LIMIT], request.form.get("code", "")
    secret, user, moment = settings().secret, auth.current_user(), now()
    codes = two_factor.confirm(session(), secret, user, sealed, code, moment)
    if codes is None:
        offer = two_factor.offer_again(secret, user, sealed, _issuer(), moment)
        return _two_factor_page(offer, WRONG_CODE, 400) if offer else _account_page(EXPIRED, 400)
    _log("set up a second factor")
    return _recovery_codes_page(codes)


@blueprint.post("/account/factor/recovery")
def new_recovery_codes() -> WebResponse:
    """Replace the recovery codes by ten new ones."""
    refused = _require_password()
    if refused is not None:
        return refused
    codes = two_factor.renew_recovery(session(), settings().secret, auth.current_user())
    if codes is None:
        return redirect(url_for("account.account"), 303)
    _log("made new recovery codes")
    return _recovery_codes_page(codes)


@blueprint.post("/account/factor/drop")
def remove_two_factor() -> WebResponse:
    """Turn the second factor off."""
    refused = _require_password()
    if refused is not None:
        return refused
    users.remove_two_factor(session(), auth.current_user().name)
    _log("turned off their second factor")
    response = redirect(url_for("account.account"), 303)
    auth.set_sign_in(response, _replace_sign_ins())
    return response


def _require_password() -> WebResponse | None:
    """The page that refuses a form without the right password; None if it is right."""
    problem, status = check_own_password()
    return _account_page(problem, status) if problem else None


def check_own_password() -> tuple[str, int]:
    """Check the current user's password in a form: the problem ("" if it is right) and the status of the reply."""
    try:
        right = desk_sign_in.check_password(auth.current_user().name, request.form.get("password", ""))
    except TooManyAttemptsError as error:
        return rendering.too_many_attempts(error.minutes), 429
    return ("", 200) if right else (WRONG_PASSWORD, 401)


def _two_factor_page(offer: Enrolment, problem: str = "", status: int = 200) -> WebResponse:
    return render("two_factor", status, tab="account", offer=offer, problem=problem)


def _recovery_codes_page(codes: list[str]) -> WebResponse:
    """Show the recovery codes, this once; every other sign-in of the user ends."""
    token = g.desk_cookie = _replace_sign_ins()
    response = render("recovery_codes", tab="account", codes=codes)
    auth.set_sign_in(response, token)
    return response


def _replace_sign_ins() -> str:
    """End all sign-ins of the current user and start one; its token."""
    users.sign_out_everywhere(session(), auth.current_user())
    return users.sign_in(session(), auth.current_user(), now())


def _stored_user() -> Researcher:
    """The current user's row in this request's session."""
    return session().get_one(Researcher, auth.current_user().id)


def _log(what: str) -> None:
    study_control.write_log(session(), auth.current_user().name, what, now())


def _issuer() -> str:
    """How an app names the key, next to the keys of other studies."""
    study: Any = current_app.jinja_env.globals["study_name"]
    return f"Rootnote {study}"
