"""Trials: serving clips to a listener under random names, and recording the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from server.assignments import queries, timing
from server.assignments.experiment import Experiment, StepRefusedError
from server.assignments.places import renew_lease
from server.assignments.steps import ENDED, end_assignment, may_proceed
from server.assignments.telemetry import Telemetry, is_plausible
from server.audit import answer_seals
from server.db.models import Assignment, AssignmentState, Response
from server.identity.tokens import random_token

SLOTS = ("X", "A", "B")
AHEAD = 1  # trials whose clips may be fetched before they are due
# By state: the number of trials, from the current one on, whose clips may be fetched.
REACH = {AssignmentState.SCREENED: AHEAD, AssignmentState.LISTENING: 1 + AHEAD}
INSERT_DELIVERIES = queries.insert_deliveries(SLOTS)


@dataclass(frozen=True)
class TrialAnswer:
    """A listener's answer to one trial; plays count complete plays, `confidence` is 1 to 5."""

    position: int
    choice: str
    response_ms: int
    plays_x: int
    plays_a: int
    plays_b: int
    confidence: int | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)


def begin_listening(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    """Continue from the instructions to the first trial."""
    if not may_proceed(session, experiment, assignment, "instructions"):
        return
    assignment.state = AssignmentState.LISTENING
    assignment.listening_at = experiment.clock()
    serve_ahead(session, experiment, assignment, 1 + AHEAD)
    session.flush()


def serve_ahead(session: Session, experiment: Experiment, assignment: Assignment, until: int) -> None:
    """Serve the clips of all trials up to a position."""
    served = served_trials(session, assignment)
    serve_clips(session, assignment, served.missing(until, len(experiment.trials(assignment))))


def serve_clips(session: Session, assignment: Assignment, positions: Iterable[int]) -> None:
    """Give random names to the clips of trials that have none yet."""
    for position in positions:
        names = {slot: random_token() for slot in SLOTS}
        queries.run(session, INSERT_DELIVERIES, assignment=assignment.id, position=position, **names)


@dataclass(frozen=True)
class ServedClip:
    """One clip of a trial as it is served to a listener, under a random name; `sent_at`: when all of it was sent."""

    sound: str
    sent_at: datetime | None


@dataclass(frozen=True)
class ServedTrials:
    """The position of the trial to be answered now, and the clips that are served from it on.

    `since`: when the previous trial was answered; None before the first answer.
    """

    position: int
    since: datetime | None
    served: Mapping[int, Mapping[str, ServedClip]]  # by position, then by slot (X, A, B)

    def of(self, position: int) -> Mapping[str, ServedClip]:
        """The clips of a trial by slot; empty if it is not served."""
        return self.served.get(position, {})

    def missing(self, until: int, trials: int) -> range:
        """The positions up to `until` whose clips are not served yet."""
        return range(max(self.served, default=self.position - 1) + 1, min(until, trials) + 1)


def served_trials(session: Session, assignment: Assignment) -> ServedTrials:
    """The current trial of an assignment and its served clips."""
    rows = queries.run(session, queries.SERVED_CLIPS, assignment=assignment.id).all()
    served: dict[int, dict[str, ServedClip]] = {}
    for row in rows:
        if row.position is not None:
            served.setdefault(row.position, {})[row.slot] = ServedClip(row.sound, row.fetched_at)
    return ServedTrials(rows[0].answered + 1, rows[0].answered_at, served)


def answer_trial(
    session: Session, experiment: Experiment, assignment: Assignment, answer: TrialAnswer, simulated: float = 0.0
) -> None:
    """Record the answer to the current trial and serve the next one; an answered trial is left unchanged.

    Args:
        simulated: seconds that a simulated listener adds to the server's clock (server.assignments.rehearsal_clock).

    Raises:
        StepRefusedError: if the trial comes later or its clips cannot all have been heard.
    """
    late = assignment.state is AssignmentState.EXPIRED
    if (assignment.state in ENDED and not late) or assignment.erased_at is not None:
        return
    served = served_trials(session, assignment)
    if answer.position < served.position:
        return
    clips = served.of(served.position)
    # The first trial's clips are served before it starts, so that they can be fetched during the instructions.
    if answer.position > served.position or not clips or assignment.listening_at is None:
        raise StepRefusedError("That comparison comes later.")
    now = experiment.clock()
    measured = _measure(experiment, answer, clips, now, served.since or assignment.listening_at, simulated)
    late = late or not renew_lease(session, experiment, assignment)
    values = asdict(answer)
    values |= values.pop("telemetry")
    values |= {"assignment_id": assignment.id, "late": late, "answered_at": now, **measured}
    answer_seals.add_seal(session, Response, assignment, values)
    queries.run(session, queries.ADD_RESPONSE, **values)
    if late and assignment.state is not AssignmentState.EXPIRED:
        end_assignment(experiment, assignment, AssignmentState.EXPIRED)
    if not late:
        until = served.position + 1 + AHEAD
        serve_clips(session, assignment, served.missing(until, len(experiment.trials(assignment))))
    session.flush()


def _measure(
    experiment: Experiment,
    answer: TrialAnswer,
    clips: Mapping[str, ServedClip],
    now: datetime,
    due: datetime,
    simulated: float,
) -> dict[str, float | str | None]:
    """What the server's clock says of an answer: the time since its trial was due, and doubts about what it claims.

    Raises:
        StepRefusedError: if the clips cannot all have been heard.
    """
    plays, seconds = (answer.plays_x, answer.plays_a, answer.plays_b), experiment.config.corpus.clip_seconds
    sent = [clip.sent_at for clip in clips.values() if clip.sent_at is not None]
    if len(sent) == len(clips) and is_plausible(plays, answer.response_ms, answer.telemetry, seconds):
        times = timing.server_times(now, due, sent, simulated)
        if times is None:
            return {"elapsed_s": None, "doubts": ""}
        claims = timing.Claims(plays, answer.response_ms, answer.telemetry)
        shares = timing.possible_share(times, claims, seconds)
        if not timing.is_impossible(shares):
            return {"elapsed_s": round(times.elapsed, 3), "doubts": timing.doubts(shares)}
    raise StepRefusedError("Please listen to all three sounds to the end before you answer.")
