"""Measured time: how long people took, from the study's database and the rehearsals' where there are any.

Simulated listeners do not wait for a sound to end, so a rehearsal of theirs is no measure of time; it is told apart by
being shorter than the clips alone. Time is that at work, and the hourly wage what was paid over it
(server.payments.hourly_pay): at the median, and at the tenth percentile, which nine in ten reach.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.db import database
from server.db.models import StudyRecord
from server.payments.hourly_pay import paid_work, quantile
from server.settings import read_settings
from study.config import Study
from study.trial_plan import Plan

Source = Literal["people", "rehearsal", "simulation"]
CLIPS_OF_A_TRIAL = 3


@dataclass(frozen=True)
class Measured:
    """Minutes of `n` finished runs, and the hourly wages that the reward makes of them."""

    source: Source
    n: int
    median: float
    slow: float
    usd_at_median: float
    usd_at_slow: float


def measure(study: Study, plan: Plan, environment: Mapping[str, str]) -> tuple[Measured, ...]:
    """What was measured of this schedule; empty where nothing was.

    Raises:
        RootnoteError: where a database is there and cannot be read.
    """
    found = (_measure(study, plan, environment, rehearsal) for rehearsal in (False, True))
    return tuple(one for one in found if one is not None)


def _measure(study: Study, plan: Plan, environment: Mapping[str, str], rehearsal: bool) -> Measured | None:
    settings = read_settings(study, environment, rehearsal=rehearsal, secret=False)
    url = settings.database
    if url.drivername == "sqlite" and not Path(str(url.database)).is_file():
        return None
    engine = database.connect(url)
    try:
        mend = f"rootnote server migrate {study.folder}" + (" --rehearsal" if rehearsal else "")
        database.require_migrated(engine, mend)
        with database.reading(engine) as session:
            record = session.get(StudyRecord, 1)
            if record is None or record.schedule != plan.schedule_fingerprint:
                return None  # of another schedule: another study
            found = paid_work(session, study.config.pay)
    finally:
        engine.dispose()
    if not found:
        return None
    minutes, hourly = [one.minutes for one in found], [one.hourly for one in found]
    median = statistics.median(minutes)
    trials = max(len(trials) for trials in plan.lists.values())
    least = trials * CLIPS_OF_A_TRIAL * study.config.corpus.clip_seconds / 60
    source: Source = "people" if not rehearsal else "rehearsal" if median >= least else "simulation"
    return Measured(
        source, len(found), median, quantile(minutes, 0.9), statistics.median(hourly), quantile(hourly, 0.1)
    )
