"""`rootnote server` open, sync, approve, pay and close: their options. The actions are in recruiting_actions."""

from __future__ import annotations

from pathlib import Path

import click

from server.commands.common import dry_run_option, rehearsal_option, study_argument, yes_option

# The actions need the database and the marketplaces, so they are imported when a command runs: help is instant.

watch_option = click.option("--watch", is_flag=True, help="Keep synchronising until the study is complete.")
every_option = click.option(
    "--every", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds between passes of --watch."
)


@click.command(name="open")
@study_argument
@click.option("--live", is_flag=True, help="Spend real money (default: the sandbox, if there is one).")
@click.option("--budget", metavar="AMOUNT", help="Maximum cost of the launch, fees included.")
@click.option("--draft", is_flag=True, help="Only make the study at the marketplace, to look at it; nobody is invited.")
@watch_option
@every_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show places, cost, hourly pay and what is missing; needs no key or network, and writes nothing.",
)
@yes_option
@rehearsal_option
def open_(
    folder: Path,
    live: bool,
    budget: str | None,
    draft: bool,
    watch: bool,
    every: float,
    dry_run: bool,
    yes: bool,
    rehearsal: bool,
) -> None:
    """Open all places of the study at the marketplace, or those that are missing.

    \b
    Examples:
      rootnote server open my-study --dry-run
      rootnote server open my-study --live --draft
      rootnote server open my-study --live --budget 200
    """
    from server.commands import recruiting_open

    if dry_run:
        recruiting_open.preview_open(folder, budget, rehearsal)
        return
    recruiting_open.open_study(folder, live, budget, watch, every, draft, yes, rehearsal)


@click.command(name="sync")
@study_argument
@click.option("--no-approve", is_flag=True, help="Approve nothing.")
@watch_option
@every_option
@dry_run_option
@rehearsal_option
def sync_(folder: Path, no_approve: bool, watch: bool, every: float, dry_run: bool, rehearsal: bool) -> None:
    """Fetch the marketplace's state, approve complete work, open missing places, retry payments in unknown state."""
    from server.commands import recruiting_actions

    recruiting_actions.sync_study(folder, no_approve, watch, every, dry_run, rehearsal)


@click.command()
@study_argument
@click.argument("pseudonyms", nargs=-1)
@click.option("--anyway", is_flag=True, help="Approve the named assignments even if they are incomplete.")
@dry_run_option
@yes_option
@rehearsal_option
def approve(folder: Path, pseudonyms: tuple[str, ...], anyway: bool, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Approve complete work: all of it, or that of the named assignments."""
    if anyway and not pseudonyms:
        raise click.UsageError("--anyway needs the pseudonyms of assignments.")
    from server.commands import recruiting_actions

    recruiting_actions.approve_work(folder, pseudonyms, anyway, dry_run, yes, rehearsal)


@click.command()
@study_argument
@click.option("--bonus", nargs=2, metavar="ASSIGNMENT AMOUNT", help="Pay a bonus to one assignment, by pseudonym.")
@click.option("--to-floor", is_flag=True, help="Top up everyone who finished to the hourly minimum of study.toml.")
@click.option("--reason", default="", help="Message that the listener reads with a bonus.")
@dry_run_option
@yes_option
@rehearsal_option
def pay(
    folder: Path,
    bonus: tuple[str, str] | None,
    to_floor: bool,
    reason: str,
    dry_run: bool,
    yes: bool,
    rehearsal: bool,
) -> None:
    """Send all outstanding payments except approvals: screen-outs, partial pay, listeners who could not submit.

    Example: rootnote server pay my-study --bonus 3f9a2c 0.50 --reason "Thank you for your report."
    """
    from server.commands import recruiting_actions

    recruiting_actions.pay_listeners(folder, bonus, to_floor, reason, dry_run, yes, rehearsal)


@click.command()
@study_argument
@dry_run_option
@yes_option
@rehearsal_option
def close(folder: Path, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Stop recruiting: current listeners may finish and are paid; new ones are not admitted. Nothing is deleted."""
    from server.commands import recruiting_actions

    recruiting_actions.close_study(folder, dry_run, yes, rehearsal)


@click.command()
@study_argument
@click.argument("pseudonym")
@click.option("--decline", is_flag=True, help="Do not count the run, and owe nothing for it.")
@click.option("--reason", required=True, help="Why, for the audit log.")
@rehearsal_option
def confirm(folder: Path, pseudonym: str, decline: bool, reason: str, rehearsal: bool) -> None:
    """Confirm a run that the marketplace has not listed: it then counts and is paid. PSEUDONYM: of the assignment.

    Example: rootnote server confirm my-study 3f9a2c --reason "The worker wrote to us and named the code."
    """
    from server.commands import confirming

    confirming.confirm_run(folder, pseudonym, decline, reason, rehearsal)
