"""What a listener meets: /take, the listener's own address /a/<token>, and sounds under random names.

GET never changes an assignment (fetching a sound only notes that it was sent). Every form posts to a step and is
answered with a redirect to the listener's address, which always shows the step that is due: reloading, going back
and sending twice are harmless.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from flask import Blueprint, Request, abort, current_app, redirect, render_template, request, send_file, url_for
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.assignments import audio as sounds
from server.assignments import experiment, lifecycle, places, prescreen, steps, trials
from server.assignments.experiment import StepRefusedError
from server.assignments.places import Availability
from server.assignments.prescreen import ItemAnswer
from server.assignments.telemetry import read_telemetry
from server.assignments.trials import TrialAnswer
from server.audit import study_control
from server.db import database
from server.db.models import Assignment, AssignmentState, PrescreenItem
from server.identity.arrival import Arrival
from server.identity.tokens import WORKER_LIMIT, ConsentTicket
from server.participant.context import TOKEN_LIMIT
from server.participant.context import present_assignment as _assignment
from server.participant.context import present_context as _house
from server.participant.context import present_session as _session
from server.participant.marketplace_entry import MarketplaceEntry
from server.privacy import erasure
from server.web import i18n
from study.languages import mark
from study.prescreen.item import INTERVAL_SPANS, INTERVALS
from study.prescreen.steps import graded_steps, step_config
from study.questionnaire import AnswerError, check_answers, plain_number
from study.stimuli.storage import MIMETYPE
from study.trial_plan import Stimulus

blueprint = Blueprint("participant", __name__)
log = logging.getLogger(__name__)

SOUND_NAME = re.compile(r"[\w-]{43}", re.ASCII)  # server.identity.tokens.random_token
MAX_PLAYS = 10_000
SURENESS = 5
MAX_RESPONSE_MS = 7 * 24 * 3600 * 1000
WHICH = ("interval", 1, INTERVALS, mark("Please choose one of the three."))
# What a page of the prescreen asks for: the field, the least and the most it may be, and what is said where it is not.
ASKED = {
    "volume": ("heard", 1, 1, mark("Please play the sound to the end first.")),
    "tones": ("count", 0, 99, mark("Please write how many tones you heard, as a number.")),
    "huggins": WHICH,
    "antiphase": WHICH,
}
ADDRESS_LIMIT = 512


# ------------------------------------------------------------------ coming in


@blueprint.get("/")
def home() -> WebResponse:
    return redirect(url_for("participant.take"), 303)


@blueprint.get("/take")
def take() -> WebResponse | str | tuple[str, int]:
    """Information and consent; makes nothing."""
    reception = _house().reception
    if reception is not None:
        return _receive(reception)
    worker, link = request.args.get("worker", "").strip(), request.args.get("link", "")
    if len(worker) > WORKER_LIMIT or len(link) > 4 * TOKEN_LIMIT:
        raise StepRefusedError("This link is not complete; please open the link that you were sent.")
    entry = _house().door.open(_house().pages.consent_version, worker or None, link or None)
    if entry is None:
        raise StepRefusedError("This link is not complete; please open the link that you were sent.")
    if link and lifecycle.find_entry(_session(), entry):
        return redirect(_address(_house().door.token(entry)), 303)
    full = _turn_away()
    page = full or _consent_page(entry)
    if _is_person():
        _count_arrival("not_let_in" if full else "informed")
    return page


def _receive(reception: MarketplaceEntry) -> WebResponse | str:
    """Somebody comes from a marketplace."""
    arrival = reception.arrive(_session(), {name: value[:ADDRESS_LIMIT] for name, value in request.args.items()})
    if "owed" in request.args:
        return render_template(
            "owed.html", step="owed", back=reception.hand_back_owed(arrival), preview=arrival.preview
        )
    if arrival.preview:
        full = _turn_away()
        return full or render_template("preview.html", step="preview", text=_house().pages.consent)
    entry = reception.entry(_house().pages.consent_version, arrival)
    assignment = lifecycle.find_entry(_session(), entry)
    if assignment is None:
        full = _turn_away()
        page = full or _consent_page(entry, arrival)
        if _is_person():
            _count_arrival("not_let_in" if full else "informed")
        return page
    return _receive_again(reception, arrival, entry, assignment)


def _receive_again(
    reception: MarketplaceEntry, arrival: Arrival, entry: ConsentTicket, assignment: Assignment
) -> WebResponse | str:
    """Somebody comes again: reloads the frame, has taken another place, or the same one after giving it back."""
    i18n.use(assignment.language)
    if reception.has_handed_in(_session(), assignment, arrival):
        return render_template("taken.html", step="taken")
    if assignment.erased_at is not None:  # who they are is not written down again
        return redirect(_address(_house().door.token(entry)), 303)
    lost = steps.current_step(_session(), _house().experiment, assignment) in ("withdrawn", "expired")
    number, left = assignment.id, assignment.state is AssignmentState.WITHDRAWN
    _session().commit()  # gives its connection back, so that nobody holds two
    with database.writing(current_app.extensions["rootnote.engine"]) as session, session.begin():
        reception.note(session, session.get_one(Assignment, number), arrival, _house().experiment.clock())
    if lost and not left:
        return _consent_page(entry, arrival, again=True)
    return redirect(_address(_house().door.token(entry)), 303)


def _count_arrival(shown: str) -> None:
    """Count in a transaction of its own, as short as can be: many arrive at once, and the page only reads."""
    try:
        with _own_transaction() as session:
            study_control.count_arrival(session, shown, _house().experiment.clock())
    except SQLAlchemyError as error:
        log.warning("an arrival was not counted", exc_info=error)  # no reason to turn somebody away


@contextlib.contextmanager
def _own_transaction() -> Iterator[Session]:
    """For one statement that writes in a request that otherwise reads: no one waits for a lock while a page is made."""
    _session().commit()  # gives its connection back, so that nobody holds two
    with database.writing_once(current_app.extensions["rootnote.engine"]) as session, session.begin():
        yield session


def _is_person() -> bool:
    """Whether somebody looks at the page, as far as the browser says: not one that only fetches it ahead."""
    return request.method == "GET" and "prefetch" not in request.headers.get("Sec-Purpose", "")


def _turn_away() -> str | None:
    """The page for someone who cannot be seated now; None where they can."""
    found = study_control.control(_session())
    if not found.recruiting:
        return render_template("full.html", step="full", complete=found.closed_at is not None, paused=True)
    vacancy = places.availability(_session(), _house().experiment)
    return None if vacancy is Availability.OPEN else _full_page(vacancy)


def _consent_page(entry: ConsentTicket, arrival: Arrival | None = None, *, again: bool = False) -> str:
    reception = _house().reception
    return render_template(
        "consent.html",
        step="consent",
        entry=_house().door.sign(entry),
        arrival=reception.vault.seal(arrival) if reception and arrival else "",
        again=again,
        text=_house().pages.consent,
        version=entry.consent,
        choices=_languages() if request.method == "GET" else {},
        message=study_control.control(_session()).message,
    )


def _languages() -> dict[str, str]:
    """Where the same page is in each language that the study offers."""
    here, offered = url_for("participant.take"), _house().experiment.config.study.languages
    return {code: f"{here}?{urlencode(request.args.to_dict() | {'lang': code})}" for code in offered}


def _full_page(vacancy: Availability) -> str:
    return render_template("full.html", step="full", complete=vacancy is Availability.COMPLETE)


@blueprint.post("/take")
def consent() -> WebResponse | str | tuple[str, int]:
    """The listener consents: make the assignment, once for one entry."""
    house = _house()
    i18n.use(request.form.get("lang"))
    entry = house.door.read(request.form.get("entry", ""))
    if entry is None:
        raise StepRefusedError("This page was open for too long; please open the link that you were sent once more.")
    arrival = None
    if house.reception is not None:
        arrival = house.reception.read(request.form.get("arrival", ""), entry)
        if arrival is None:
            raise StepRefusedError("This page is not complete; please open it from the marketplace once more.")
    if lifecycle.find_entry(_session(), entry) is None:
        if full := _turn_away():
            return full
        if entry.consent != house.pages.consent_version:
            return _consent_page(ConsentTicket(entry.number, house.pages.consent_version, entry.worker_hash), arrival)
    token = house.door.token(entry)
    try:
        assignment = lifecycle.consent(_session(), house.experiment, entry, token, i18n.present())
    except experiment.NoPlaceError:
        return _full_page(places.availability(_session(), house.experiment))
    except experiment.AlreadyTakenPartError:
        return render_template("taken.html", step="taken"), 409
    if house.reception is not None and arrival is not None:
        # In this order: `server sync` too locks the submission before the assignment.
        house.reception.note(_session(), assignment, arrival, house.experiment.clock())
        lifecycle.rejoin(_session(), house.experiment, assignment)
    return redirect(_address(token), 303)


# ------------------------------------------------------------------ the listener's address


def _address(token: str) -> str:
    return url_for("participant.page", token=token)


@blueprint.get("/a/<token>")
def page(token: str) -> str:
    """The step that is due."""
    assignment = _assignment(token)
    step = steps.current_step(_session(), _house().experiment, assignment)
    context: dict[str, object] = {"step": step, "token": token}
    if step == "prescreen":
        item = prescreen.current_item(_session(), assignment)
        return render_template(f"prescreens/{item.kind}.html", **context, **_prescreen(assignment, item))
    if step == "instructions":
        ahead = _addresses(trials.served_trials(_session(), assignment), 1)
        volume_is_set = "volume" in _house().experiment.config.prescreen.steps
        texts = {"text": _house().pages.instructions, "volume_is_set": volume_is_set}
        return render_template("instructions.html", **context, **texts, next=ahead)
    if step == "trial":
        return render_template("trial.html", **context, **_trial(assignment))
    if step == "questions":
        return render_template("questions.html", **context, **_questions({}, {}))
    code, reception = assignment.completion_code, _house().reception
    context["back"] = reception.hand_back(_session(), assignment) if reception else None
    context |= {"version": assignment.consent_version, "erased": assignment.erased_at is not None}
    return render_template("end.html", **context, code=code, text=_house().pages.debrief)


def _prescreen(assignment: Assignment, item: PrescreenItem) -> dict[str, object]:
    config = _house().experiment.config
    checks = graded_steps(config)
    due = prescreen.due_items(_session(), assignment)
    return {
        "item": item,
        "items": item.item + len(due) - 1,
        "attempts": step_config(config, item.kind).attempts,
        "check": checks.index(item.kind) + 1 if item.kind in checks else 1,
        "checks": len(checks),
        "spans": INTERVAL_SPANS,
        "next": [url_for("participant.audio", name=each.sound) for each in due[1 : 1 + trials.AHEAD]],
    }


def _trial(assignment: Assignment) -> dict[str, object]:
    found = trials.served_trials(_session(), assignment)
    player = _house().experiment.config.player
    return {
        "position": found.position,
        "of": len(_house().experiment.trials(assignment)),
        "sounds": dict(zip(trials.SLOTS, _addresses(found, found.position), strict=True)),
        "next": _addresses(found, found.position + 1),
        "switching": player.switching,
        "confidence": player.confidence,
    }


def _addresses(found: trials.ServedTrials, position: int) -> list[str]:
    """Where the clips X, A and B of a trial are fetched; none where it is not served yet."""
    served = found.of(position)
    return [url_for("participant.audio", name=served[slot].sound) for slot in trials.SLOTS if served]


def _questions(given: dict[str, list[str]], wrong: dict[str, AnswerError]) -> dict[str, object]:
    return {"questions": _house().experiment.config.questions, "given": given, "wrong": wrong}


@blueprint.post("/a/<token>/prescreen")
def answer_prescreen(token: str) -> WebResponse:
    assignment = _assignment(token, lock=True)
    lifecycle.answer_prescreen(_session(), _house().experiment, assignment, _read_item(request.form))
    return redirect(_address(token), 303)


def _read_item(form: Mapping[str, str]) -> ItemAnswer:
    kind, attempt, item = [*form.get("item", "").split("-"), "", ""][:3]
    strange = mark("That sound is not one of yours.")
    if kind not in ASKED:
        raise StepRefusedError(strange)
    field, least, most, problem = ASKED[kind]
    given = _whole(plain_number(form.get(field, "")), least, most, problem)
    return ItemAnswer(kind, _whole(attempt, 1, 99, strange), _whole(item, 1, 99, strange), given)


@blueprint.post("/a/<token>/instructions")
def begin_listening(token: str) -> WebResponse:
    trials.begin_listening(_session(), _house().experiment, _assignment(token, lock=True))
    return redirect(_address(token), 303)


@blueprint.post("/a/<token>/trial")
def answer_trial(token: str) -> WebResponse:
    assignment = _assignment(token, lock=True)
    trials.answer_trial(_session(), _house().experiment, assignment, _read_trial(request))
    return redirect(_address(token), 303)


def _read_trial(sent: Request) -> TrialAnswer:
    form = sent.form
    if form.get("choice") not in ("A", "B"):
        raise StepRefusedError("Please choose A or B.")
    damaged = mark("What was sent is not complete; please load the page again.")
    heard = {name: _whole(form.get(name), 0, MAX_PLAYS, damaged) for name in ("plays_x", "plays_a", "plays_b")}
    position = _whole(form.get("position"), 1, 10_000, damaged)
    taken = _whole(form.get("response_ms"), 0, MAX_RESPONSE_MS, damaged)
    sure = None
    if _house().experiment.config.player.confidence:
        sure = _whole(form.get("confidence"), 1, SURENESS, mark("Please say how sure you are, from 1 to 5."))
    try:
        telemetry = read_telemetry(form, sent.headers.get("User-Agent", ""))
    except ValueError:
        raise StepRefusedError(damaged) from None
    return TrialAnswer(position, form["choice"], taken, **heard, confidence=sure, telemetry=telemetry)


@blueprint.post("/a/<token>/questions")
def answer_questions(token: str) -> WebResponse | tuple[str, int]:
    assignment = _assignment(token, lock=True)
    sent = request.form.to_dict(flat=False)
    answers, wrong = check_answers(_house().experiment.config.questions, sent)
    if wrong and steps.current_step(_session(), _house().experiment, assignment) == "questions":
        given = {name.removeprefix("q_"): values for name, values in sent.items()}
        return render_template("questions.html", step="questions", token=token, **_questions(given, wrong)), 400
    lifecycle.answer_questions(_session(), _house().experiment, assignment, answers)
    return redirect(_address(token), 303)


@blueprint.get("/a/<token>/leave")
def confirm_leave(token: str) -> str | WebResponse:
    assignment = _assignment(token)
    if assignment.state in steps.ENDED:
        return redirect(_address(token), 303)
    return render_template("leave.html", step="leave", token=token)


@blueprint.post("/a/<token>/leave")
def leave(token: str) -> WebResponse:
    """Without confirm=yes, ask; with it, leave, and with answers=erase have everything deleted."""
    assignment, house = _assignment(token, lock=True), _house()
    if request.form.get("confirm") != "yes":
        return redirect(url_for("participant.confirm_leave", token=token), 303)
    lifecycle.leave(_session(), house.experiment, assignment)
    if request.form.get("answers") == "erase":
        erasure.erase(_session(), house.journal, assignment, house.experiment.clock(), erasure.LISTENER)
    return redirect(_address(token), 303)


@blueprint.get("/a/<token>/technical")
def technical(token: str) -> str | WebResponse:
    """What someone can do who hears nothing."""
    assignment = _assignment(token)
    if assignment.state in steps.ENDED:
        return redirect(_address(token), 303)
    return render_template("technical.html", step="no_sound", token=token)


@blueprint.post("/a/<token>/technical")
def end_unheard(token: str) -> WebResponse:
    lifecycle.end_for_technical_reasons(_session(), _house().experiment, _assignment(token, lock=True))
    return redirect(_address(token), 303)


def _whole(raw: str | None, least: int, most: int, problem: str) -> int:
    """A whole number within bounds, or Refused with `problem`."""
    text = (raw or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        raise StepRefusedError(problem)
    return int(text)


# ------------------------------------------------------------------ sounds


@blueprint.get("/audio/volume")
def volume() -> WebResponse:
    """The sound to set the volume by: the same for everyone."""
    return _send(_house().volume, "audio/wav")


@blueprint.get("/audio/<name>")
def audio(name: str) -> WebResponse:
    """The sound behind a random name, while it is due."""
    sound = sounds.find_sound(_session(), _house().experiment, name) if SOUND_NAME.fullmatch(name) else None
    if sound is None:
        abort(404)
    _session().commit()  # gives its connection back: nobody waits for the database while this waits for a bucket
    response = _send(sound.made, "audio/wav") if sound.stimulus is None else _send_stimulus(sound.stimulus)
    if sound.unmarked is not None and request.method == "GET" and _reaches_end(response):
        with _own_transaction() as session:
            sounds.mark_fetched(session, _house().experiment, sound.unmarked)
    return response


def _send_stimulus(stimulus: Stimulus) -> WebResponse:
    storage = _house().experiment.storage
    address = storage.address(stimulus)
    return redirect(address, 303) if address else _send(storage.read(stimulus), MIMETYPE)


def _send(data: bytes, mimetype: str) -> WebResponse:
    # From memory: a file sent by its path would tell its name, date and checksum in the headers.
    return send_file(io.BytesIO(data), mimetype=mimetype, conditional=True, etag=False, max_age=None)


def _reaches_end(response: WebResponse) -> bool:
    # Whether a browser comes to the end of what a bucket sends it, the server cannot see.
    if response.status_code in (200, 303):
        return True
    told = response.content_range
    return response.status_code == 206 and told.stop == told.length
