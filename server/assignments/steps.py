"""The step that is due for an assignment, and whether a listener may take it.

Repeating a step that is done has no effect (a double click, the back button); one that is not due yet is refused.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy.orm import Session

from server.assignments import queries
from server.assignments.experiment import Experiment, StepRefusedError
from server.assignments.places import renew_lease
from server.db.models import ACTIVE, COMPLETED, Assignment, AssignmentState

Step = Literal[
    "prescreen", "instructions", "trial", "questions", "done", "screened_out", "technical", "withdrawn", "expired"
]
ENDED: dict[AssignmentState, Step] = {
    **dict.fromkeys(COMPLETED, "done"),
    AssignmentState.SCREENED_OUT: "screened_out",
    AssignmentState.TECHNICAL: "technical",
    AssignmentState.WITHDRAWN: "withdrawn",
    AssignmentState.RETURNED: "withdrawn",
    AssignmentState.EXPIRED: "expired",
}
ORDER: tuple[Step, ...] = ("prescreen", "instructions", "trial", "questions")


def current_step(session: Session, experiment: Experiment, assignment: Assignment) -> Step:
    """The page that is due now."""
    if assignment.state in ENDED:
        return ENDED[assignment.state]
    progress = queries.run(session, queries.PROGRESS, assignment=assignment.id).one()
    return due_step(experiment, assignment, progress.answered) if progress.held else "expired"


def due_step(experiment: Experiment, assignment: Assignment, answered: int) -> Step:
    """The step of an active assignment with this many answered trials."""
    if assignment.state is AssignmentState.CONSENTED:
        return "prescreen"
    if assignment.state is AssignmentState.SCREENED:
        return "instructions"
    return "trial" if answered < len(experiment.trials(assignment)) else "questions"


def answered_trials(session: Session, assignment: Assignment) -> int:
    return int(queries.run(session, queries.ANSWERED, assignment=assignment.id).scalar_one())


def may_proceed(session: Session, experiment: Experiment, assignment: Assignment, step: Step) -> bool:
    """Whether `step` is due now; False if it is done or the assignment has ended.

    Raises:
        StepRefusedError: if an earlier step is still due.
    """
    if assignment.state in ENDED or assignment.erased_at is not None:
        return False
    due = due_step(experiment, assignment, answered_trials(session, assignment))
    if ORDER.index(step) > ORDER.index(due):
        raise StepRefusedError("That page comes later in the study.")
    if due != step:
        return False
    if not renew_lease(session, experiment, assignment):
        end_assignment(experiment, assignment, AssignmentState.EXPIRED)
        return False
    return True


def effective_state(assignment: Assignment, has_place: bool) -> AssignmentState:
    """The state as it is now: an active assignment whose place went to another listener has expired."""
    return AssignmentState.EXPIRED if assignment.state in ACTIVE and not has_place else assignment.state


def end_assignment(experiment: Experiment, assignment: Assignment, state: AssignmentState) -> None:
    """Put an assignment into a final state, as of now."""
    assignment.state = state
    assignment.ended_at = experiment.clock()
