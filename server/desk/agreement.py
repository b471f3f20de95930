"""Agreement at the desk: counts and rates by bin pair, for a closed study or a researcher who is unblinded.

Only scored trials of listeners who completed the study count; those of unconfirmed runs do not. The interval is
Wilson's score interval (Wilson 1927, JASA 22, 209-212) at 95 %. It assumes independent answers, which those of one
listener are not: the report's tests are the result, this is a preview.

The analysis takes the same interval from SciPy. The server does not import the analysis and does not install SciPy, so
the formula is repeated here; a test compares it with statsmodels.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import Assignment, Response
from server.desk.progress import counts

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of one embedder in one bin pair."""

    embedder: str
    bin_high: int
    bin_low: int
    agreed: int
    n: int

    @property
    def rate(self) -> float:
        return self.agreed / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the rate."""
        return wilson_interval(self.agreed, self.n)


def wilson_interval(agreed: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate.

    Raises:
        ValueError: unless 0 <= agreed <= n and n > 0.
    """
    if not (0 <= agreed <= n and n > 0):
        raise ValueError(f"{agreed} of {n} is not a rate")
    rate, z2 = agreed / n, Z * Z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def agreement(session: Session, experiment: Experiment) -> list[PairAgreement]:
    """Agreement by embedder and bin pair; pairs without an answer are left out."""
    query = select(Assignment.list_number, Response.position, Response.choice)
    query = query.join(Response, Response.assignment_id == Assignment.id).where(counts())
    agreed: Counter[tuple[str, int, int]] = Counter()
    n: Counter[tuple[str, int, int]] = Counter()
    for number, position, choice in session.execute(query):
        trial = experiment.plan.lists[number][position - 1]
        if trial.kind == "scored":
            key = (trial.embedder, trial.bin_high, trial.bin_low)
            n[key] += 1
            agreed[key] += choice == trial.high_side
    return [PairAgreement(*key, agreed[key], n[key]) for key in sorted(n)]
