"""The clock of a rehearsal: simulated listeners say how long they listened, so that a rehearsal takes no longer.

The seconds that a simulated listener claims are added to the server's own. They are read only by a server that was
started with --rehearsal, and only if the database was made by such a server and never served by another: no header
shortens a study with real listeners.
"""

from __future__ import annotations

import math

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import StudyRecord

HEADER = "Rootnote-Simulated-Seconds"
MOST_SECONDS = 24 * 3600.0


def simulated_seconds(session: Session, experiment: Experiment, claimed: str) -> float:
    """The seconds that a simulated listener took since the page before; 0 for everyone else.

    Args:
        claimed: the value of the header; empty if there is none.
    """
    if not claimed or not experiment.rehearsal:
        return 0.0
    if session.scalar(select(StudyRecord.rehearsal)) is not True:
        return 0.0
    try:
        seconds = float(claimed)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and 0 <= seconds <= MOST_SECONDS else 0.0
