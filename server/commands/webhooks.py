"""`rootnote server webhooks`: let the marketplace tell the server at once what changed there."""

from __future__ import annotations

import os
from pathlib import Path

import click

from embeddings.errors import RootnoteError
from server.commands.common import rehearsal_option, study_argument


@click.command()
@study_argument
@click.option("--secret", is_flag=True, help="Only print the secret that events are signed with.")
@click.option("--off", is_flag=True, help="End the subscriptions of this server.")
@rehearsal_option
def webhooks(folder: Path, secret: bool, off: bool, rehearsal: bool) -> None:
    """Subscribe the server to the marketplace's events, so that a returned place is free at once.

    Without it, `sync` and `open --watch` look from time to time, which is enough.

    \b
    Examples:
      export ROOTNOTE_WEBHOOK_SECRET=$(rootnote server webhooks my-study --secret)
      rootnote server webhooks my-study
    """
    from server.recruiting import subscriptions
    from server.recruiting.marketplaces.registry import make_marketplace
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    settings = read_settings(study, os.environ, rehearsal=rehearsal, secret=False)
    marketplace = make_marketplace(study, live=True, endpoint=settings.market_url)
    name, kind = marketplace.capabilities.name, study.config.recruiter.kind
    if not marketplace.event_types:
        raise RootnoteError(f"{name} sends no events; nothing needs to be subscribed.")
    try:
        if secret:
            click.echo(subscriptions.source_of(marketplace).webhook_secret())
        elif off:
            ended = subscriptions.unsubscribe(marketplace, kind, settings.public_url)
            click.echo(f"{name} sends no more events." if ended else f"There was no subscription on {name}.")
        else:
            address = subscriptions.subscribe(marketplace, kind, settings, folder)
            click.echo(f"{name} sends to {address}: {', '.join(marketplace.event_types)}.")
            click.echo("The server frees a returned place at once; `sync --watch` looks within seconds.")
    finally:
        marketplace.disconnect()
