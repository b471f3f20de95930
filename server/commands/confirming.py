"""The action of `rootnote server confirm`, and the list of runs that wait for it."""

from __future__ import annotations

from pathlib import Path

import click

from embeddings.errors import RootnoteError
from server.audit.actor import current_actor
from server.payments.formatting import as_money
from server.recruiting import confirmation
from server.recruiting.context import RecruitingContext

MOST_SHOWN = 20


def confirm_run(folder: Path, pseudonym: str, decline: bool, reason: str, rehearsal: bool) -> None:
    """Confirm or decline one run by hand."""
    from server.commands.recruiting_context import open_context

    if not reason.strip():
        raise RootnoteError("--reason is empty; say in a few words how you know.")
    with open_context(folder, rehearsal) as command:
        confirmation.decide(command.recruiting, pseudonym, current_actor(), reason, decline=decline)
    click.echo(f"{'Declined' if decline else 'Confirmed'} the run {pseudonym}.")


def show_unconfirmed(context: RecruitingContext) -> None:
    """Show the runs that ended, would be paid, and were never listed by the marketplace."""
    with context.reading() as session:
        found = confirmation.unconfirmed_work(session, context)
    name = context.marketplace.capabilities.name
    for one in found[:MOST_SHOWN]:
        state = one.state.replace("_", " ")
        click.echo(f"Not confirmed by {name}: assignment {one.pseudonym}, {state}, {as_money(one.cents)}.")
    if len(found) > MOST_SHOWN:
        click.echo(f"… and {len(found) - MOST_SHOWN} more runs that are not confirmed.")
    if found:
        owed = "Nothing is owed for it." if len(found) == 1 else "Nothing is owed for them."
        click.echo(f"{owed} If you know the person: rootnote server confirm STUDY ASSIGNMENT --reason WHY")
