"""What an owner does about others: who may sign in, in which role, with which second factor.

Nobody is added here, because that takes a first password, which `rootnote server user add` asks for on the host; and
nobody changes themselves, so that an owner is left. Every change asks for the owner's own password once more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Blueprint, abort, redirect, request, url_for
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from embeddings.errors import RootnoteError
from server.accounts import two_factor, users
from server.accounts.roles import Role
from server.audit import study_control
from server.db.models import LogEntry, Researcher
from server.desk import account_views, auth, rendering

blueprint = Blueprint("people", __name__, url_prefix="/desk")
blueprint.before_request(auth.guard)


@blueprint.get("/people")
def people() -> WebResponse:
    """Who may sign in."""
    found = list(rendering.session().scalars(select(Researcher).order_by(Researcher.name)))
    return rendering.render("people", people=found, last=_last_sign_ins())


def _last_sign_ins() -> dict[str, datetime]:
    query = select(LogEntry.who, func.max(LogEntry.at)).where(LogEntry.what == "signed in").group_by(LogEntry.who)
    return {row[0]: row[1] for row in rendering.session().execute(query)}


@blueprint.get("/people/<name>")
def person(name: str) -> WebResponse:
    """One of them, and what can be changed."""
    return _person_page(name)


def _person_page(name: str, problem: str = "", status: int = 200) -> WebResponse:
    found = users.find(rendering.session(), name)
    if found is None:
        abort(404)
    left = two_factor.recovery_left(found)
    return rendering.render("person", status, person=found, roles=Role, problem=problem, recovery_left=left)


@blueprint.post("/people/<name>/role")
def change_role(name: str) -> WebResponse:
    given = request.form.get("role", "")
    if given not in [*Role]:
        abort(400)
    role = Role(given)
    return _change(name, "changed the role of", f"{name}: {role}", lambda: users.change_role(_session(), name, role))


@blueprint.post("/people/<name>/factor")
def reset_factor(name: str) -> WebResponse:
    return _change(name, "reset the second factor of", name, lambda: users.drop_factor(_session(), name))


@blueprint.post("/people/<name>/remove")
def remove(name: str) -> WebResponse:
    return _change(name, "removed", name, lambda: users.remove(_session(), name))


_session = rendering.session


def _change(name: str, what: str, detail: str, act: Callable[[], None]) -> WebResponse:
    """Do it and write it into the log, both or neither."""
    problem, status = account_views.ask_password()
    if not problem and name == auth.researcher().name:
        problem, status = "Nobody changes themselves here; another owner can, or the command line on the host.", 400
    if problem:
        return _person_page(name, problem, status)
    try:
        act()
    except RootnoteError as error:
        return _person_page(name, str(error), 400)
    study_control.write_log(_session(), auth.researcher().name, what, auth.now(), detail=detail)
    return redirect(url_for("people.people"), 303)
