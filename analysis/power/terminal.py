"""The power of a design on a terminal: a progress bar, tables and sentences."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from analysis.power.designs import AlternativeDesign, PlannedLayout, ShowProgress, cost_per_listener
from analysis.statistics.power import MOST_TRIALS, Power, as_data
from analysis.statistics.simulated_studies import CHANCE, Assumptions
from study.config import Study
from study.preregistration.planned_test import PlannedTest

TEST_NAMES = {
    "primary": "primary test", "minimum": "minimum-effect test", "exact": "exact test, uncorrected",
    "holm": "exact test after Holm", "two_way": "two-way test, uncorrected",
}  # fmt: skip
PRIMARY_NAMES = {
    "two_way_holm": "two-way test with Holm’s correction",
    "exact_holm": "exact binomial test with Holm’s correction (the paper’s)",
    "mixed_holm": "mixed model with Holm’s correction",
}


@contextmanager
def progress(quiet: bool) -> Iterator[ShowProgress]:
    """Bars on a terminal (stderr), nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:

        def stage(name: str, steps: int) -> Callable[[int], None]:
            task = bars.add_task(name, total=steps)
            return lambda done: bars.advance(task, done)

        yield stage


def show(
    study: Study,
    planned: PlannedLayout,
    design: Power,
    null: Power,
    assumed: Assumptions,
    alternatives: Sequence[AlternativeDesign],
    result: dict[str, Any],
    test: PlannedTest,
) -> None:
    """Print the power of the design, the listeners needed for the target, and the designs of equal cost."""
    console = Console(highlight=False, file=sys.stdout)
    trials = f"{design.listeners} listeners × {design.trials} scored trials on {design.prompts} prompts"
    console.print(Text(f"{study.config.study.name}: {trials}", style="bold"))
    for text in (
        planned.note,
        _describe_assumptions(assumed),
        f"Primary test: {PRIMARY_NAMES[test.primary]}, {'one' if test.alternative == 'greater' else 'two'}-sided; the "
        f"same function as in the report. “At least”: shows more than {_percent(CHANCE + test.smallest_effect)} %, the "
        "smallest effect of interest.",
        f"{design.simulations:,} simulated studies (Monte Carlo error of a power: at most "
        f"{_percent(design.error(0.5))} points); rates, power and widths of 95 % intervals in %.",
    ):
        if text:
            console.print(Text(text))
    console.print(_power_table(design))
    console.print(Text(_describe_null(null)))
    console.print(Text(_describe_target(study, result["target"], design, result["screening_loss"])))
    if len(alternatives) > 1:
        console.print(_alternatives_table(alternatives))
        console.print(
            Text("Both designs cost the same, with pay in proportion to trials. " + _compare_alternatives(alternatives))
        )


def _describe_assumptions(assumed: Assumptions) -> str:
    rates = set(assumed.rates)
    rate = f"{_percent(rates.pop())} %" if len(rates) == 1 else "as below"
    lost = f"; {_percent(assumed.excluded)} % of listeners excluded" if assumed.excluded else ""
    return (
        f"Assumed: true agreement {rate}, lapses {_percent(assumed.lapse)} %, standard deviation on the logit scale "
        f"{assumed.listener_sd:g} between listeners, {assumed.prompt_sd:g} between prompts and {assumed.triplet_sd:g} "
        f"between triplets{lost}."
    )


def _power_table(power: Power) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    heads = ("Bins", "n", "Expected", "Power\nprimary", "±", "At\nleast", "Exact,\nHolm", "Width\nprimary")
    for head in heads:
        shown.add_column(Text(head), justify="left" if head == "Bins" else "right", no_wrap=True)
    for pair in power.pairs:
        values = (pair.rate, pair.primary, power.error(pair.primary), pair.minimum, pair.holm, pair.width_primary)
        shown.add_row(pair.pair.replace("-", "–"), f"{pair.n:.0f}", *(f"{100 * value:.1f}" for value in values))
    return shown


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def _mean(power: Power, test: str) -> float:
    return float(sum(getattr(pair, test) for pair in power.pairs) / len(power.pairs))


def _describe_null(null: Power) -> str:
    exact = _mean(null, "exact")
    sentence = (
        f"If there is no effect, the primary test finds one in some bin pair in {_percent(null.any_pair)} % of studies "
        f"(± {_percent(null.error(null.any_pair))}); the exact test of a single pair, uncorrected, is significant in "
        f"{_percent(exact)} %."
    )
    return sentence + (
        " Do not rely on the exact test for conclusions about other listeners and prompts." if exact > 0.075 else ""
    )


def _describe_target(study: Study, target: dict[str, Any], power: Power, loss: float) -> str:
    goal = f"{_percent(target['power'])} % power in every bin pair ({TEST_NAMES[target['test']]})"
    number = target["listeners"]
    if number is None and any(pair["rate"] == CHANCE for pair in as_data(power)["pairs"]):
        return f"{goal}: no number of listeners is enough, because at least one pair has no effect."
    if number is None:
        most = MOST_TRIALS // power.trials
        return f"{goal}: not reached with up to {most:,} listeners on {power.prompts} prompts; more prompts would help."
    cost = number * cost_per_listener(study, power.trials, loss)
    return (
        f"{goal}: {number:,} listener{'' if number == 1 else 's'} on these lists, {target['recruits']:,} recruits if "
        f"{_percent(loss)} % fail the prescreen, ${cost:,.2f} before fees (per embedder)."
    )


def _alternatives_table(alternatives: Sequence[AlternativeDesign]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    heads = (
        "Design", "Listeners", "Prompts", "Cost, $", "Power\nprimary", "Power\nexact, Holm", "No effect:\nany pair",
    )  # fmt: skip
    for head in heads:
        shown.add_column(Text(head), justify="left" if head == "Design" else "right", no_wrap=True)
    for one in alternatives:
        shown.add_row(
            one.kind,
            f"{one.power.listeners} × {one.power.trials}",
            str(one.power.prompts),
            f"{one.cost_usd:,.2f}",
            *(f"{100 * _mean(one.power, name):.1f}" for name in ("primary", "holm")),
            f"{100 * one.at_chance.any_pair:.1f}",
        )
    return shown


def _compare_alternatives(alternatives: Sequence[AlternativeDesign]) -> str:
    by_kind = {one.kind: one for one in alternatives}
    gain = _mean(by_kind["robust"].power, "primary") - _mean(by_kind["paper"].power, "primary")
    if abs(gain) < 0.01:
        return "Both designs have the same power."
    better = "robust" if gain > 0 else "paper"
    points = _percent(abs(gain))
    return f"With the primary test, the {better} design has {points} percentage points more power."
