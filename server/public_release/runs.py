"""The published runs: the columns of listeners.csv that are not about the person.

study.columns says how each column is published; a column without an entry there is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.public_release.responses import Masks, require_described
from study.columns import LISTENER_COLUMNS, STEP_COLUMNS, AsIs, Renamed, RunOutcome
from study.config import StudyConfig
from study.prescreen.steps import graded_steps


def require_listener_columns(config: StudyConfig, people: Sequence[Mapping[str, Any]]) -> None:
    """Refuse columns of listeners.csv that have no publication rule.

    Raises:
        RootnoteError: naming the first such column and the entry to add.
    """
    steps = {f"{step}_{suffix}" for step in graded_steps(config) for suffix in STEP_COLUMNS}
    questions = {f"q_{question.id}" for question in config.questions}
    described = LISTENER_COLUMNS.keys() | steps | questions
    require_described("listeners.csv", set().union(*people), described, "LISTENER_COLUMNS")


def published_run_columns() -> tuple[str, ...]:
    """The columns of listeners.csv that are published for every run."""
    return tuple(
        name for name, column in LISTENER_COLUMNS.items() if isinstance(column.publish, AsIs | Renamed | RunOutcome)
    )


def publish_run(person: Mapping[str, Any], state: str, masks: Masks) -> dict[str, Any]:
    """The published values of a run, without those about the person."""
    row = {}
    for name in published_run_columns():
        match LISTENER_COLUMNS[name].publish:
            case Renamed(what):
                row[name] = masks.listeners[person[name]] if what == "listener" else masks.assignments[person[name]]
            case RunOutcome():
                row[name] = state
            case AsIs():
                row[name] = person[name]
    return row
