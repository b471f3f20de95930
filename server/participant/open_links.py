"""Open links: whom they admit, and how many runs with the same outcome are paid.

An open link says nothing about who follows it, so one person can follow it again and again, and end each run in the
seconds that "No sound?" takes. A new listener is therefore admitted only while, for every outcome that is paid, the
runs that ended so and those that are under way stay below a limit. Whoever was admitted is paid as promised.
"""

from __future__ import annotations

import math

from flask import render_template
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import StepRefusedError
from server.db.models import TURNED_AWAY, Assignment, AssignmentState, Place
from server.identity.tokens import ConsentTicket
from server.participant.visit import Visit
from server.payments import ledger
from study.config import StudyConfig

SHARE, LEAST = 0.2, 10  # of the places, more than which the same outcome is not paid


def refusal(visit: Visit, ticket: ConsentTicket) -> str | None:
    """The page for a newcomer whom an open link does not admit; None if they may take part.

    Raises:
        StepRefusedError: if the study admits people by personal links only.
    """
    config = visit.experiment.config
    settings = config.recruiter.settings
    if config.recruiter.kind != "link" or visit.context.settings.rehearsal or ticket.proven:
        return None
    if settings.personal_only:
        raise StepRefusedError("This study uses personal links; please open the link that you received.")
    if not config.pay.most or not _is_exhausted(visit.session, config):
        return None
    return render_template("full.html", step="full", complete=False)


def paid_at_most(config: StudyConfig, places: int) -> int:
    """How many runs with the same outcome are paid."""
    chosen: int | None = config.recruiter.settings.paid_at_most
    return chosen or places + max(LEAST, math.ceil(SHARE * places))


def _is_exhausted(session: Session, config: StudyConfig) -> bool:
    query = select(Assignment.state, func.count()).group_by(Assignment.state)
    ended: dict[AssignmentState, int] = dict(session.execute(query).all())
    places = session.scalar(select(func.count()).select_from(Place)) or 0
    held = select(func.count()).select_from(Place).where(Place.assignment_id.is_not(None), ~Place.filled)
    limit = paid_at_most(config, places) - (session.scalar(held) or 0)
    paid = (state for state in (*TURNED_AWAY, *ledger.LEFT) if ledger.due(state, config.pay)[1])
    return any(ended.get(state, 0) >= limit for state in paid)
