"""Arguments and options that commands of several groups share."""

from __future__ import annotations

from pathlib import Path

import click

study_argument = click.argument("folder", metavar="[STUDY]", type=click.Path(path_type=Path), default=Path())
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
