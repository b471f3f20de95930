"""Builds of earlier versions, which reveal the more similar side to an attacker: only a study that has begun uses one.

Once people have consented, the study is finished as it is, with the same lists and sounds for everyone.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from embeddings.errors import StaleArtefactError
from server.db.enums import RunVerification
from server.db.models import Assignment
from study.leaks import describe_leaks
from study.trial_plan import BUILD, Plan


def require_blind(session: Session, plan: Plan, folder: Path) -> None:
    """Refuse a build that leaks unless somebody has consented to take part.

    Raises:
        StaleArtefactError: naming the leaks and the command that rebuilds the study.
    """
    real = Assignment.verification != RunVerification.UNCONFIRMED  # anybody can begin a run that no marketplace lists
    if plan.leaks and session.scalar(select(Assignment.id).where(real).limit(1)) is None:
        raise StaleArtefactError(
            f"{folder} was built by an earlier version, and listeners could cheat: {describe_leaks(plan.leaks)}. "
            f"Nobody has taken part yet, so build it again: `{BUILD} {folder} --redraw`."
        )
