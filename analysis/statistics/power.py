"""Power of a schedule: the share of simulated studies in which the report would find an effect.

Simulated studies are examined by `analysis.statistics.primary.examine`, the function that a report uses. The paper's
exact test and the two-way test, uncorrected, are simulated as well.
Conventions: powers and widths lie in [0, 1]; a Monte Carlo error is the standard error of a share of simulated studies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.statistics.primary import PrimaryResult, examine
from analysis.statistics.simulated_studies import CHANCE, Assumptions, Floats, Layout, draw_studies
from study.design.bin_pairs import BIN_PAIRS, pair_name
from study.preregistration.planned_test import ALPHA, DEFAULT_TEST, PlannedTest

BLOCK = 1_000_000  # answers simulated at once
MOST_TRIALS = 30_000
SEARCH_SIMULATIONS = 1000
Tick = Callable[[int], None]


@dataclass(frozen=True)
class PairPower:
    """One bin pair: answers (mean), expected agreement, power by test, mean width of the 95 % intervals.

    `primary`: the primary test after Holm's correction, as the report decides; `minimum`: its minimum-effect test;
    `exact` and `two_way`: uncorrected; `holm`: the exact test after Holm's correction.
    """

    pair: str
    n: float
    rate: float
    primary: float
    minimum: float
    exact: float
    holm: float
    two_way: float
    width_exact: float
    width_two_way: float
    width_primary: float


@dataclass(frozen=True)
class Power:
    """The power of one design."""

    listeners: int
    prompts: int
    trials: int
    simulations: int
    pairs: tuple[PairPower, ...]
    any_pair: float

    def least(self, test: str) -> float:
        """The lowest power of any pair."""
        return float(min(getattr(pair, test) for pair in self.pairs))

    def error(self, share: float) -> float:
        """The Monte Carlo error of a share."""
        return float(np.sqrt(share * (1 - share) / self.simulations))


def simulate(
    layout: Layout, assumed: Assumptions, seed: int, simulations: int = 10_000, tick: Tick = lambda done: None,
    test: PlannedTest = DEFAULT_TEST,
) -> Power:  # fmt: skip
    """Simulate studies and count how often each test rejects chance at 5 %.

    Args:
        tick: called with the number of newly simulated studies.
        test: the primary test.
    """
    rng = np.random.default_rng([seed, 7])
    total, found_any = np.zeros((len(BIN_PAIRS), 9)), 0.0
    left = simulations
    while left:
        size = min(left, max(BLOCK // len(layout.pair), 1))
        block, any_pair = _simulate_block(layout, assumed, rng, size, test)
        total, found_any = total + block, found_any + any_pair
        left -= size
        tick(size)
    return Power(
        layout.listeners,
        layout.prompts,
        len(layout.pair) // layout.listeners,
        simulations,
        tuple(
            PairPower(pair_name(high, low), n, assumed.lapse / 2 + (1 - assumed.lapse) * rate, *shares)
            for (high, low), rate, (n, *shares) in zip(
                BIN_PAIRS, assumed.rates, (total / simulations).tolist(), strict=True
            )
        ),
        found_any / simulations,
    )


def _simulate_block(
    layout: Layout, assumed: Assumptions, rng: np.random.Generator, size: int, test: PlannedTest
) -> tuple[Floats, float]:
    """Sums over `size` studies by pair (the fields of PairPower from `n`), and studies with any significant pair."""
    agreed, present = draw_studies(layout, assumed, size, rng)
    answers = layout.as_answers()
    results = {
        name: examine(agreed, answers, replace(test, primary=name), present)
        for name in dict.fromkeys((test.primary, "exact_holm", "two_way_holm"))
    }
    primary, exact, two_way = results[test.primary], results["exact_holm"], results["two_way_holm"]
    there = np.ones((1, len(layout.pair)), bool) if present is None else present
    n = np.stack([there[:, layout.pair == code].sum() for code in range(len(BIN_PAIRS))])
    columns = [
        n * (size if present is None else 1), _rejections(primary.p_holm), _rejections(primary.p_minimum),
        _rejections(exact.p), _rejections(exact.p_holm), _rejections(two_way.p),
        _widths(exact), _widths(two_way), _widths(primary),
    ]  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float64), float((primary.p_holm < ALPHA).any(axis=1).sum())


def _rejections(p: Floats) -> Floats:
    return np.asarray((p < ALPHA).sum(axis=0))


def _widths(found: PrimaryResult) -> Floats:
    """A pair without answers has an interval from 0 to 1."""
    return np.asarray(np.where(np.isnan(found.high), 1.0, found.high - found.low).sum(axis=0))


def listeners_for(
    layout: Layout, assumed: Assumptions, target: float, power_of: str, seed: int,
    simulations: int = SEARCH_SIMULATIONS, tick: Tick = lambda done: None, test: PlannedTest = DEFAULT_TEST,
) -> int | None:  # fmt: skip
    """The fewest listeners for which every pair has the target power; None if no number up to 30,000 trials has it.

    Fewer listeners get the first lists of the schedule, more listeners start again from the first list. The precision
    depends on the number of simulated studies.

    Args:
        power_of: a field of PairPower.
    """
    per_listener = len(layout.pair) / layout.listeners
    if CHANCE in assumed.rates:
        return None

    def enough(number: int) -> bool:
        found = simulate(layout.resized(number), assumed, seed, simulations, test=test).least(power_of)
        tick(1)
        return found >= target

    low, high = 0, layout.listeners
    while not enough(high):
        low, high = high, 2 * high
        if high * per_listener > MOST_TRIALS:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def as_data(power: Power) -> dict[str, Any]:
    """Plain data, as --json prints it; each power with its Monte Carlo error."""
    pairs = [{**vars(pair), "primary_error": power.error(pair.primary)} for pair in power.pairs]
    return {**vars(power), "pairs": pairs}
