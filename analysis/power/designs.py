"""Designs: the layout that a study will run, and the paper's and the robust design at the same cost.

Conventions: costs are in US dollars before the marketplace's fees; rates and shares lie in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.statistics.power import Power, simulate
from analysis.statistics.simulated_studies import Assumptions, Layout, layout_of, layout_of_design
from embeddings.errors import RootnoteError
from study.config import Study
from study.config_sections import PAPER_PROMPTS, DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.design.triplets import wanted_prompts
from study.preregistration.planned_test import PlannedTest
from study.trial_plan import read_plan

DEFAULT_RATE = 0.6
# A stage of work: takes its name and number of steps, returns a function that counts the steps done.
ShowProgress = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True)
class PlannedLayout:
    """The simulated layout, and a sentence on its source unless that is the built schedule."""

    layout: Layout
    note: str = ""


@dataclass(frozen=True)
class AlternativeDesign:
    """A design that costs as much as the study's: its power, and how often each test rejects without an effect."""

    kind: str
    layout: Layout
    cost_usd: float
    power: Power
    at_chance: Power


def parse_effects(texts: Sequence[str]) -> tuple[float, ...]:
    """True agreement by bin pair from texts such as "0.6" (all pairs) and "1-2=0.6" (one pair; takes precedence).

    Raises:
        RootnoteError: if a text has another form, or its rate is not between 0 and 1.
    """
    rates = dict.fromkeys(pair_names(), DEFAULT_RATE)
    for text in sorted(texts, key=lambda text: "=" in text):
        pair, _, number = text.rpartition("=")
        if not re.fullmatch(r"0?\.\d+", number) or not 0 < float(number) < 1:
            raise RootnoteError(f"--effect {text[:40]}: give a rate between 0 and 1, such as 0.6 or 1-2=0.6.")
        if pair and pair not in rates:
            raise RootnoteError(f"--effect {text[:40]}: there is no bin pair '{pair}'; they are {', '.join(rates)}.")
        rates.update({pair: float(number)} if pair else dict.fromkeys(rates, float(number)))
    return tuple(rates.values())


def pair_names() -> list[str]:
    """The bin pairs as written on the command line: "1-2" to "3-4"."""
    return [f"{high}-{low}" for high, low in BIN_PAIRS]


def find_layout(study: Study, embedder: str | None) -> PlannedLayout:
    """The layout of the built schedule, or of the design in study.toml if the study is not built yet.

    Args:
        embedder: whose trials; None: the first embedder in study.toml.

    Raises:
        RootnoteError: if the study does not have the embedder.
    """
    config = study.config
    name = embedder or config.compared[0]
    if name not in config.compared:
        raise RootnoteError(f"the study has no embedder '{name}'; it has {', '.join(config.compared)}.")
    if study.schedule.is_file():
        plan = read_plan(study)
        return PlannedLayout(layout_of((trial for trials in plan.lists.values() for trial in trials), name))
    prompts = min(wanted_prompts(config.design), config.bins.prompts)
    note = f"The study is not built: a schedule over {prompts} prompts is assumed."
    return PlannedLayout(layout_of_design(config.design, prompts, config.study.seed), note)


def alternative_designs(
    study: Study,
    layout: Layout,
    assumed: Assumptions,
    loss: float,
    prompts: int | None,
    seed: int,
    simulations: int,
    stage: ShowProgress,
    test: PlannedTest,
) -> list[AlternativeDesign]:
    """Simulate the paper's design and the robust design, each with as many listeners as the study's budget pays for.

    Args:
        layout: the study's own design, which sets the budget.
        loss: share of listeners who fail the prescreen.
        prompts: prompts available to the robust design; None: `bins.prompts` of study.toml.
    """
    design = study.config.design
    cost = layout.listeners * cost_per_listener(study, len(layout.pair) / layout.listeners, loss)
    found = []
    for kind in ("paper", "robust"):
        if kind == design.kind:
            other = layout
        else:
            trials = DesignConfig(kind=kind).scored_trials
            number = int(cost / cost_per_listener(study, trials, loss) + 1e-9)
            if number < 1:
                continue
            other = _other_layout(kind, number, prompts or study.config.bins.prompts, seed)
        tick = stage(kind, 2 * simulations)
        found.append(
            AlternativeDesign(
                kind,
                other,
                other.listeners * cost_per_listener(study, len(other.pair) / other.listeners, loss),
                simulate(other, assumed, seed, simulations, tick, test),
                simulate(other, assumed.at_chance(), seed, simulations, tick, test),
            )
        )
    return found


def _other_layout(kind: str, listeners: int, prompts: int, seed: int) -> Layout:
    """The paper's lists for that many listeners, or robust lists over at most `prompts` prompts."""
    if kind == "paper":
        return layout_of_design(DesignConfig(), PAPER_PROMPTS, seed).resized(listeners)
    robust = DesignConfig(kind="robust", listeners=listeners)
    return layout_of_design(robust, min(wanted_prompts(robust), prompts), seed)


def cost_per_listener(study: Study, trials: float, loss: float) -> float:
    """US dollars per finished listener with `trials` scored trials, screened-out listeners included.

    The reward in study.toml is for the study's own number of trials; for another number it changes in proportion.
    """
    pay, design = study.config.pay, study.config.design
    checks = design.catch_trials + design.repeat_trials
    share = (trials + checks) / (design.scored_trials + checks)
    return pay.reward * share + pay.screened_out * loss / (1 - loss)


def recruits_needed(listeners: int | None, loss: float) -> int | None:
    """Listeners to recruit so that `listeners` pass the prescreen; None for None."""
    return None if listeners is None else int(-(-listeners // (1 - loss)))
