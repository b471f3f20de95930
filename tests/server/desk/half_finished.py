"""A half-finished study: 60 of 90 listeners have finished; others are listening, left, failed or ran out of time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from server.db import database
from server.db.models import (
    Answer,
    ArrivalCount,
    Assignment,
    AssignmentState,
    Listener,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
    StudyControl,
)
from study.config import Study
from study.prescreen.steps import draw_attempt
from study.trial_plan import Plan, read_plan

# state -> number of listeners; they arrive in random order
ENDS = {
    AssignmentState.FINISHED: 60,
    AssignmentState.SCREENED_OUT: 7,
    AssignmentState.WITHDRAWN: 4,
    AssignmentState.EXPIRED: 3,
    AssignmentState.LISTENING: 6,
    AssignmentState.SCREENED: 1,
    AssignmentState.CONSENTED: 2,
}
ARRIVED, TURNED_AWAY = 131, 9


def fill(
    engine: Engine, study: Study, now: datetime, ends: Mapping[AssignmentState, int] | None = None, seed: int = 1
) -> None:
    """Fill a migrated database that has its places."""
    ends = ends or ENDS
    rng, plan = np.random.default_rng(seed), read_plan(study)
    states = [
        AssignmentState(state)
        for state in rng.permutation([state.value for state, n in ends.items() for _ in range(n)])
    ]
    with database.writing(engine) as session, session.begin():
        places = list(session.scalars(select(Place).order_by(Place.turn)))
        began = now - timedelta(hours=30)
        for index, state in enumerate(states):
            moment = began + timedelta(hours=29.8 * (index / len(states)) ** 0.6, minutes=float(rng.uniform(0, 4)))
            if state in (AssignmentState.LISTENING, AssignmentState.SCREENED, AssignmentState.CONSENTED):
                moment = now - timedelta(minutes=float(rng.uniform(1, 4)))
            _add(session, study, plan, rng, places, state, moment)
        day = {"day": now.date(), "shard": 0}
        session.add(ArrivalCount(shown="informed", number=ARRIVED - TURNED_AWAY, **day))
        session.add(ArrivalCount(shown="not_let_in", number=TURNED_AWAY, **day))
        message = "The server restarts tonight at 22:00 UTC; your answers are saved."
        session.execute(update(StudyControl).values(message=message))


def _add(
    session: Session,
    study: Study,
    plan: Plan,
    rng: np.random.Generator,
    places: list[Place],
    state: AssignmentState,
    at: datetime,
) -> None:
    place = next(place for place in places if place.assignment_id is None)
    assignment = Assignment(
        pseudonym=secrets.token_hex(8),
        listener=Listener(pseudonym=secrets.token_hex(8)),
        entry_hash=secrets.token_hex(32),
        token_hash=secrets.token_hex(32),
        state=state,
        list_number=place.list_number,
        completion_code=secrets.token_hex(5).upper(),
        consent_version="0" * 64,
        consented_at=at,
    )
    session.add(assignment)
    session.flush()
    moment = at + timedelta(seconds=float(rng.uniform(30, 70)))
    passed = state not in (AssignmentState.SCREENED_OUT, AssignmentState.CONSENTED)
    _screen(session, study, rng, assignment, moment, passed, asked=state is not AssignmentState.CONSENTED)
    if passed:
        assignment.screened_at = moment
    if passed and state is not AssignmentState.SCREENED:
        assignment.listening_at = moment = moment + timedelta(seconds=float(rng.uniform(8, 30)))
        trials = plan.lists[place.list_number]
        answered = len(trials) if state is AssignmentState.FINISHED else int(rng.integers(0, len(trials)))
        for trial in trials[:answered]:
            seconds = float(np.clip(rng.lognormal(2.55, 0.35), 5, 90))
            moment += timedelta(seconds=seconds)
            session.add(
                Response(
                    assignment_id=assignment.id,
                    position=trial.position,
                    choice=trial.high_side if rng.random() < 0.75 else "AB"[trial.high_side == "A"],
                    response_ms=round(1000 * seconds),
                    answered_at=moment,
                    elapsed_s=round(seconds + 0.4, 3),
                    doubts="" if rng.random() < 0.97 else "hearing",
                    **_hearing(rng),
                )
            )
    if state is AssignmentState.FINISHED:
        moment += timedelta(seconds=25)
        place.filled = True
        session.add(Answer(assignment_id=assignment.id, question="music", value="4 to 10", answered_at=moment))
    if state in (
        AssignmentState.FINISHED,
        AssignmentState.SCREENED_OUT,
        AssignmentState.WITHDRAWN,
        AssignmentState.EXPIRED,
    ):
        assignment.ended_at = moment
    if state in (
        AssignmentState.FINISHED,
        AssignmentState.LISTENING,
        AssignmentState.SCREENED,
        AssignmentState.CONSENTED,
    ):
        place.assignment_id = assignment.id
        place.expires_at = None if place.filled else moment + timedelta(hours=1)


def _hearing(rng: np.random.Generator) -> dict[str, Any]:
    plays = {clip: 1 + int(rng.random() < 0.3) for clip in "xab"}
    return {
        **{f"plays_{clip}": number for clip, number in plays.items()},
        **{f"seconds_{clip}": 3.0 * number for clip, number in plays.items()},
        "play_order": "XAB" + "".join(clip.upper() for clip, number in plays.items() if number > 1),
        "focus_losses": int(rng.random() < 0.05),
        "sample_rate": 48000,
        "output_latency_ms": 21.0,
        "agent_class": "firefox-desktop",
    }


def _screen(
    session: Session,
    study: Study,
    rng: np.random.Generator,
    assignment: Assignment,
    at: datetime,
    passed: bool,
    asked: bool,
) -> None:
    first = 1 if passed and rng.random() < 0.8 else 2
    for attempt in range(1, (first if asked else 1) + 1):
        right = passed and attempt == first
        items = draw_attempt("tones", rng, study.config)
        for number, item in enumerate(items, start=1):
            session.add(
                PrescreenItem(
                    assignment_id=assignment.id,
                    attempt=attempt,
                    item=number,
                    kind="tones",
                    params=vars(item),
                    sound=secrets.token_hex(16),
                    answer=(item.answer if right or number == 1 else item.answer + 1) if asked else None,
                    answered_at=at if asked else None,
                )
            )
        if asked:
            outcome = {"correct": len(items) if right else 1, "asked": len(items), "passed": right, "ended_at": at}
            session.add(PrescreenResult(assignment_id=assignment.id, kind="tones", attempt=attempt, **outcome))
