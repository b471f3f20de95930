"""The codes that a listener sees at the end: one to hand in, if any, and their own for reference."""

from __future__ import annotations

from server.db.models import Assignment
from server.payments import ledger
from study.config import StudyConfig


def completion_code(config: StudyConfig, assignment: Assignment) -> str:
    """The code to hand in: the outcome's, or the listener's own; empty for who left and has none to hand in."""
    outcome = ledger.outcome(assignment.state, config.pay)
    fixed = getattr(getattr(config.recruiter.settings, "codes", None), outcome, "")
    return fixed or ("" if outcome == "left" else assignment.completion_code)
