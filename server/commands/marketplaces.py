"""`rootnote study recruiters`: the marketplaces."""

from __future__ import annotations

import json

import click

from study.arguments import json_option


@click.command()
@json_option
def recruiters(as_json: bool) -> None:
    """List where listeners can come from (recruiter.kind in study.toml).

    Example: rootnote study recruiters
    """
    from server.recruiting.marketplaces.registry import MARKETPLACES, describe

    found = {kind: describe(kind) for kind in MARKETPLACES}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for kind, text in found.items():
        click.echo(f"  {kind:<10} {text}")
