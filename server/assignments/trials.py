"""Trials: serving clips to a listener under random names, and recording the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy.orm import Session

from server.assignments import queries
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
    """One clip of a trial as it is served to a listener, under a random name; `heard`: it was sent completely."""

    sound: str
    heard: bool


@dataclass(frozen=True)
class ServedTrials:
    """The position of the trial to be answered now, and the clips that are served from it on."""

    position: int
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
            served.setdefault(row.position, {})[row.slot] = ServedClip(row.sound, row.fetched_at is not None)
    return ServedTrials(rows[0].answered + 1, served)


def answer_trial(session: Session, experiment: Experiment, assignment: Assignment, answer: TrialAnswer) -> None:
    """Record the answer to the current trial and serve the next one; an answered trial is left unchanged.

    Raises:
        StepRefusedError: if the trial comes later or its clips were not all heard.
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
    plays = (answer.plays_x, answer.plays_a, answer.plays_b)
    heard = is_plausible(plays, answer.response_ms, answer.telemetry, experiment.config.corpus.clip_seconds)
    if not heard or not all(clip.heard for clip in clips.values()):
        raise StepRefusedError("Please listen to all three sounds to the end before you answer.")
    late = late or not renew_lease(session, experiment, assignment)
    values = asdict(answer)
    values |= values.pop("telemetry")
    values |= {"assignment_id": assignment.id, "late": late, "answered_at": experiment.clock()}
    answer_seals.add_seal(session, Response, assignment, values)
    queries.run(session, queries.ADD_RESPONSE, **values)
    if late and assignment.state is not AssignmentState.EXPIRED:
        end_assignment(experiment, assignment, AssignmentState.EXPIRED)
    if not late:
        until = served.position + 1 + AHEAD
        serve_clips(session, assignment, served.missing(until, len(experiment.trials(assignment))))
    session.flush()
