"""`rootnote server callbacks`: the calls to a panel's server, and decisions about unclear ones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from server.commands.common import json_option, rehearsal_option, study_argument


@click.command()
@study_argument
@click.option("--arrived", metavar="ASSIGNMENT", help="The panel has noted this run: the call is done.")
@click.option("--again", metavar="ASSIGNMENT", help="The panel has not noted this run: the next `sync` calls again.")
@rehearsal_option
@json_option
def callbacks(folder: Path, arrived: str | None, again: str | None, rehearsal: bool, as_json: bool) -> None:
    """List the calls to the panel's server (recruiter.link.callback_url), or decide about an unclear one.

    Example: rootnote server callbacks my-study --arrived 3f9a2c
    """
    from server.commands.recruiting_context import open_context
    from server.recruiting.callbacks import decide, listed

    if arrived and again:
        raise click.UsageError("give either --arrived or --again.")
    with open_context(folder, rehearsal) as command:
        if named := arrived or again:
            decide(command.recruiting, named, send_again=bool(again))
        with command.recruiting.reading() as session:
            found = listed(session)
    if as_json:
        click.echo(json.dumps([{**vars(one), "state": one.state.value} for one in found], indent=2))
        return
    for one in found:
        click.echo(f"  {one.pseudonym}  {one.state.value:<8}  {one.answer}")
    if not found:
        click.echo("No call was made yet.")
