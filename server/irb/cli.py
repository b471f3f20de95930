"""`rootnote study irb`: the packet for a review board, as HTML and PDF.

rootnote.py adds it to the group `study`, because study must not import server.
"""

from __future__ import annotations

import html
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from study.arguments import study_argument

FOLDER = "irb"


@click.command()
@study_argument
@click.option("--out", type=click.Path(path_type=Path), help=f"Folder to write into (default: STUDY/{FOLDER}).")
def irb(folder: Path, out: Path | None) -> None:
    """Make the packet for a review board: packet.html and packet.pdf.

    It contains protocol, recruitment, consent, pay, risks, withdrawal, data protection and a picture of every page, all
    from study.toml and the running software.

    Example: rootnote study irb my-study
    """
    from embeddings.provenance import replacing
    from embeddings.wording import counted
    from server.irb import context as gathering
    from server.irb.html import footer, header, render
    from server.irb.scratch_study import open_scratch_study
    from server.irb.screen_list import tour
    from server.irb.screenshots import open_screenshooter
    from server.irb.summary import missing
    from study.config import load_study

    study = load_study(folder)
    facts = gathering.gather(study, os.environ, datetime.now(UTC))
    out = out or study.folder / FOLDER
    with open_screenshooter() as camera:
        with open_scratch_study(study) as scratch:
            pictures = tour(scratch, camera)
        page = render(facts, pictures)
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "packet.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        with replacing(out / "packet.pdf") as temporary:
            camera.print(page, temporary, html.escape(header(facts)), html.escape(footer(facts)))
    click.echo(f"Wrote {out / 'packet.html'} and packet.pdf with {counted(len(pictures), 'picture')} of pages.")
    if lacking := missing(facts):
        click.echo("Still missing for the board:")
        for item in lacking:
            click.echo(f"  {item}")
