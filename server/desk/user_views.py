"""The desk's pages for owners: who may sign in, with which role and second factor.

Users are added on the host (`rootnote server user add`), because that needs a first password. Users cannot change their
own account here, so that an owner always remains. Every change asks for the owner's own password.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Blueprint, abort, redirect, request, url_for
from flask.blueprints import BlueprintSetupState
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from embeddings.errors import RootnoteError
from server.accounts import two_factor
from server.accounts import users as accounts
from server.accounts.roles import Role
from server.audit import study_control
from server.db.models import LogEntry, Researcher
from server.desk import account_views, auth
from server.desk.context import now, session
from server.desk.guard import guard
from server.desk.rendering import render

blueprint = Blueprint("users", __name__, url_prefix="/desk/users")
blueprint.before_request(guard)


@blueprint.record_once
def _redirect_old_addresses(state: BlueprintSetupState) -> None:
    """Redirect the addresses that these pages had up to version 0.1.0."""
    state.app.add_url_rule("/desk/people", endpoint="users.users", alias=True)
    state.app.add_url_rule("/desk/people/<name>", endpoint="users.user", alias=True)


@blueprint.get("")
def users() -> WebResponse:
    """Everyone who may sign in."""
    found = list(session().scalars(select(Researcher).order_by(Researcher.name)))
    return render("users", users=found, last_sign_ins=_last_sign_ins())


def _last_sign_ins() -> dict[str, datetime]:
    query = select(LogEntry.who, func.max(LogEntry.at)).where(LogEntry.what == "signed in").group_by(LogEntry.who)
    return {row[0]: row[1] for row in session().execute(query)}


@blueprint.get("/<name>")
def user(name: str) -> WebResponse:
    """One user, with the forms to change their account."""
    return _user_page(name)


def _user_page(name: str, problem: str = "", status: int = 200) -> WebResponse:
    found = accounts.find(session(), name)
    if found is None:
        abort(404)
    left = two_factor.recovery_left(found)
    return render("user", status, tab="users", user=found, roles=Role, problem=problem, recovery_left=left)


@blueprint.post("/<name>/role")
def change_role(name: str) -> WebResponse:
    wanted = request.form.get("role", "")
    if wanted not in [*Role]:
        abort(400)
    role = Role(wanted)
    return _change(name, "changed the role of", f"{name}: {role}", lambda: accounts.change_role(session(), name, role))


@blueprint.post("/<name>/factor")
def reset_two_factor(name: str) -> WebResponse:
    return _change(name, "reset the second factor of", name, lambda: accounts.remove_two_factor(session(), name))


@blueprint.post("/<name>/remove")
def remove(name: str) -> WebResponse:
    return _change(name, "removed the user", name, lambda: accounts.remove(session(), name))


def _change(name: str, what: str, detail: str, act: Callable[[], None]) -> WebResponse:
    """Change another user's account and log it, both or neither."""
    problem, status = account_views.check_own_password()
    if not problem and name == auth.current_user().name:
        problem, status = (
            "You cannot change your own account here; another owner can, or use the command line on the host.",
            400,
        )
    if problem:
        return _user_page(name, problem, status)
    try:
        act()
    except RootnoteError as error:
        return _user_page(name, _sentence(str(error)), 400)
    study_control.write_log(session(), auth.current_user().name, what, now(), detail=detail)
    return redirect(url_for("users.users"), 303)


def _sentence(message: str) -> str:
    """An error of the command line as a sentence on a page."""
    return message[0].upper() + message[1:]
