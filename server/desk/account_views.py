"""What somebody at the desk does about themselves: signs in and out, sees their role, and has a second factor or not.

What changes a second factor asks for the password once more, and ends every other sign-in of theirs.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.accounts import two_factor, users
from server.accounts.two_factor import Enrolment
from server.accounts.users import TooManyAttemptsError
from server.audit import study_control
from server.desk import auth, rendering
from server.desk import sign_in as desk_sign_in
from server.desk.auth import FIELD_LIMIT
from server.desk.sign_in import CodeRequired, StaleSignInError

blueprint = Blueprint("account", __name__, url_prefix="/desk")
blueprint.before_request(auth.guard)
SEALED_LIMIT = 2048
WRONG_CODE = "This code is not right, or was used before. Please wait for the next one and try again."
WRONG_PASSWORD = "This is not your password. Please try again."  # noqa: S105 (no password)


# ------------------------------------------------------------------ signing in and out


@blueprint.get("/sign-in")
def sign_in() -> WebResponse:
    return _form_page("sign_in")


@blueprint.post("/sign-in")
def send_sign_in() -> WebResponse:
    auth.require_own_form()
    name = request.form.get("name", "").strip().lower()[:FIELD_LIMIT]
    try:
        found = desk_sign_in.try_password(name, request.form.get("password", ""))
    except TooManyAttemptsError as error:
        return rendering.retry_later(_form_page("sign_in", 429, rendering.too_many(error.minutes), name), error.minutes)
    if found is None:
        return _form_page("sign_in", 401, "This name and password do not go together. Please try again.", name)
    return _form_page("code", sealed=found.sealed) if isinstance(found, CodeRequired) else found


@blueprint.post("/sign-in/code")
def send_code() -> WebResponse:
    auth.require_own_form()
    sealed = request.form.get("sealed", "")[:SEALED_LIMIT]
    try:
        found = desk_sign_in.try_code(sealed, request.form.get("code", ""))
    except StaleSignInError:
        return _form_page("sign_in", 401, "That took too long. Please begin again with your password.")
    except TooManyAttemptsError as error:
        return rendering.retry_later(_form_page("sign_in", 429, rendering.too_many(error.minutes)), error.minutes)
    return found or _form_page("code", 401, WRONG_CODE, sealed=sealed)


def _form_page(page: str, status: int = 200, problem: str = "", name: str = "", sealed: str = "") -> WebResponse:
    form = auth.form_token()
    shown = {"page": page, "problem": problem, "name": name, "sealed": sealed, "form": form}
    response = auth.open_form(render_template(f"desk/{page}.html", **shown))
    response.status_code = status
    return response


@blueprint.post("/sign-out")
def sign_out() -> WebResponse:
    users.sign_out(rendering.session(), g.sign_in)
    _log("signed out")
    return auth.leave()


@blueprint.post("/sign-out-everywhere")
def sign_out_everywhere() -> WebResponse:
    users.sign_out_everywhere(rendering.session(), auth.researcher())
    _log("signed out everywhere")
    return auth.leave()


# ------------------------------------------------------------------ the second factor


@blueprint.get("/account")
def account() -> WebResponse:
    """Role, second factor, sign-ins."""
    return _account_page()


def _account_page(problem: str = "", status: int = 200) -> WebResponse:
    found = rendering.present_researcher()
    left = two_factor.recovery_left(found)
    required = auth.settings().factor_required
    return rendering.render("account", status, problem=problem, recovery_left=left, required=required)


@blueprint.post("/account/factor")
def begin_factor() -> WebResponse:
    """Offer a key."""
    refused = _ask_password()
    if refused is not None:
        return refused
    if rendering.present_researcher().factor is not None:
        return redirect(url_for("account.account"), 303)
    return _factor_page(two_factor.begin(_secret(), auth.researcher(), _issuer(), auth.now()))


@blueprint.post("/account/factor/confirm")
def confirm_factor() -> WebResponse:
    """Keep the offered key, when a code of it came back."""
    sealed, code = request.form.get("sealed", "")[:SEALED_LIMIT], request.form.get("code", "")
    moment, who = auth.now(), auth.researcher()
    codes = two_factor.confirm(rendering.session(), _secret(), who, sealed, code, moment)
    if codes is None:
        again = two_factor.offer_again(_secret(), who, sealed, _issuer(), moment)
        problem = "That took too long. Please begin again."
        return _factor_page(again, WRONG_CODE, 400) if again else _account_page(problem, 400)
    _log("set up a second factor")
    return _codes_page(codes)


@blueprint.post("/account/factor/recovery")
def new_recovery_codes() -> WebResponse:
    """Ten new recovery codes in place of the old."""
    refused = _ask_password()
    if refused is not None:
        return refused
    codes = two_factor.renew_recovery(rendering.session(), _secret(), auth.researcher())
    if codes is None:
        return redirect(url_for("account.account"), 303)
    _log("made new recovery codes")
    return _codes_page(codes)


@blueprint.post("/account/factor/drop")
def drop_factor() -> WebResponse:
    """Do without, or before another one is set up."""
    refused = _ask_password()
    if refused is not None:
        return refused
    users.drop_factor(rendering.session(), auth.researcher().name)
    _log("turned off their second factor")
    response = redirect(url_for("account.account"), 303)
    auth.set_sign_in(response, _only_sign_in())
    return response


def _ask_password() -> WebResponse | None:
    """The reply to who did not give the right password."""
    problem, status = ask_password()
    if not problem:
        return None
    return _account_page(problem, status)


def ask_password() -> tuple[str, int]:
    """What is wrong with the password that a form carries besides, and the status to say it with; "" where nothing."""
    try:
        right = desk_sign_in.is_password(auth.researcher().name, request.form.get("password", ""))
    except TooManyAttemptsError as error:
        return rendering.too_many(error.minutes), 429
    return ("", 200) if right else (WRONG_PASSWORD, 401)


def _factor_page(offer: Enrolment, problem: str = "", status: int = 200) -> WebResponse:
    return rendering.render("factor", status, offer=offer, problem=problem)


def _codes_page(codes: list[str]) -> WebResponse:
    """The recovery codes, this once; whoever else is signed in by this name is so no more."""
    token = g.desk_cookie = _only_sign_in()
    response = rendering.render("recovery", codes=codes)
    auth.set_sign_in(response, token)
    return response


def _only_sign_in() -> str:
    """A new sign-in in place of all; its token."""
    users.sign_out_everywhere(rendering.session(), auth.researcher())
    return users.sign_in(rendering.session(), auth.researcher(), auth.now())


def _log(what: str) -> None:
    study_control.write_log(rendering.session(), auth.researcher().name, what, auth.now())


def _secret() -> str:
    return auth.settings().secret


def _issuer() -> str:
    """What an app calls the key: several studies' keys lie there together."""
    study: Any = current_app.jinja_env.globals["study_name"]
    return f"Rootnote {study}"
