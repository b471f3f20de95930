"""Agreement on the desk: counts and rates by bin pair, for a study that is closed or a researcher who is unblinded.

Only answers of listeners who completed count, to scored trials. The interval is Wilson's score interval (Wilson 1927,
JASA 22, 209-212) at 95 %; it takes answers as independent, which those of one listener are not: the report's tests
are the result, this is a first look.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import COMPLETED, Assignment, Response

Z = 1.959963984540054


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of one embedder's bin pair, with its interval."""

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
        return wilson(self.agreed, self.n)


def wilson(agreed: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate.

    Raises:
        ValueError: unless 0 <= agreed <= n and n > 0.
    """
    if not (0 <= agreed <= n and n > 0):
        raise ValueError(f"{agreed} of {n} is no rate")
    rate, z2 = agreed / n, Z * Z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def agreement(session: Session, experiment: Experiment) -> list[PairAgreement]:
    """Agreement by embedder and bin pair, of pairs with an answer."""
    query = select(Assignment.list_number, Response.position, Response.choice)
    query = query.join(Response, Response.assignment_id == Assignment.id).where(Assignment.state.in_(COMPLETED))
    agreed: Counter[tuple[str, int, int]] = Counter()
    n: Counter[tuple[str, int, int]] = Counter()
    for number, position, choice in session.execute(query):
        trial = experiment.plan.lists[number][position - 1]
        if trial.kind == "scored":
            key = (trial.embedder, trial.bin_high, trial.bin_low)
            n[key] += 1
            agreed[key] += choice == trial.high_side
    return [PairAgreement(*key, agreed[key], n[key]) for key in sorted(n)]
