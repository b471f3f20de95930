"""What a researcher meets: /desk, where the study is seen as it runs, blind to its result, and is steered.

Every page is rendered here and works without a script; a small script only fetches it again and again and puts the
live parts in place. Nothing changes by GET, but that the desk's use is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from flask import Blueprint, abort, redirect, request, url_for
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from server.app_context import current_context
from server.assignments.experiment import Experiment
from server.audit import study_control
from server.audit.study_control import ControlRefusedError
from server.db.models import AssignmentState, LogEntry
from server.desk import (
    agreement as desk_agreement,
)
from server.desk import auth, rendering
from server.desk import listeners as desk_listeners
from server.desk import overview as desk
from server.desk import questions as desk_questions
from study.design.bin_pairs import BIN_PAIRS

blueprint = Blueprint("researcher", __name__, url_prefix="/desk")
blueprint.before_request(auth.guard)
_session, _render, _present_researcher = rendering.session, rendering.render, rendering.present_researcher
LOG_PAGE = 50
PSEUDONYM_LIMIT = 64
MATRIX_TRIPLETS = 360  # above that many a table of single triplets tells nothing


def _experiment() -> Experiment:
    return current_context().experiment


@blueprint.app_template_filter("utc")
def utc(moment: datetime, form: str = "%-d %b %H:%M") -> str:
    return moment.astimezone(UTC).strftime(form)


@blueprint.app_template_filter("percent")
def percent(rate: float | None, digits: int = 0) -> str:
    return "–" if rate is None else f"{100 * rate:.{digits}f} %"


@blueprint.app_template_filter("duration")
def duration(minutes: float | None) -> str:
    """Minutes as a person says them: 48 s, 4 min 05 s, 2 h 10 min."""
    if minutes is None:
        return "–"
    seconds = round(60 * minutes)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


# ------------------------------------------------------------------ looking


@blueprint.get("/")
def overview() -> WebResponse:
    """How far the study is."""
    return _render("overview", seen=desk.overview(_session(), _experiment()))


@blueprint.get("/listeners")
def listeners() -> WebResponse:
    """Everyone, by pseudonym."""
    state = request.args.get("state", "")
    if state not in ("", *(known.value for known in AssignmentState)):
        abort(404)
    seen = desk_listeners.listeners(_session(), _experiment(), state, _page_number())
    return _render("listeners", seen=seen, state=state, states=_states())


def _states() -> list[str]:
    return [state.value for state in AssignmentState]


def _page_number() -> int:
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 6 and int(text) > 0):
        abort(404)
    return int(text)


@blueprint.get("/listeners/<pseudonym>")
def listener(pseudonym: str) -> WebResponse:
    """One listener."""
    known = pseudonym if len(pseudonym) <= PSEUDONYM_LIMIT and "\0" not in pseudonym else ""
    seen = desk_listeners.listener(_session(), _experiment(), known)
    if seen is None:
        abort(404)
    return _render("listener", seen=seen)


@blueprint.get("/triplets")
def triplets() -> WebResponse:
    """Answers to every triplet."""
    progress = desk.answers(_session(), _experiment())
    matrices = desk.matrices(progress) if len(progress) <= MATRIX_TRIPLETS else {}
    return _render("triplets", total=len(progress), matrices=matrices, spread=desk.spread(progress), pairs=BIN_PAIRS)


@blueprint.get("/questions")
def questions() -> WebResponse:
    """How often each answer to a question was given."""
    return _render("questions", tallies=desk_questions.tallies(_session(), _experiment()))


@blueprint.get("/agreement")
def agreement() -> WebResponse:
    """Agreement, once it may be seen."""
    return _agreement_page()


def _agreement_page(problem: str = "", reason: str = "", status: int = 200) -> WebResponse:
    # Not even computed while it must not be seen.
    blind = study_control.is_blind(study_control.control(_session()), _present_researcher())
    seen = None if blind else desk_agreement.agreement(_session(), _experiment())
    return _render("agreement", status, seen=seen, blind=blind, problem=problem, reason=reason)


@blueprint.post("/agreement")
def unblind() -> WebResponse:
    reason = request.form.get("reason", "")
    try:
        study_control.unblind(_session(), _present_researcher(), reason, auth.now())
    except ControlRefusedError as error:
        return _agreement_page(str(error), reason, 400)
    return redirect(url_for("researcher.agreement"), 303)


@blueprint.get("/log")
def log() -> WebResponse:
    """Who did what, when and why."""
    number, total = _page_number(), _session().scalar(select(func.count()).select_from(LogEntry)) or 0
    pages = max(1, -(-total // LOG_PAGE))
    number = min(number, pages)
    entries = select(LogEntry).order_by(LogEntry.id.desc()).limit(LOG_PAGE).offset((number - 1) * LOG_PAGE)
    return _render("log", entries=list(_session().scalars(entries)), number=number, pages_all=pages, total=total)


# ------------------------------------------------------------------ steering


@blueprint.get("/study")
def study() -> WebResponse:
    """Stop and resume, the message of the day, closing."""
    return _study_page()


def _study_page(problem: str = "", status: int = 200) -> WebResponse:
    listening = desk.listening(_session())
    return _render("study", status, problem=problem, listening=listening, given=request.form)


@blueprint.post("/study/stop")
def stop() -> WebResponse:
    return _steer(lambda who, reason: study_control.stop(_session(), who, reason, auth.now()))


@blueprint.post("/study/resume")
def resume() -> WebResponse:
    return _steer(lambda who, reason: study_control.resume(_session(), who, reason, auth.now()))


@blueprint.post("/study/message")
def message() -> WebResponse:
    text = request.form.get("message", "")
    return _steer(lambda who, reason: study_control.set_message(_session(), who, text, auth.now()))


@blueprint.post("/study/close")
def close() -> WebResponse:
    if request.form.get("confirm") != "yes":
        return _study_page("Please tick that you want to close the study for good.", 400)
    return _steer(lambda who, reason: study_control.close(_session(), who, reason, auth.now()))


def _steer(act: Callable[[str, str], None]) -> WebResponse:
    try:
        act(auth.researcher().name, request.form.get("reason", ""))
    except ControlRefusedError as error:
        return _study_page(str(error), 400)
    return redirect(url_for("researcher.study"), 303)
