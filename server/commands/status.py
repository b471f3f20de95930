"""`rootnote server status`: the progress of a study."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.commands.common import json_option, opened, rehearsal_option, study_argument

if TYPE_CHECKING:
    from study.config import Study


@click.command()
@study_argument
@rehearsal_option
@click.option("--watch", is_flag=True, help="Refresh every few seconds, until Ctrl-C.")
@json_option
def status(folder: Path, rehearsal: bool, watch: bool, as_json: bool) -> None:
    """Show how many listeners are at each stage, how many places are left, and what was paid.

    Everything comes from the database; no marketplace is contacted.

    Example: rootnote server status my-study
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with opened(folder, rehearsal) as (study, engine):
        if as_json:
            click.echo(json.dumps(_count(study, engine)))
            return
        if not watch:
            console.print(_status_table(_count(study, engine)))
            return
        with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as shown:
            while True:
                shown.update(_status_table(_count(study, engine)), refresh=True)
                time.sleep(5)


def _count(study: Study, engine: Any) -> dict[str, Any]:
    from server.db import database
    from server.monitoring.status import count, identities, money, wage
    from study.leaks import LEAKS, find_leaks

    config = study.config
    with database.reading(engine) as session:
        numbers = count(session) | money(session, config)
        numbers |= wage(session, config) | identities(session, config, datetime.now(UTC))
    leaks = find_leaks(study)
    return numbers | ({"leaks": {name: LEAKS[name] for name in leaks}} if leaks else {})


def _status_table(counted: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    sections = ("places", "listeners", "verification", "marketplace", "money", "wage", "identities", "leaks")
    for section in sections:
        if section in counted:
            table.add_row(section.capitalize(), "", style="bold")
        for name, number in counted.get(section, {}).items():
            table.add_row(f"  {name.replace('_', ' ')}", str(number))
    table.add_row("Responses", str(counted["responses"]), style="bold")
    return table
