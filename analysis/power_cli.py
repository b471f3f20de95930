"""`rootnote analysis power`: what a study would find, by simulating it from the schedule that will run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from rich.table import Table

    from study.config import Study
    from study.design.power import Assumptions, Layout, Power

SEARCH_STEPS = 14  # about how many sizes a search looks at
WORDS = {"exact": "exact test", "holm": "exact test after Holm", "two_way": "two-way test"}
SHARE = click.FloatRange(0, 1, max_open=True)


@dataclass(frozen=True)
class Designed:
    """The layout that is simulated, and what should be said about where it comes from."""

    layout: Layout
    note: str = ""


@dataclass(frozen=True)
class AlternativeDesign:
    """A design at the cost of the study's: its power, and how often each test rejects where there is no effect."""

    kind: str
    layout: Layout
    cost_usd: float
    power: Power
    at_chance: Power


def _option(name: str, default: Any, kind: Any, help_: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(name, default=default, show_default=default is not None, type=kind, help=help_, **more)


@click.command()
@click.argument("folder", metavar="[STUDY]", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--effect",
    "effects",
    multiple=True,
    metavar="[PAIR=]RATE",
    help="True agreement, lapses apart: 0.7 for all pairs, 1-2=0.6 for one; repeatable.  [default: 0.6]",
)
@_option("--listeners", None, click.IntRange(1, 5000), "Listeners per embedder (default: the schedule's).")
@_option("--target", 0.8, click.FloatRange(0, 1, True, True), "Power wanted in every bin pair.")
@_option("--test", "holm", click.Choice(list(WORDS)), "The test that must have the target.")
@_option("--listener-sd", 0.5, click.FloatRange(0, 5), "Between listeners, on the logit scale.")
@_option("--prompt-sd", 0.5, click.FloatRange(0, 5), "Between prompts, on the logit scale.")
@_option("--lapse", 0.02, SHARE, "Share of answers given at random.")
@_option("--screening-loss", 0.1, SHARE, "Share who fail the prescreen; others take their places.")
@_option("--excluded", 0.0, SHARE, "Share of finished listeners whom the rules leave out.")
@_option("--embedder", None, click.STRING, "Whose schedule (default: the first's).")
@_option("--prompts", None, click.IntRange(6, 100_000), "Prompts that the robust design would find.")
@_option("--simulations", 10_000, click.IntRange(100, 1_000_000), "Studies simulated.")
@_option("--seed", 1, click.IntRange(0), "Of the simulation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def power(
    folder: Path,
    effects: tuple[str, ...],
    listeners: int | None,
    target: float,
    test: str,
    listener_sd: float,
    prompt_sd: float,
    lapse: float,
    screening_loss: float,
    excluded: float,
    embedder: str | None,
    prompts: int | None,
    simulations: int,
    seed: int,
    as_json: bool,
) -> None:
    """Power and interval width per bin pair, listeners for a target, and paper against robust at equal cost.

    Simulated from the schedule of STUDY, as it will run. Example: rootnote analysis power my-study --effect 0.62
    """
    from study.config import load_study
    from study.design.power import SEARCH_SIMULATIONS, Assumptions, as_data, listeners_for, simulate

    study = load_study(folder)
    assumed = Assumptions(parse_effects(effects), listener_sd, prompt_sd, lapse, excluded)
    designed = find_layout(study, embedder)
    schedule = designed.layout
    layout = schedule if listeners is None else schedule.resized(listeners)
    if len(layout.pair) * simulations > (most := 20_000_000_000):
        raise RootnoteError(
            f"{len(layout.pair):,} answers × {simulations:,} simulations are too many; "
            f"lower --simulations to {most // len(layout.pair):,} or fewer."
        )
    with _progress(as_json) as stage:
        here = simulate(layout, assumed, seed, simulations, stage("this design", simulations))
        null = simulate(layout, assumed.at_chance(), seed, simulations, stage("no effect", simulations))
        search, tick = min(simulations, SEARCH_SIMULATIONS), stage("listeners", SEARCH_STEPS)
        wanted = listeners_for(schedule, assumed, target, test, seed, search, tick)
        found = alternative_designs(study, layout, assumed, screening_loss, prompts, seed, simulations, stage)
    result = {
        "study": study.config.study.name,
        "assumed": {**vars(assumed), "rates": dict(zip(_pair_names(), assumed.rates, strict=True))},
        "screening_loss": screening_loss,
        "seed": seed,
        "note": designed.note,
        "design": as_data(here),
        "at_chance": as_data(null),
        "target": {"power": target, "test": test, "listeners": wanted, "recruits": _recruits(wanted, screening_loss)},
        "equal_cost": [_rival_data(rival) for rival in found],
    }
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _show(study, designed, here, null, assumed, found, result)


def parse_effects(texts: tuple[str, ...]) -> tuple[float, ...]:
    """Rates by pair from "0.6" (all pairs) and "1-2=0.6" (one pair, over the former).

    Raises:
        RootnoteError: where one is neither, or a rate is not between 0 and 1.
    """
    rates = dict.fromkeys(_pair_names(), 0.6)
    for text in sorted(texts, key=lambda text: "=" in text):
        pair, _, number = text.rpartition("=")
        if not re.fullmatch(r"0?\.\d+", number) or not 0 < float(number) < 1:
            raise RootnoteError(f"--effect {text[:40]}: give a rate between 0 and 1, as 0.6 or 1-2=0.6.")
        if pair and pair not in rates:
            raise RootnoteError(f"--effect {text[:40]}: there is no bin pair '{pair}'; they are {', '.join(rates)}.")
        rates.update({pair: float(number)} if pair else dict.fromkeys(rates, float(number)))
    return tuple(rates.values())


def _pair_names() -> list[str]:
    from study.design.bin_pairs import BIN_PAIRS, pair_name

    return [pair_name(*pair) for pair in BIN_PAIRS]


def find_layout(study: Study, embedder: str | None) -> Designed:
    """The schedule's layout; where nothing is built yet, the one that study.toml leads to.

    Raises:
        RootnoteError: where the embedder is not the study's.
    """
    from study.design.power import layout_of, layout_of_design
    from study.design.triplets import wanted_prompts
    from study.trial_plan import read_plan

    config = study.config
    name = embedder or config.embedding.embedders[0]
    if name not in config.embedding.embedders:
        raise RootnoteError(f"the study has no embedder '{name}'; it has {', '.join(config.embedding.embedders)}.")
    if study.schedule.is_file():
        plan = read_plan(study)
        return Designed(layout_of((trial for trials in plan.lists.values() for trial in trials), name))
    prompts = min(wanted_prompts(config.design), config.bins.prompts)
    note = f"The study is not built: a schedule over {prompts} prompts is assumed."
    return Designed(layout_of_design(config.design, prompts, config.study.seed), note)


def alternative_designs(
    study: Study,
    layout: Layout,
    assumed: Assumptions,
    loss: float,
    prompts: int | None,
    seed: int,
    simulations: int,
    stage: Callable[[str, int], Callable[[int], None]],
) -> list[AlternativeDesign]:
    """The paper's design and the robust one, with as many listeners as the cost of the study's pays."""
    from study.config_sections import DesignConfig
    from study.design.power import simulate

    design = study.config.design
    cost = layout.listeners * _cost_of_one(study, len(layout.pair) / layout.listeners, loss)
    found = []
    for kind in ("paper", "robust"):
        if kind == design.kind:
            other = layout
        else:
            trials = DesignConfig(kind=kind).scored_trials
            number = int(cost / _cost_of_one(study, trials, loss) + 1e-9)
            if number < 1:
                continue
            other = _other_layout(kind, number, prompts or study.config.bins.prompts, seed)
        tick = stage(kind, 2 * simulations)
        found.append(
            AlternativeDesign(
                kind,
                other,
                other.listeners * _cost_of_one(study, len(other.pair) / other.listeners, loss),
                simulate(other, assumed, seed, simulations, tick),
                simulate(other, assumed.at_chance(), seed, simulations, tick),
            )
        )
    return found


def _other_layout(kind: str, listeners: int, prompts: int, seed: int) -> Layout:
    """The paper's lists for so many listeners, or robust ones over up to so many prompts."""
    from study.config_sections import PAPER_PROMPTS, DesignConfig
    from study.design.power import layout_of_design
    from study.design.triplets import wanted_prompts

    if kind == "paper":
        return layout_of_design(DesignConfig(), PAPER_PROMPTS, seed).resized(listeners)
    robust = DesignConfig(kind="robust", listeners=listeners)
    return layout_of_design(robust, min(wanted_prompts(robust), prompts), seed)


def _cost_of_one(study: Study, trials: float, loss: float) -> float:
    """US dollars for a finished listener of so many scored trials, and for those who failed the prescreen before.

    The reward is for the study's own number of trials, and in proportion for another.
    """
    pay, design = study.config.pay, study.config.design
    checks = design.catch_trials + design.repeat_trials
    share = (trials + checks) / (design.scored_trials + checks)
    return pay.reward_usd * share + pay.screened_out_usd * loss / (1 - loss)


def _recruits(listeners: int | None, loss: float) -> int | None:
    return None if listeners is None else int(-(-listeners // (1 - loss)))


def _rival_data(rival: AlternativeDesign) -> dict[str, Any]:
    from study.design.power import as_data

    return {
        "kind": rival.kind,
        "cost_usd": round(rival.cost_usd, 2),
        "power": as_data(rival.power),
        "at_chance": as_data(rival.at_chance),
    }


# ------------------------------------------------------------------ on the terminal


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Bars on a terminal (stderr), nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:

        def stage(name: str, of: int) -> Callable[[int], None]:
            task = bars.add_task(name, total=of)
            return lambda done: bars.advance(task, done)

        yield stage


def _show(
    study: Study,
    designed: Designed,
    here: Power,
    null: Power,
    assumed: Assumptions,
    found: list[AlternativeDesign],
    result: dict[str, Any],
) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, file=sys.stdout)
    trials = f"{here.listeners} listeners × {here.trials} scored trials on {here.prompts} prompts"
    console.print(Text(f"{study.config.study.name}: {trials}", style="bold"))
    for text in (
        designed.note,
        _assumed_in_words(assumed),
        f"{here.simulations:,} simulated studies; rates, power and widths of 95 % intervals in %.",
    ):
        if text:
            console.print(Text(text))
    console.print(_power_table(here))
    console.print(Text(_chance_in_words(null)))
    console.print(Text(_target_in_words(study, result["target"], here, result["screening_loss"])))
    if len(found) > 1:
        console.print(_rival_table(found))
        console.print(Text("At equal cost, pay in proportion to trials. " + _rivals_in_words(found)))


def _assumed_in_words(assumed: Assumptions) -> str:
    rates = set(assumed.rates)
    rate = f"{_percent(rates.pop())} %" if len(rates) == 1 else "as below"
    lost = f"; {_percent(assumed.excluded)} % of listeners left out" if assumed.excluded else ""
    return (
        f"Assumed: true agreement {rate}, lapses {_percent(assumed.lapse)} %, standard deviation on the logit scale "
        f"{assumed.listener_sd:g} between listeners and {assumed.prompt_sd:g} between prompts{lost}."
    )


def _power_table(here: Power) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    heads = ("Bins", "n", "Expected", "Power\nexact", "Power\nHolm", "Power\ntwo-way", "Width\nexact", "Width\ntwo-way")
    for head in heads:
        shown.add_column(Text(head), justify="left" if head == "Bins" else "right", no_wrap=True)
    for pair in here.pairs:
        shown.add_row(
            pair.pair.replace("-", "–"),
            f"{pair.n:.0f}",
            *(f"{100 * value:.1f}" for value in list(vars(pair).values())[2:]),
        )
    return shown


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def _mean(power: Power, test: str) -> float:
    return float(sum(getattr(pair, test) for pair in power.pairs) / len(power.pairs))


def _chance_in_words(null: Power) -> str:
    exact, two_way = _mean(null, "exact"), _mean(null, "two_way")
    said = (
        f"Where there is no effect, the exact test of a pair is significant at 5 % in {_percent(exact)} % of studies, "
        f"the two-way test in {_percent(two_way)} %."
    )
    return said + (" The exact test is not to be trusted about other listeners and prompts." if exact > 0.075 else "")


def _target_in_words(study: Study, target: dict[str, Any], here: Power, loss: float) -> str:
    from study.design.power import CHANCE, MOST_TRIALS, as_data

    wish = f"{_percent(target['power'])} % power in every bin pair ({WORDS[target['test']]})"
    number = target["listeners"]
    if number is None and any(pair["rate"] == CHANCE for pair in as_data(here)["pairs"]):
        return f"{wish}: no number of listeners, because in one pair at least there is no effect."
    if number is None:
        most = MOST_TRIALS // here.trials
        return f"{wish}: not reached by up to {most:,} listeners on {here.prompts} prompts; more prompts would help."
    cost = number * _cost_of_one(study, here.trials, loss)
    return (
        f"{wish}: {number:,} listeners on these lists, {target['recruits']:,} recruits with "
        f"{_percent(loss)} % failing the prescreen, ${cost:,.2f} before fees (per embedder)."
    )


def _rival_table(found: list[AlternativeDesign]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    heads = ("Design", "Listeners", "Prompts", "Cost, $", "Power\nHolm", "Power\ntwo-way", "No effect\nexact",
             "No effect\ntwo-way")  # fmt: skip
    for head in heads:
        shown.add_column(Text(head), justify="left" if head == "Design" else "right", no_wrap=True)
    for rival in found:
        shown.add_row(
            rival.kind,
            f"{rival.power.listeners} × {rival.power.trials}",
            str(rival.power.prompts),
            f"{rival.cost_usd:,.2f}",
            *(f"{100 * _mean(rival.power, name):.1f}" for name in ("holm", "two_way")),
            *(f"{100 * _mean(rival.at_chance, name):.1f}" for name in ("exact", "two_way")),
        )
    return shown


def _rivals_in_words(found: list[AlternativeDesign]) -> str:
    by_kind = {rival.kind: rival for rival in found}
    gain = _mean(by_kind["robust"].power, "two_way") - _mean(by_kind["paper"].power, "two_way")
    if abs(gain) < 0.01:
        return "Both designs find the same."
    better = "robust" if gain > 0 else "paper"
    return f"By the two-way test the {better} design finds {_percent(abs(gain))} points more."
