"""`rootnote server doctor`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from embeddings.wording import counted
from server.doctor.run import CHECKS
from study.arguments import json_option, study_argument

COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "blue"}


@click.command()
@study_argument
@click.option("--skip", multiple=True, type=click.Choice(list(CHECKS)), help="Skip a check (repeatable).")
@json_option
def doctor(folder: Path, skip: tuple[str, ...], as_json: bool) -> None:
    """Check whether this deployment is ready for listeners, and say how to fix what is not.

    Run it on the host, with the server's environment. It changes nothing, and exits with status 1 if it finds an
    error.

    Example: rootnote server doctor my-study
    """
    from server.doctor.check import DoctorContext, Finding
    from server.doctor.run import run_checks
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    deployment = DoctorContext(study, read_settings(study, os.environ, secret=False), os.environ)
    found: list[tuple[str, Finding]] = []
    for name, finding in run_checks(deployment, skip):
        found.append((name, finding))
        if not as_json:
            click.echo(f"{click.style(f'{finding.level:<8}', fg=COLOURS[finding.level])} {name:<11} {finding.text}")
            if finding.fix:
                click.echo(f"{'':<20} Fix: {finding.fix}")
    errors = sum(finding.level == "error" for _, finding in found)
    if as_json:
        findings = [{"check": name, **asdict(finding)} for name, finding in found]
        click.echo(json.dumps({"fit": not errors, "findings": findings}, indent=2))
    elif errors:
        click.echo(f"{counted(errors, 'error')} to fix before listeners come.")
    else:
        click.echo("No errors: this deployment is ready for listeners.")
    sys.exit(1 if errors else 0)
