"""`rootnote server rehearse`: a fresh rehearsal database, a server of its own, and a crowd of simulated listeners."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from embeddings.errors import RootnoteError
from server.simulation.bots import ResponseModel, StimulusLookup
from server.simulation.run import ListenerMix, RehearsalSummary, run_listeners
from server.simulation.server_process import own_server
from study.config import load_study
from study.design.bin_pairs import BIN_PAIRS, pair_name
from study.trial_plan import read_plan


def _launch(
    folder: Path, recruiter: str, mind: ResponseModel, seed: int, at_once: int, patience: float, as_json: bool
) -> None:
    from server.simulation.launch import RehearsedLaunch, rehearse_launch  # the marketplaces: only here

    outcome = rehearse_launch(folder, recruiter, RehearsedLaunch(seed, mind, at_once, patience), quiet=as_json)
    if as_json:
        click.echo(json.dumps(asdict(outcome)))


def _rate(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", type=click.FloatRange(0, 1), help=f"{text} (default: study.toml).")


@click.command()
@click.argument("folder", metavar="[STUDY]", type=click.Path(path_type=Path), default=Path())
@click.option("--listeners", type=click.IntRange(1), help="How many are to finish (default: all the study's places).")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the simulated listeners.")
@click.option(
    "--recruiter",
    type=click.Choice(["mturk", "prolific"]),
    help="Rehearse a whole launch on a marketplace of this machine, to the last payment.",
)
@click.option("--url", help="Rehearse on a server that runs (`server run --rehearsal`), not on one of its own.")
@click.option("--true-rates", metavar="JSON", help='Agreement by bin pair, e.g. \'{"1-2": 0.8, "1-4": 0.97}\'.')
@click.option("--at-once", default=6, show_default=True, type=click.IntRange(1, 64), help="Listeners at once.")
@click.option(
    "--patience",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds to wait for a place.",
)
@_rate("fail-prescreen", "Share who fail the prescreen")
@_rate("loudspeakers", "Share who listen over loudspeakers, not headphones")
@_rate("abandon", "Share who leave or vanish midway")
@_rate("reload", "Share of pages that are loaded twice")
@_rate("double-submit", "Share of forms that are sent twice")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rehearse(
    folder: Path,
    listeners: int | None,
    seed: int,
    recruiter: str | None,
    url: str | None,
    true_rates: str | None,
    at_once: int,
    patience: float,
    as_json: bool,
    **rates: float | None,
) -> None:
    """Send simulated listeners through the real web study, in a database of their own."""
    study = load_study(folder)
    if recruiter:
        if url or listeners:
            raise click.UsageError("--recruiter fills all places of a server of its own: leave out --url, --listeners.")
        given = {name: rate for name, rate in rates.items() if rate is not None}
        mind = ResponseModel(study.config.rehearsal.model_copy(update=given), read_true_rates(true_rates))
        _launch(folder, recruiter, mind, seed, at_once, patience, as_json)
        return
    plan = read_plan(study)
    given = {name: rate for name, rate in rates.items() if rate is not None}
    mind = ResponseModel(study.config.rehearsal.model_copy(update=given), read_true_rates(true_rates))
    memory, wanted = StimulusLookup(plan), listeners or len(plan.lists)
    if wanted > len(plan.lists):
        raise RootnoteError(
            f"--listeners {wanted} is more than the study's {len(plan.lists)} places; "
            "raise design.listeners in study.toml, or ask for fewer."
        )
    console = Console(stderr=True)
    if not as_json:
        click.echo(f"{wanted} simulated listeners rehearse '{study.config.study.name}'; their answers are no one's.")
    with (
        contextlib.nullcontext(url) if url else own_server(study) as address,
        _progress(console, wanted) as report,
    ):
        summary = run_listeners(ListenerMix(address, wanted, seed, mind, at_once, patience), memory, report)
    _tell(summary, folder, wanted, as_json, own=url is None)


def read_true_rates(text: str | None) -> Mapping[str, float]:
    """Read --true-rates: bin pairs ("1-2" to "3-4") to probabilities.

    Raises:
        RootnoteError: where it is no such JSON.
    """
    try:
        rates = json.loads(text or "{}")
        if not isinstance(rates, dict) or not rates.keys() <= {pair_name(*pair) for pair in BIN_PAIRS}:
            raise ValueError
        if not all(type(rate) in (int, float) and 0 <= rate <= 1 for rate in rates.values()):
            raise ValueError
    except ValueError:
        raise RootnoteError(
            "--true-rates is not a JSON object of bin pairs and rates from 0 to 1, such as "
            '\'{"1-2": 0.8, "3-4": 0.6}\'.'
        ) from None
    return {pair: float(rate) for pair, rate in rates.items()}


@contextlib.contextmanager
def _progress(console: Console, wanted: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every tenth elsewhere; yields what to call with how many have finished."""
    if not console.is_terminal:
        told = [0]

        def line(finished: int) -> None:
            if finished * 10 // wanted > told[0]:
                told[0] = finished * 10 // wanted
                click.echo(f"  {finished} of {wanted} listeners finished", err=True)

        yield line
        return
    columns = (TextColumn("  listeners finished"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("listeners", total=wanted)
        yield lambda finished: bar.update(task, completed=finished)


def _tell(summary: RehearsalSummary, folder: Path, wanted: int, as_json: bool, own: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        counts = {name: summary.outcomes.get(name, 0) for name in ("finished", "screened_out", "withdrawn", "vanished")}
        expired = summary.outcomes.get("expired", 0)
        click.echo(
            f"{counts['finished']} finished, {counts['screened_out']} screened out, {counts['withdrawn']} left, "
            f"{counts['vanished']} vanished{f', {expired} lost their place' if expired else ''}; "
            f"{summary.reloads} reloads, {summary.double_submits} double clicks."
        )
        rate = summary.answered / max(summary.seconds, 1e-9)
        click.echo(f"{summary.answered} answers in {summary.seconds:.1f} s ({rate:.0f} a second).")
    if summary.finished < wanted:
        raise RootnoteError(
            f"only {summary.finished} of {wanted} listeners found a place and finished"
            + (
                "; run it again."
                if own
                else "; places held by those who vanished come back when their reservation ends "
                "(recruiter.reservation_minutes in study.toml)."
            )
        )
    if not as_json and own:
        click.echo(f"Next: rootnote server export {folder} --rehearsal")
