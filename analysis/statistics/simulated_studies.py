"""Studies to simulate: the layout of their trials, and answers of listeners, prompts and triplets that differ.

The answer of listener i to triplet t of prompt j in bin pair k agrees with probability lapse / 2 + (1 - lapse) ·
logistic(β_k + u_i + v_j + w_t), where u, v and w are normal with the given standard deviations on the logit scale. β_k
is set so that the mean over listeners, prompts and triplets, without lapses, is the assumed rate.
Conventions: rates lie in [0, 1]; pairs are in the order of study.design.bin_pairs.BIN_PAIRS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.statistics.primary import AnswerLayout
from embeddings.errors import ConfigError
from embeddings.wording import counted
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import Cell, assign_paper, assign_robust
from study.trials import PlannedTrial

CHANCE = 0.5

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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

    @property
    def triplet(self) -> Ints:
        return np.asarray(np.unique(self.prompt * len(BIN_PAIRS) + self.pair, return_inverse=True)[1], np.int64)

    def as_answers(self) -> AnswerLayout:
        return AnswerLayout(*(codes.astype(np.intp) for codes in (self.listener, self.prompt, self.pair, self.triplet)))

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

    `rates`: the true agreement of each pair, without lapses; the deviations are on the logit scale; `excluded`: the
    share of finished listeners that the exclusion rules drop.
    """

    rates: tuple[float, ...]
    listener_sd: float = 0.5
    prompt_sd: float = 0.5
    triplet_sd: float = 0.5
    lapse: float = 0.02
    excluded: float = 0.0

    @property
    def spread(self) -> float:
        """The standard deviation of all random effects together."""
        return float(np.linalg.norm([self.listener_sd, self.prompt_sd, self.triplet_sd]))

    def at_chance(self) -> Assumptions:
        return replace(self, rates=(CHANCE,) * len(self.rates))


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


def draw_studies(
    layout: Layout, assumed: Assumptions, studies: int, rng: np.random.Generator
) -> tuple[Floats, Bools | None]:
    """Answers (1: agreed) of that many studies, and which of them the exclusion rules leave (None: all)."""
    beta = logit_means(assumed.rates, assumed.spread)
    eta = np.broadcast_to(beta[layout.pair], (studies, len(layout.pair))).astype(np.float32)
    for sd, codes in (
        (assumed.listener_sd, layout.listener), (assumed.prompt_sd, layout.prompt), (assumed.triplet_sd, layout.triplet)
    ):  # fmt: skip
        if sd:
            eta += sd * rng.standard_normal((studies, int(codes.max()) + 1), np.float32)[:, codes]
    # tanh is in -1..1: half of it is added to chance
    rate = 0.5 + 0.5 * (1 - assumed.lapse) * np.tanh(0.5 * eta)
    agreed = (rng.random(rate.shape, np.float32) < rate).astype(np.float64)
    if not assumed.excluded:
        return agreed, None
    stay = rng.random((studies, layout.listeners), np.float32) >= assumed.excluded
    stay[~stay.any(axis=1), 0] = True
    return agreed, stay[:, layout.listener]
