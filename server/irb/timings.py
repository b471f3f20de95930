"""Measured time: how long people took, from the databases of the study and of its rehearsal.

Simulated listeners do not wait for a sound to end, so their runs do not measure time; a rehearsal whose median is
shorter than its clips is taken as simulated. Times are working times, and wages the pay per working hour
(server.payments.hourly_pay): the median, and the tenth percentile, which nine in ten people reach.
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
    """Minutes of `n` finished runs (median, 90th percentile) and their hourly wages (median, 10th percentile)."""

    source: Source
    n: int
    median: float
    slow: float
    usd_at_median: float
    usd_at_slow: float


def measure(study: Study, plan: Plan, environment: Mapping[str, str]) -> tuple[Measured, ...]:
    """The measurements for this schedule; empty if there are none.

    Raises:
        RootnoteError: if a database exists but cannot be read.
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
        fix = f"rootnote server migrate {study.folder}" + (" --rehearsal" if rehearsal else "")
        database.require_migrated(engine, fix)
        with database.reading(engine) as session:
            record = session.get(StudyRecord, 1)
            if record is None or record.schedule != plan.schedule_fingerprint:
                return None  # the database of another schedule
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
