"""The desk's control of the study: stop and resume recruiting, set the message of the day, close the study."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.audit import study_control
from server.audit.study_control import ControlRefusedError
from server.desk import auth, overview
from server.desk.context import now, session
from server.desk.guard import guard
from server.desk.rendering import render

blueprint = Blueprint("study", __name__, url_prefix="/desk/study")
blueprint.before_request(guard)


@blueprint.get("")
def study() -> WebResponse:
    """The page with all the forms."""
    return _study_page()


def _study_page(problem: str = "", status: int = 200) -> WebResponse:
    listening = overview.count_listening(session())
    return render("study", status, problem=problem, listening=listening, given=request.form)


@blueprint.post("/stop")
def stop() -> WebResponse:
    return _change(lambda who, reason: study_control.stop(session(), who, reason, now()))


@blueprint.post("/resume")
def resume() -> WebResponse:
    return _change(lambda who, reason: study_control.resume(session(), who, reason, now()))


@blueprint.post("/message")
def message() -> WebResponse:
    text = request.form.get("message", "")
    return _change(lambda who, reason: study_control.set_message(session(), who, text, now()))


@blueprint.post("/close")
def close() -> WebResponse:
    if request.form.get("confirm") != "yes":
        return _study_page("Please tick “Close it permanently” to close the study.", 400)
    return _change(lambda who, reason: study_control.close(session(), who, reason, now()))


def _change(act: Callable[[str, str], None]) -> WebResponse:
    """Call `act` with the current user's name and the reason they gave."""
    try:
        act(auth.current_user().name, request.form.get("reason", ""))
    except ControlRefusedError as error:
        return _study_page(str(error), 400)
    return redirect(url_for("study.study"), 303)
