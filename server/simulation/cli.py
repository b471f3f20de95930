"""`rootnote server rehearse`: simulated listeners take the study on their own server and database."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from study.arguments import json_option, study_argument

if TYPE_CHECKING:
    from rich.console import Console

    from server.simulation.bots import ResponseModel
    from server.simulation.run import RehearsalSummary
    from study.config import Study


def _launch(
    folder: Path, recruiter: str, model: ResponseModel, seed: int, at_once: int, patience: float, as_json: bool
) -> None:
    from server.simulation.launch import RehearsedLaunch, rehearse_launch  # imports the simulated marketplaces

    outcome = rehearse_launch(folder, recruiter, RehearsedLaunch(seed, model, at_once, patience), quiet=as_json)
    if as_json:
        click.echo(json.dumps(asdict(outcome)))


def _rate(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", type=click.FloatRange(0, 1), help=f"{text} (default: study.toml).")


@click.command()
@study_argument
@click.option("--listeners", type=click.IntRange(1), help="How many must finish (default: all places of the study).")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of the simulated listeners.")
@click.option(
    "--recruiter",
    metavar="KIND",
    help="Rehearse a complete launch, up to the last payment, on a simulated marketplace, such as prolific.",
)
@click.option(
    "--prolific-test",
    "emails",
    metavar="EMAIL",
    multiple=True,
    help="Run a launch in Prolific's own test mode, for a test participant with this address; costs nothing.",
)
@click.option("--url", help="Use a running server (`server run --rehearsal`) instead of starting one.")
@click.option("--true-rates", metavar="JSON", help='Agreement by bin pair, e.g. \'{"1-2": 0.8, "1-4": 0.97}\'.')
@click.option("--at-once", default=6, show_default=True, type=click.IntRange(1, 64), help="Listeners at the same time.")
@click.option(
    "--patience",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds to wait for a free place.",
)
@_rate("fail-prescreen", "Share of listeners who fail the prescreen")
@_rate("loudspeakers", "Share of listeners with loudspeakers instead of headphones")
@_rate("abandon", "Share of listeners who leave or vanish before the end")
@_rate("reload", "Share of pages that are reloaded")
@_rate("double-submit", "Share of forms that are submitted twice")
@json_option
def rehearse(
    folder: Path,
    listeners: int | None,
    seed: int,
    recruiter: str | None,
    emails: tuple[str, ...],
    url: str | None,
    true_rates: str | None,
    at_once: int,
    patience: float,
    as_json: bool,
    **rates: float | None,
) -> None:
    """Let simulated listeners take the real web study, in a separate database."""
    from rich.console import Console

    from server.simulation.bots import ResponseModel, StimulusLookup
    from server.simulation.run import ListenerMix, run_listeners
    from study.config import load_study
    from study.trial_plan import read_plan

    if emails:
        if url or listeners or recruiter:
            raise click.UsageError("--prolific-test takes neither --recruiter nor --url nor --listeners.")
        from server.simulation.own_test_mode import run_test_launch

        run_test_launch(folder, emails)
        return
    study = load_study(folder)
    if recruiter:
        if url or listeners:
            raise click.UsageError(
                "--recruiter starts a server and fills all its places; leave out --url and --listeners."
            )
        changed = {name: rate for name, rate in rates.items() if rate is not None}
        model = ResponseModel(study.config.rehearsal.model_copy(update=changed), read_true_rates(true_rates))
        _launch(folder, recruiter, model, seed, at_once, patience, as_json)
        return
    plan = read_plan(study)
    changed = {name: rate for name, rate in rates.items() if rate is not None}
    model = ResponseModel(study.config.rehearsal.model_copy(update=changed), read_true_rates(true_rates))
    lookup, wanted = StimulusLookup(plan, study.config.questions), listeners or len(plan.lists)
    if wanted > len(plan.lists):
        raise RootnoteError(
            f"--listeners {wanted} is more than the study's {len(plan.lists)} places; "
            "increase design.listeners in study.toml, or give a smaller number."
        )
    make_link = _link_maker(study, url) if url else None
    console = Console(stderr=True)
    if not as_json:
        subject = "simulated listener takes" if wanted == 1 else "simulated listeners take"
        click.echo(f"{wanted} {subject} '{study.config.study.name}'; no real people are involved.")
    with (
        contextlib.nullcontext(url) if url else _own_server(study) as address,
        _progress(console, wanted) as report,
    ):
        mix = ListenerMix(address, wanted, seed, model, at_once, patience, make_link, own_server=url is None)
        summary = run_listeners(mix, lookup, report)
    _print_summary(summary, folder, wanted, as_json, own=url is None)


def _link_maker(study: Study, url: str) -> Callable[[], str] | None:
    """Makes personal links to a server that may not be a rehearsal's, if the study admits nobody without one."""
    if not getattr(study.config.recruiter.settings, "personal_only", False):
        return None
    from server.identity.tokens import TokenSigner
    from server.settings import read_settings

    signer = TokenSigner(read_settings(study, os.environ).secret)
    return lambda: f"{url.rstrip('/')}/take?link={signer.make_link()}"


@contextlib.contextmanager
def _own_server(study: Study) -> Iterator[str]:
    """A server that simulated listeners reach by a plain link, whichever marketplace the study uses."""
    from server.simulation.server_process import own_server

    if not study.config.recruiter.has_arrivals:
        with own_server(study) as address:
            yield address
        return
    from server.simulation.launch import as_recruited_by

    given = dict(os.environ)
    given.setdefault("ROOTNOTE_REHEARSAL_DATABASE_URL", f"sqlite:///{study.folder / 'rehearsal.sqlite3'}")
    with as_recruited_by(study, "link") as by_link, own_server(by_link, given) as address:
        yield address


def read_true_rates(text: str | None) -> Mapping[str, float]:
    """Read --true-rates: bin pairs ("1-2" to "3-4") and probabilities.

    Raises:
        RootnoteError: if it is not such a JSON object.
    """
    from study.design.bin_pairs import BIN_PAIRS, pair_name

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
    """A progress bar on a terminal, otherwise a line for every tenth; yields a function of the number finished."""
    if not console.is_terminal:
        printed = [0]

        def line(finished: int) -> None:
            if finished * 10 // wanted > printed[0]:
                printed[0] = finished * 10 // wanted
                click.echo(f"  listeners finished: {finished} of {wanted}", err=True)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("  listeners finished"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("listeners", total=wanted)
        yield lambda finished: bar.update(task, completed=finished)


def _print_summary(summary: RehearsalSummary, folder: Path, wanted: int, as_json: bool, own: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        counts = {name: summary.outcomes.get(name, 0) for name in ("finished", "screened_out", "withdrawn", "vanished")}
        expired = summary.outcomes.get("expired", 0)
        click.echo(
            f"Listeners: {counts['finished']} finished, {counts['screened_out']} screened out, "
            f"{counts['withdrawn']} left, {counts['vanished']} vanished{f', {expired} expired' if expired else ''}. "
            f"Pages reloaded: {summary.reloads}. Forms sent twice: {summary.double_submits}."
        )
        rate = summary.answered / max(summary.seconds, 1e-9)
        click.echo(f"Responses: {summary.answered} in {summary.seconds:.1f} s ({rate:.0f} per second).")
    if summary.finished < wanted:
        raise RootnoteError(
            f"listeners who finished: only {summary.finished} of {wanted}"
            + (
                "; run the command again."
                if own
                else "; the places of those who vanished become free when their reservations expire "
                "(recruiter.reservation_minutes in study.toml)."
            )
        )
    if not as_json and own:
        click.echo(f"Next: rootnote server export {folder} --rehearsal")
