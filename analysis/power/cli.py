"""`rootnote analysis power`: what a study would find, by simulating it from the schedule that will run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from analysis.power.designs import AlternativeDesign

SEARCH_STEPS = 14  # about how many numbers of listeners a search tries
MOST_ANSWERS = 20_000_000_000  # the most answers that are simulated
TESTS = ("primary", "minimum", "exact", "holm", "two_way")  # fields of PairPower
MOST_FITS = 200  # simulated studies when every study needs a mixed model, unless a number is given
SHARE = click.FloatRange(0, 1, max_open=True)


@dataclass(frozen=True)
class PowerOptions:
    """The options of the command."""

    folder: Path
    effects: tuple[str, ...]
    listeners: int | None
    target: float
    test: str
    smallest_effect: float | None
    listener_sd: float
    prompt_sd: float
    triplet_sd: float
    lapse: float
    screening_loss: float
    excluded: float
    embedder: str | None
    prompts: int | None
    simulations: int | None
    seed: int
    as_json: bool


def _option(name: str, default: Any, kind: Any, help_: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(name, default=default, show_default=default is not None, type=kind, help=help_, **more)


@click.command()
@click.argument("folder", metavar="[STUDY]", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--effect",
    "effects",
    multiple=True,
    metavar="[PAIR=]RATE",
    help="True agreement without lapses: 0.7 for all pairs, 1-2=0.6 for one; repeatable.  [default: 0.6]",
)
@_option("--listeners", None, click.IntRange(1, 5000), "Listeners per embedder (default: as scheduled).")
@_option("--target", 0.8, click.FloatRange(0, 1, True, True), "Target power in every bin pair.")
@_option(
    "--test",
    "primary",
    click.Choice(TESTS),
    "The test that must reach the target: the primary test, its test against the smallest effect of interest "
    "(minimum), or, for comparison, exact, exact with Holm, or two-way, uncorrected.",
)
@_option(
    "--smallest-effect",
    None,
    click.FloatRange(0, 0.5, True, True),
    "Smallest rate above 0.5 that is of interest (default: as planned).",
)
@_option("--listener-sd", 0.5, click.FloatRange(0, 5), "Standard deviation between listeners (logit scale).")
@_option("--prompt-sd", 0.5, click.FloatRange(0, 5), "Standard deviation between prompts (logit scale).")
@_option("--triplet-sd", 0.5, click.FloatRange(0, 5), "Standard deviation between triplets (logit scale).")
@_option("--lapse", 0.02, SHARE, "Share of answers given at random.")
@_option("--screening-loss", 0.1, SHARE, "Share who fail the prescreen and are replaced.")
@_option("--excluded", 0.0, SHARE, "Share of finished listeners that the exclusion rules drop.")
@_option("--embedder", None, click.STRING, "Embedder whose schedule is simulated (default: the first).")
@_option("--prompts", None, click.IntRange(6, 100_000), "Prompts available to the robust design.")
@_option(
    "--simulations",
    None,
    click.IntRange(100, 1_000_000),
    "Number of simulated studies (default: 10000; 200 with a mixed model).",
)
@_option("--seed", 1, click.IntRange(0), "Seed of the simulation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def power(**options: Any) -> None:
    """Estimate power and interval width per bin pair.

    Simulates the schedule of STUDY as it will run, and examines every simulated study with the primary test of the
    plan, as the report will. Also gives the number of listeners for a target power, and compares
    the paper's design with the robust design at equal cost. Example: rootnote analysis power my-study --effect 0.62
    """
    run_power(PowerOptions(**options))


def run_power(options: PowerOptions) -> None:
    """Simulate and print; see `power`.

    Raises:
        RootnoteError: if the study cannot be read, an option does not fit it, or the simulation would be too large.
    """
    from analysis.power import terminal
    from analysis.power.designs import alternative_designs, find_layout, pair_names, parse_effects, recruits_needed
    from analysis.statistics.power import SEARCH_SIMULATIONS, as_data, listeners_for, simulate
    from analysis.statistics.simulated_studies import Assumptions
    from study.config import load_study
    from study.preregistration.planned_test import planned_test_of

    study = load_study(options.folder)
    test = planned_test_of(study)
    if options.smallest_effect is not None:
        test = replace(test, smallest_effect=options.smallest_effect)
    assumed = Assumptions(
        parse_effects(options.effects), options.listener_sd, options.prompt_sd, options.triplet_sd, options.lapse,
        options.excluded,
    )  # fmt: skip
    planned = find_layout(study, options.embedder)
    layout = planned.layout if options.listeners is None else planned.layout.resized(options.listeners)
    simulations = options.simulations or (MOST_FITS if test.primary == "mixed_holm" else 10_000)
    seed = options.seed
    if len(layout.pair) * simulations > MOST_ANSWERS:
        raise RootnoteError(
            f"{len(layout.pair):,} answers × {simulations:,} simulations are too many; "
            f"lower --simulations to {MOST_ANSWERS // len(layout.pair):,} or fewer."
        )
    with terminal.progress(options.as_json) as stage:
        design = simulate(layout, assumed, seed, simulations, stage("this design", simulations), test)
        null = simulate(layout, assumed.at_chance(), seed, simulations, stage("no effect", simulations), test)
        search = min(simulations, MOST_FITS // 2 if test.primary == "mixed_holm" else SEARCH_SIMULATIONS)
        tick = stage("listeners", SEARCH_STEPS)
        needed = listeners_for(planned.layout, assumed, options.target, options.test, seed, search, tick, test)
        alternatives = alternative_designs(
            study, layout, assumed, options.screening_loss, options.prompts, seed, simulations, stage, test
        )
    result = {
        "study": study.config.study.name,
        "assumed": {**vars(assumed), "rates": dict(zip(pair_names(), assumed.rates, strict=True))},
        "screening_loss": options.screening_loss,
        "seed": seed,
        "note": planned.note,
        "primary_test": test.as_data(),
        "design": as_data(design),
        "at_chance": as_data(null),
        "target": {
            "power": options.target,
            "test": options.test,
            "listeners": needed,
            "recruits": recruits_needed(needed, options.screening_loss),
        },
        "equal_cost": [_as_data(one) for one in alternatives],
    }
    if options.as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    terminal.show(study, planned, design, null, assumed, alternatives, result, test)


def _as_data(alternative: AlternativeDesign) -> dict[str, Any]:
    from analysis.statistics.power import as_data

    return {
        "kind": alternative.kind,
        "cost_usd": round(alternative.cost_usd, 2),
        "power": as_data(alternative.power),
        "at_chance": as_data(alternative.at_chance),
    }
