"""Forms: what a listener's browser sends for one step, checked and read."""

from __future__ import annotations

from collections.abc import Mapping

from server.assignments.experiment import StepRefusedError
from server.assignments.prescreen import ItemAnswer
from server.assignments.telemetry import read_telemetry
from server.assignments.trials import TrialAnswer
from study.languages import mark
from study.prescreen.registry import STEPS
from study.questions.base import plain_number

MAX_PLAYS = 10_000
MAX_CONFIDENCE = 5
MAX_RESPONSE_MS = 7 * 24 * 3600 * 1000


def read_prescreen_answer(form: Mapping[str, str]) -> ItemAnswer:
    """Read the answer to one prescreen item.

    Raises:
        StepRefusedError: if the item is unknown or the answer is missing or out of range.
    """
    kind, attempt, item = [*form.get("item", "").split("-"), "", ""][:3]
    unknown = mark("That sound is not one of yours.")
    if kind not in STEPS:
        raise StepRefusedError(unknown)
    field = STEPS[kind].field
    given = whole_number(plain_number(form.get(field.name, "")), field.least, field.most, field.problem)
    return ItemAnswer(kind, whole_number(attempt, 1, 99, unknown), whole_number(item, 1, 99, unknown), given)


def read_trial_answer(form: Mapping[str, str], user_agent: str, *, confidence: bool) -> TrialAnswer:
    """Read the answer to one trial; `confidence`: whether the study asks how sure the listener is.

    Raises:
        StepRefusedError: if nothing is chosen or a field is damaged.
    """
    if form.get("choice") not in ("A", "B"):
        raise StepRefusedError("Please choose A or B.")
    damaged = mark("Some data is missing; please reload the page.")
    plays = {name: whole_number(form.get(name), 0, MAX_PLAYS, damaged) for name in ("plays_x", "plays_a", "plays_b")}
    position = whole_number(form.get("position"), 1, 10_000, damaged)
    response_ms = whole_number(form.get("response_ms"), 0, MAX_RESPONSE_MS, damaged)
    sure = None
    if confidence:
        problem = mark("Please say how sure you are, from 1 to 5.")
        sure = whole_number(form.get("confidence"), 1, MAX_CONFIDENCE, problem)
    try:
        telemetry = read_telemetry(form, user_agent)
    except ValueError:
        raise StepRefusedError(damaged) from None
    return TrialAnswer(position, form["choice"], response_ms, **plays, confidence=sure, telemetry=telemetry)


def whole_number(raw: str | None, least: int, most: int, problem: str) -> int:
    """A whole number within bounds.

    Raises:
        StepRefusedError: with `problem`, if it is not one.
    """
    text = (raw or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        raise StepRefusedError(problem)
    return int(text)
