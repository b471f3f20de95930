"""The desk's pages about the study: progress, listeners, triplets, questions, agreement, log.

Agreement is neither computed nor shown while the study must stay blind. Every page works without a script; a small
script refreshes its live parts. GET requests change nothing except when the desk was last used.
"""

from __future__ import annotations

from flask import Blueprint, abort, redirect, request, url_for
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from server.audit import study_control
from server.audit.study_control import ControlRefusedError
from server.db.models import AssignmentState, LogEntry, Researcher
from server.desk import agreement as desk_agreement
from server.desk import auth, progress, rendering
from server.desk import data_quality as desk_quality
from server.desk import listeners as desk_listeners
from server.desk import overview as desk_overview
from server.desk import questions as desk_questions
from server.desk.context import experiment, now, session
from server.desk.guard import guard
from server.desk.rendering import render
from study.data_quality import COMPONENTS
from study.design.bin_pairs import BIN_PAIRS

blueprint = Blueprint("desk", __name__, url_prefix="/desk")
blueprint.before_request(guard)
for _name, _filter in rendering.FILTERS.items():
    blueprint.add_app_template_filter(_filter, _name)
LOG_PAGE = 50
PSEUDONYM_LIMIT = 64
MATRIX_LIMIT = 360  # a table of more single triplets would not be readable


@blueprint.get("/")
def overview() -> WebResponse:
    """How far the study is."""
    return render("overview", figures=desk_overview.overview(session(), experiment()))


@blueprint.get("/listeners")
def listeners() -> WebResponse:
    """All listeners, by pseudonym."""
    states = [state.value for state in AssignmentState]
    state = request.args.get("state", "")
    if state not in ("", *states):
        abort(404)
    found = desk_listeners.listeners(session(), experiment(), state, _page_number())
    return render("listeners", listing=found, state=state, states=states)


def _page_number() -> int:
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 6 and int(text) > 0):
        abort(404)
    return int(text)


@blueprint.get("/listeners/<pseudonym>")
def listener(pseudonym: str) -> WebResponse:
    """One listener."""
    if len(pseudonym) > PSEUDONYM_LIMIT or "\0" in pseudonym:
        abort(404)
    found = desk_listeners.listener(session(), experiment(), pseudonym)
    if found is None:
        abort(404)
    return render("listener", tab="listeners", listener=found)


@blueprint.get("/quality")
def data_quality() -> WebResponse:
    """A score for every run, with its components."""
    meanings = list(COMPONENTS.values())
    found = desk_quality.data_quality(session(), experiment(), _page_number())
    return render("data_quality", listing=found, titles=[title for title, _ in meanings], meanings=meanings)


@blueprint.get("/triplets")
def triplets() -> WebResponse:
    """Answers to every triplet."""
    answers = progress.by_triplet(session(), experiment())
    matrices = progress.matrices(answers) if len(answers) <= MATRIX_LIMIT else {}
    distribution = progress.distribution(answers)
    return render("triplets", total=len(answers), matrices=matrices, distribution=distribution, pairs=BIN_PAIRS)


@blueprint.get("/questions")
def questions() -> WebResponse:
    """How often each answer to a question was given."""
    return render("questions", tallies=desk_questions.tallies(session(), experiment()))


@blueprint.get("/log")
def log() -> WebResponse:
    """Who did what, when and why."""
    total = session().scalar(select(func.count()).select_from(LogEntry)) or 0
    pages = max(1, -(-total // LOG_PAGE))
    number = min(_page_number(), pages)
    entries = select(LogEntry).order_by(LogEntry.id.desc()).limit(LOG_PAGE).offset((number - 1) * LOG_PAGE)
    return render("log", entries=list(session().scalars(entries)), number=number, page_count=pages, total=total)


# ------------------------------------------------------------------ agreement


@blueprint.get("/agreement")
def agreement() -> WebResponse:
    """Agreement by bin pair, once the current user may see it."""
    return _agreement_page()


def _agreement_page(problem: str = "", reason: str = "", status: int = 200) -> WebResponse:
    blind = study_control.is_blind(study_control.control(session()), _stored_user())
    pairs = None if blind else desk_agreement.agreement(session(), experiment())
    return render("agreement", status, pair_agreements=pairs, blind=blind, problem=problem, reason=reason)


@blueprint.post("/agreement")
def unblind() -> WebResponse:
    """Show agreement to the current user from now on, for a written reason."""
    reason = request.form.get("reason", "")
    try:
        study_control.unblind(session(), _stored_user(), reason, now())
    except ControlRefusedError as error:
        return _agreement_page(str(error), reason, 400)
    return redirect(url_for("desk.agreement"), 303)


def _stored_user() -> Researcher:
    """The current user's row in this request's session."""
    return session().get_one(Researcher, auth.current_user().id)
