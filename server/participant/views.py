"""The study's pages at a listener's own address /a/<token>, from the prescreen to the end.

GET never changes an assignment. Every form posts to a step and is answered with a redirect to the listener's address,
which always shows the step that is due: reloading, going back and sending twice are harmless.
"""

from __future__ import annotations

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WebResponse

from server.assignments import lifecycle, prescreen, steps, trials
from server.db.models import Assignment, PrescreenItem
from server.participant import forms
from server.participant.visit import Visit, blueprint, pass_visit
from server.payments import ledger
from server.privacy import erasure
from server.recruiting.completion import completion_code
from study.prescreen.item import INTERVAL_SPANS
from study.prescreen.steps import graded_steps, step_config
from study.questionnaire import check_answers
from study.questions.base import AnswerError


def _to_page(token: str) -> WebResponse:
    return redirect(url_for("participant.page", token=token), 303)


@blueprint.get("/a/<token>")
@pass_visit
def page(visit: Visit, token: str) -> str:
    """The step that is due."""
    assignment = visit.assignment(token)
    step = steps.current_step(visit.session, visit.experiment, assignment)
    shared: dict[str, object] = {"step": step, "token": token}
    if step == "prescreen":
        item = prescreen.current_item(visit.session, assignment)
        return render_template(f"prescreens/{item.kind}.html", **shared, **_prescreen_values(visit, assignment, item))
    if step == "instructions":
        return render_template("instructions.html", **shared, **_instruction_values(visit, assignment))
    if step == "trial":
        return render_template("trial.html", **shared, **_trial_values(visit, assignment))
    if step == "questions":
        return render_template("questions.html", **shared, **_question_values(visit, {}, {}))
    return render_template("end.html", **shared, **_end_values(visit, assignment))


def _prescreen_values(visit: Visit, assignment: Assignment, item: PrescreenItem) -> dict[str, object]:
    config = visit.experiment.config
    checks = graded_steps(config)
    due = prescreen.due_items(visit.session, assignment)
    return {
        "item": item,
        "items": item.item + len(due) - 1,
        "attempts": step_config(config, item.kind).attempts,
        "check": checks.index(item.kind) + 1 if item.kind in checks else 1,
        "checks": len(checks),
        "spans": INTERVAL_SPANS,
        "next": [url_for("participant.audio", name=each.sound) for each in due[1 : 1 + trials.AHEAD]],
    }


def _instruction_values(visit: Visit, assignment: Assignment) -> dict[str, object]:
    return {
        "text": visit.texts.instructions,
        "volume_is_set": "volume" in visit.experiment.config.prescreen.steps,
        "next": _audio_addresses(trials.served_trials(visit.session, assignment), 1),
    }


def _trial_values(visit: Visit, assignment: Assignment) -> dict[str, object]:
    served = trials.served_trials(visit.session, assignment)
    player = visit.experiment.config.player
    return {
        "position": served.position,
        "of": len(visit.experiment.trials(assignment)),
        "sounds": dict(zip(trials.SLOTS, _audio_addresses(served, served.position), strict=True)),
        "next": _audio_addresses(served, served.position + 1),
        "switching": player.switching,
        "confidence": player.confidence,
    }


def _audio_addresses(served: trials.ServedTrials, position: int) -> list[str]:
    """The addresses of the clips X, A and B of a trial; empty if it is not served yet."""
    clips = served.of(position)
    return [url_for("participant.audio", name=clips[slot].sound) for slot in trials.SLOTS if clips]


def _question_values(visit: Visit, given: dict[str, list[str]], errors: dict[str, AnswerError]) -> dict[str, object]:
    return {"questions": visit.experiment.config.questions, "given": given, "wrong": errors}


def _end_values(visit: Visit, assignment: Assignment) -> dict[str, object]:
    entry, config = visit.marketplace_entry, visit.experiment.config
    shared = entry.shared_code(visit.session, ledger.outcome(assignment.state, config.pay)) if entry else ""
    return {
        "back": entry.return_link(visit.session, assignment) if entry else None,
        "version": assignment.consent_version,
        "erased": assignment.erased_at is not None,
        "code": shared or completion_code(config, assignment),
        "reference": assignment.completion_code,
        "text": visit.texts.debrief,
    }


# ------------------------------------------------------------------ answers


@blueprint.post("/a/<token>/prescreen")
@pass_visit
def answer_prescreen(visit: Visit, token: str) -> WebResponse:
    assignment = visit.assignment(token, lock=True)
    answer = forms.read_prescreen_answer(request.form)
    lifecycle.answer_prescreen(visit.session, visit.experiment, assignment, answer, visit.simulated_seconds)
    return _to_page(token)


@blueprint.post("/a/<token>/instructions")
@pass_visit
def begin_listening(visit: Visit, token: str) -> WebResponse:
    trials.begin_listening(visit.session, visit.experiment, visit.assignment(token, lock=True))
    return _to_page(token)


@blueprint.post("/a/<token>/trial")
@pass_visit
def answer_trial(visit: Visit, token: str) -> WebResponse:
    assignment = visit.assignment(token, lock=True)
    user_agent, player = request.headers.get("User-Agent", ""), visit.experiment.config.player
    answer = forms.read_trial_answer(request.form, user_agent, confidence=player.confidence)
    trials.answer_trial(visit.session, visit.experiment, assignment, answer, visit.simulated_seconds)
    return _to_page(token)


@blueprint.post("/a/<token>/questions")
@pass_visit
def answer_questions(visit: Visit, token: str) -> WebResponse | tuple[str, int]:
    assignment = visit.assignment(token, lock=True)
    sent = request.form.to_dict(flat=False)
    answers, errors = check_answers(visit.experiment.config.questions, sent)
    if errors and steps.current_step(visit.session, visit.experiment, assignment) == "questions":
        given = {name.removeprefix("q_"): values for name, values in sent.items()}
        values = _question_values(visit, given, errors)
        return render_template("questions.html", step="questions", token=token, **values), 400
    lifecycle.answer_questions(visit.session, visit.experiment, assignment, answers)
    return _to_page(token)


# ------------------------------------------------------------------ ending early


@blueprint.get("/a/<token>/leave")
@pass_visit
def confirm_leave(visit: Visit, token: str) -> str | WebResponse:
    assignment = visit.assignment(token)
    if assignment.state in steps.ENDED:
        return _to_page(token)
    return render_template("leave.html", step="leave", token=token)


@blueprint.post("/a/<token>/leave")
@pass_visit
def leave(visit: Visit, token: str) -> WebResponse:
    """Without confirm=yes, ask; with it, leave, and with answers=erase delete everything."""
    assignment = visit.assignment(token, lock=True)
    if request.form.get("confirm") != "yes":
        return redirect(url_for("participant.confirm_leave", token=token), 303)
    lifecycle.leave(visit.session, visit.experiment, assignment)
    if request.form.get("answers") == "erase":
        erasure.erase(visit.session, visit.context.journal, assignment, visit.now(), erasure.LISTENER)
    return _to_page(token)


@blueprint.get("/a/<token>/later")
@pass_visit
def continue_later(visit: Visit, token: str) -> str | WebResponse:
    """The link with which a listener who came by an open link continues later."""
    assignment = visit.assignment(token)
    if assignment.state in steps.ENDED:
        return _to_page(token)
    minutes = f"{visit.experiment.config.recruiter.reservation_minutes:g}"
    address = visit.context.settings.public_url or request.host_url.rstrip("/")
    link = address + url_for("participant.page", token=token)
    return render_template("later.html", step="later", token=token, link=link, minutes=minutes)


@blueprint.get("/a/<token>/technical")
@pass_visit
def technical(visit: Visit, token: str) -> str | WebResponse:
    """The options of a listener who cannot hear the sounds."""
    assignment = visit.assignment(token)
    if assignment.state in steps.ENDED:
        return _to_page(token)
    return render_template("technical.html", step="no_sound", token=token)


@blueprint.post("/a/<token>/technical")
@pass_visit
def end_unheard(visit: Visit, token: str) -> WebResponse:
    lifecycle.end_for_technical_reasons(visit.session, visit.experiment, visit.assignment(token, lock=True))
    return _to_page(token)
