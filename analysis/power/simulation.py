"""Power of a schedule, by simulating studies of listeners and prompts that differ.

The answer of listener i to prompt j in bin pair k agrees with probability lapse / 2 + (1 - lapse) · logistic(β_k + u_i
+ v_j), where u and v are normal with the given standard deviations on the logit scale. β_k is set so that the mean over
listeners and prompts, without lapses, is the assumed rate: with both deviations and the lapses at 0, the answers are
binomial with that rate.
Three tests are simulated: the exact two-sided binomial test of each bin pair, the same after Holm's correction over
the pairs, and a two-way test that lets answers of one listener and answers on one prompt resemble each other (variance
clustered on both: Cameron, Gelbach and Miller 2011, Journal of Business & Economic Statistics 29; the degrees of
freedom of t are the smaller number of clusters minus one; it rejects only if the exact test does).
Conventions: rates, powers and widths lie in [0, 1]; pairs are in the order of study.design.bin_pairs.BIN_PAIRS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.statistics.multiple_testing import holm_rejections
from embeddings.errors import ConfigError
from embeddings.wording import counted
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS, pair_name
from study.design.schedule import Cell, assign_paper, assign_robust
from study.trials import PlannedTrial

ALPHA = 0.05
CHANCE = 0.5
BLOCK = 4_000_000  # answers simulated at once
MOST_TRIALS = 30_000
SEARCH_SIMULATIONS = 2000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Layout:
    """Listener, prompt and bin pair (from 0) of each scored trial of one embedder, int64 [trials]."""

    listener: Ints
    prompt: Ints
    pair: Ints

    @property
    def listeners(self) -> int:
        return int(self.listener.max()) + 1

    @property
    def prompts(self) -> int:
        return len(np.unique(self.prompt))

    def resized(self, listeners: int) -> Layout:
        """The same lists for another number of listeners: the first lists, or all of them repeated from the first."""
        rounds, rest = divmod(listeners, self.listeners)
        parts = [(self.listener < self.listeners, number) for number in range(rounds)] + [
            (self.listener < rest, rounds)
        ]
        return Layout(
            np.concatenate([self.listener[rows] + number * self.listeners for rows, number in parts]),
            np.concatenate([self.prompt[rows] for rows, _ in parts]),
            np.concatenate([self.pair[rows] for rows, _ in parts]),
        )


@dataclass(frozen=True)
class Assumptions:
    """Assumptions about listeners.

    `rates`: the true agreement of each pair, without lapses; `excluded`: the share of finished listeners that the
    exclusion rules drop.
    """

    rates: tuple[float, ...]
    listener_sd: float = 0.5
    prompt_sd: float = 0.5
    lapse: float = 0.02
    excluded: float = 0.0

    def at_chance(self) -> Assumptions:
        return Assumptions((CHANCE,) * len(self.rates), self.listener_sd, self.prompt_sd, self.lapse, self.excluded)


@dataclass(frozen=True)
class PairPower:
    """One bin pair: answers (mean), expected agreement, power by test, mean width of the 95 % intervals."""

    pair: str
    n: float
    rate: float
    exact: float
    holm: float
    two_way: float
    width_exact: float
    width_two_way: float


@dataclass(frozen=True)
class Power:
    """The power of one design."""

    listeners: int
    prompts: int
    trials: int
    simulations: int
    pairs: tuple[PairPower, ...]

    def least(self, test: str) -> float:
        """The lowest power of any pair."""
        return float(min(getattr(pair, test) for pair in self.pairs))


def layout_of(trials: Iterable[PlannedTrial], embedder: str) -> Layout:
    """The scored trials of an embedder in a schedule."""
    scored = [trial for trial in trials if trial.kind == "scored" and trial.embedder == embedder]
    lists = np.unique([trial.list for trial in scored], return_inverse=True)[1]
    prompts = np.unique([trial.prompt for trial in scored], return_inverse=True)[1]
    pairs = [BIN_PAIRS.index((trial.bin_high, trial.bin_low)) for trial in scored]
    return Layout(lists.astype(np.int64), prompts.astype(np.int64), np.array(pairs, np.int64))


def layout_of_design(design: DesignConfig, prompts: int, seed: int) -> Layout:
    """The layout that the design would have with that many prompts.

    Raises:
        ConfigError: if a listener would get more trials than there are prompts.
    """
    if design.scored_trials > prompts:
        raise ConfigError(
            f"{counted(design.scored_trials, 'trial')} per listener need as many prompts, but there are only "
            f"{prompts:,}; set design.trials lower."
        )
    assign = assign_paper if design.kind == "paper" else assign_robust
    cells = assign(prompts, design.listener_count, design.scored_trials, np.random.default_rng([seed, 0]))
    return _layout_of_cells(cells)


def _layout_of_cells(cells: Sequence[Sequence[Cell]]) -> Layout:
    rows = np.array([(listener, *cell) for listener, row in enumerate(cells) for cell in row], np.int64)
    return Layout(rows[:, 0], np.unique(rows[:, 1], return_inverse=True)[1].astype(np.int64), rows[:, 2])


def logit_means(rates: Sequence[float], sd: float) -> Floats:
    """β such that logistic(β + sd · Z), Z standard normal, has the given means; same length as `rates`.

    Raises:
        ValueError: if a rate is not between 0 and 1.
    """
    wanted = np.asarray(rates, np.float64)
    if not ((wanted > 0) & (wanted < 1)).all():
        raise ValueError("rates must be between 0 and 1")
    nodes, weights = np.polynomial.hermite_e.hermegauss(99)
    weights = weights / weights.sum()
    low, high = np.full(len(wanted), -60.0), np.full(len(wanted), 60.0)
    for _ in range(80):
        middle = (low + high) / 2
        mean = _logistic(middle[:, None] + sd * nodes) @ weights
        low, high = np.where(mean < wanted, middle, low), np.where(mean < wanted, high, middle)
    return np.asarray((low + high) / 2)


def _logistic(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def simulate(
    layout: Layout, assumed: Assumptions, seed: int, simulations: int = 10_000, tick: Tick = lambda done: None
) -> Power:
    """Simulate studies and count how often each test rejects chance at 5 %.

    Args:
        tick: called with the number of newly simulated studies.
    """
    rng = np.random.default_rng([seed, 7])
    trials = _by_pair(layout)
    beta = logit_means(assumed.rates, float(np.hypot(assumed.listener_sd, assumed.prompt_sd)))
    total = np.zeros((len(BIN_PAIRS), 6))
    left = simulations
    while left:
        size = min(left, max(BLOCK // len(layout.pair), 1))
        total += _simulate_block(trials, layout, assumed, beta, rng, size)
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
    )


@dataclass(frozen=True)
class _PairTrials:
    """The trials of one pair sorted by listener, with the start of each listener; their order by prompt, likewise."""

    listener: Ints
    prompt: Ints
    listener_starts: Ints
    prompt_order: Ints
    prompt_starts: Ints

    @property
    def degrees(self) -> int:
        return max(min(len(self.listener_starts), len(self.prompt_starts)) - 1, 1)


def _by_pair(layout: Layout) -> list[_PairTrials]:
    found = []
    for pair in range(len(BIN_PAIRS)):
        rows = np.flatnonzero(layout.pair == pair)
        rows = rows[np.argsort(layout.listener[rows], kind="stable")]
        listener, prompt = layout.listener[rows], layout.prompt[rows]
        order = np.argsort(prompt, kind="stable")
        found.append(_PairTrials(listener, prompt, _starts(listener), order, _starts(prompt[order])))
    return found


def _starts(ordered: Ints) -> Ints:
    return np.flatnonzero(np.concatenate((np.ones(min(len(ordered), 1), bool), ordered[1:] != ordered[:-1])))


def _simulate_block(
    trials: list[_PairTrials],
    layout: Layout,
    assumed: Assumptions,
    beta: Floats,
    rng: np.random.Generator,
    size: int,
) -> Floats:
    """Sums over `size` studies: n, rejections by the three tests, widths of the two intervals; [pairs, 6]."""
    listeners = assumed.listener_sd * rng.standard_normal((size, layout.listeners), np.float32)
    prompts = assumed.prompt_sd * rng.standard_normal((size, int(layout.prompt.max()) + 1), np.float32)
    there = rng.random((size, layout.listeners), np.float32) >= assumed.excluded if assumed.excluded else None
    found = np.zeros((len(BIN_PAIRS), 6))
    p_values = np.ones((size, len(BIN_PAIRS)))
    for index, own in enumerate(trials):
        if not len(own.listener):
            continue
        chance = np.tanh(0.5 * (np.float32(beta[index]) + listeners[:, own.listener] + prompts[:, own.prompt]))
        # tanh is in -1..1: half of it is added to chance
        agreed = rng.random(chance.shape, np.float32) < 0.5 + 0.5 * (1 - assumed.lapse) * chance
        present = np.ones((1, len(own.listener)), np.bool_) if there is None else there[:, own.listener]
        agreed &= present
        n = np.broadcast_to(present.sum(axis=1), (size,))
        count = agreed.sum(axis=1)
        p_values[:, index], width = _exact(count, n)
        two_way, width_two_way = _two_way(agreed, present, count, n, own, p_values[:, index], width)
        found[index] = [n.sum(), (p_values[:, index] < ALPHA).sum(), 0, two_way.sum(), width.sum(), width_two_way.sum()]
    found[:, 2] = holm_rejections(p_values, ALPHA).sum(axis=0)
    return found


def _exact(count: Ints, n: Ints) -> tuple[Floats, Floats]:
    """Exact two-sided p against chance and the width of Clopper and Pearson's interval, looked up by n and count."""
    from scipy.stats import beta, binom

    p, width = np.ones(len(count)), np.ones(len(count))
    for size in np.unique(n):
        if size == 0:
            continue
        own, k = n == size, np.arange(size + 1)
        by_count = np.minimum(1.0, 2 * binom.cdf(np.minimum(k, size - k), size, CHANCE))
        low = np.where(k > 0, beta.ppf(ALPHA / 2, np.maximum(k, 1), size - k + 1), 0.0)
        high = np.where(k < size, beta.ppf(1 - ALPHA / 2, k + 1, np.maximum(size - k, 1)), 1.0)
        p[own], width[own] = by_count[count[own]], (high - low)[count[own]]
    return p, width


def _two_way(
    agreed: npt.NDArray[np.bool_],
    present: npt.NDArray[np.bool_],
    count: Ints,
    n: Ints,
    own: _PairTrials,
    p_exact: Floats,
    width_exact: Floats,
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Whether the two-way test rejects chance, and the width of its interval."""
    from scipy.stats import t

    rate = count / np.maximum(n, 1)
    counted = agreed.astype(np.float32)
    weight = present.astype(np.float32)

    def spread(order: Ints | slice, starts: Ints) -> Floats:
        sums = np.add.reduceat(counted[:, order], starts, axis=1)
        sizes = np.add.reduceat(weight[:, order], starts, axis=1)
        clusters = len(starts)
        residual = sums - rate[:, None] * sizes
        return np.asarray((residual**2).sum(axis=1) * clusters / max(clusters - 1, 1))

    by_listener = spread(slice(None), own.listener_starts)
    by_prompt = spread(own.prompt_order, own.prompt_starts)
    alone = n * rate * (1 - rate) * n / np.maximum(n - 1, 1)
    # No listener gets a prompt twice, so a listener and a prompt have one answer in common.
    variance = np.maximum(by_listener + by_prompt - alone, np.maximum(by_listener, by_prompt)) / np.maximum(n, 1) ** 2
    reach = t.ppf(1 - ALPHA / 2, own.degrees) * np.sqrt(variance)
    flat = variance <= 0
    # It never rejects where the exact test does not, and its interval is never narrower: dependence costs information.
    rejects = (p_exact < ALPHA) & (flat | (np.abs(rate - CHANCE) > reach))
    width = np.minimum(rate + reach, 1.0) - np.maximum(rate - reach, 0.0)
    return rejects, np.maximum(width, width_exact)


def listeners_for(
    layout: Layout,
    assumed: Assumptions,
    target: float,
    test: str,
    seed: int,
    simulations: int = SEARCH_SIMULATIONS,
    tick: Tick = lambda done: None,
) -> int | None:
    """The fewest listeners for which every pair has the target power; None if no number up to 30,000 trials has it.

    Fewer listeners get the first lists of the schedule, more listeners start again from the first list. The precision
    depends on the number of simulated studies.
    """
    per_listener = len(layout.pair) / layout.listeners
    if CHANCE in assumed.rates:
        return None

    def enough(number: int) -> bool:
        found = simulate(layout.resized(number), assumed, seed, simulations).least(test)
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
    """Plain data, as --json prints it."""
    return {**vars(power), "pairs": [vars(pair) for pair in power.pairs]}
