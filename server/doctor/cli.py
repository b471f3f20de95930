"""`rootnote server doctor`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from server.doctor.run import CHECKS
from study.arguments import json_option, study_argument

COLOURS = {"ok": "green", "look": "yellow", "wrong": "red", "unknown": "blue"}


@click.command()
@study_argument
@click.option("--skip", multiple=True, type=click.Choice(list(CHECKS)), help="Leave a check out (repeatable).")
@json_option
def doctor(folder: Path, skip: tuple[str, ...], as_json: bool) -> None:
    """Look whether this deployment is fit for listeners, and say what to mend; exit 1 where something is wrong.

    Run it on the host, with the server's environment. Nothing is changed. Example: rootnote server doctor my-study
    """
    from server.doctor.check import DoctorContext
    from server.doctor.run import run_checks
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    case = DoctorContext(study, read_settings(study, os.environ, secret=False), os.environ)
    found = []
    for name, finding in run_checks(case, skip):
        found.append((name, finding))
        if not as_json:
            click.echo(f"{click.style(f'{finding.state:<8}', fg=COLOURS[finding.state])} {name:<11} {finding.text}")
            if finding.mend:
                click.echo(f"{'':<20} Mend: {finding.mend}")
    wrong = sum(finding.state == "wrong" for _, finding in found)
    if as_json:
        findings = [{"check": name, **asdict(finding)} for name, finding in found]
        click.echo(json.dumps({"fit": not wrong, "findings": findings}, indent=2))
    elif wrong:
        click.echo(f"{wrong} to mend before listeners come.")
    else:
        click.echo("Nothing here speaks against letting listeners in.")
    sys.exit(1 if wrong else 0)
