"""`rootnote server` export and codes: responses for the analysis, completion codes for paying listeners."""

from __future__ import annotations

import json
from pathlib import Path

import click

from server.commands.common import json_option, opened, rehearsal_option, require_same_schedule, study_argument


@click.command()
@study_argument
@rehearsal_option
def codes(folder: Path, rehearsal: bool) -> None:
    """Print the completion codes that listeners were shown, with outcome and pay, as CSV."""
    from server.db import database
    from server.monitoring.status import shown_codes

    with opened(folder, rehearsal) as (study, engine), database.reading(engine) as session:
        click.echo(f"code,outcome,{study.config.currency.lower()}")
        for code, outcome, pay in shown_codes(session, study.config.pay):
            click.echo(f"{code},{outcome},{pay:.2f}")


@click.command()
@study_argument
@rehearsal_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: the study's).")
@json_option
def export(folder: Path, rehearsal: bool, out: Path | None, as_json: bool) -> None:
    """Write responses.csv, responses.parquet and listeners.csv, under pseudonyms, and export.json with their hashes.

    Example: rootnote server export my-study
    """
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.export import responses
    from study.trial_plan import read_plan

    with opened(folder, rehearsal, secret=True) as (study, engine):
        plan = read_plan(study)
        default = study.folder / "rehearsal" if rehearsal else study.folder
        with (
            database.writing(engine) as session,
            session.begin(),
        ):  # short: no listener waits for it
            require_same_schedule(session, plan.schedule_fingerprint)
            study_control.write_log(session, current_actor(), "exported responses", utc_now())
        with database.snapshot(engine) as session:
            written = responses.export(session, study, plan, out or default, rehearsal=rehearsal)
    if as_json:
        paths = {name: str(getattr(written, name)) for name in ("csv", "parquet", "listeners", "manifest")}
        click.echo(json.dumps(paths | {"responses": written.responses, "completed": written.completed}))
        return
    click.echo(f"Responses: {written.responses}. Listeners who completed the study: {written.completed}.")
    others = ", ".join(path.name for path in (written.parquet, written.listeners))
    click.echo(f"Written: {written.csv}, {others} and {written.manifest.name}.")
