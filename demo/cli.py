"""`rootnote demo`: a complete study on a small synthetic corpus, through the public commands.

It works in an ordinary study folder that also contains the music. Running it again continues where it stopped; a
folder that was not made by the demo is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from embeddings.errors import ConfigError, RootnoteError

MARK = ".rootnote-demo.json"
NAME = "Rootnote demonstration"
TRACKS, SECONDS = 144, 30.0
# The synthetic pieces differ more than real music does, so simulated listeners are made less sensitive.
SCALE = 0.4
NOTE = "The corpus is synthetic and the listeners are simulated: these numbers tell you nothing about real people."
CONSENT = """\
# A demonstration

This is a **demonstration** of Rootnote on synthetic music, not a research study. Your answers are not evaluated.

**What you will do.** First you count tones in two short recordings. Then you hear ten sets of three short clips and
choose which of two is more like the third. At the end there are a few questions. It takes about four minutes.

**Payment.** You are not paid.

**Your choice.** You can leave at any time, on every page. Your answers stay on this computer.
"""


@dataclass
class DemoStages:
    """Runs the stages one after another, prints their titles and records their times."""

    environment: Mapping[str, str]
    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, title: str) -> Any:
        click.secho(f"\n{len(self.times) + 1}. {title}", bold=True)
        began = time.monotonic()
        yield
        self.times[title] = time.monotonic() - began
        click.secho(f"   done in {self.times[title]:.1f} s", dim=True)

    def run(self, *words: str) -> None:
        """Run one Rootnote command and print it as a user would type it.

        Raises:
            RootnoteError: if it fails; its output was shown.
        """
        shown = shlex.join(["rootnote", *words])
        click.secho(f"   $ {shown}", fg="cyan")
        sys.stdout.flush()
        result = subprocess.run([sys.executable, "-m", "rootnote", *words], env=self.environment, check=False)
        if result.returncode:
            raise RootnoteError(f"the demo stopped because `{shown}` failed; see its message above.")


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("rootnote-demo"),
    show_default=True,
    help="The folder to work in.",
)
@click.option("--listeners", default=90, show_default=True, type=click.IntRange(1, 90), help="Simulated listeners.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="For music, design and listeners.")
@click.option("--keep-serving", is_flag=True, help="Serve the study afterwards, so that you can take it in a browser.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="For --keep-serving.")
def cli(folder: Path, listeners: int, seed: int, keep_serving: bool, port: int) -> None:
    """Run a complete study offline, from synthetic music to the report.

    The music is synthetic and the listeners are simulated; everything else is real.
    """
    began = time.monotonic()
    claim(folder, seed)
    environment = {**os.environ}
    # For the rehearsal, and for --keep-serving: this process only.
    environment.setdefault("ROOTNOTE_SECRET", secrets.token_hex(32))
    stages = DemoStages(environment)
    click.secho("The music is synthetic and the listeners are simulated; study, server and analysis are real.")
    with stages.timed(f"Synthesise {TRACKS} pieces of music"):
        _synthesise(folder, seed)
    with stages.timed("Design the study"):
        _design(stages, folder, seed)
    with stages.timed(f"Rehearse the web study with {listeners} simulated listeners"):
        stages.run("server", "rehearse", str(folder), "--listeners", str(listeners), "--seed", str(seed))
    with stages.timed("Export and analyse"):
        report = folder / "rehearsal" / "report"
        stages.run("server", "export", str(folder), "--rehearsal", "--out", str(folder / "rehearsal"))
        responses = str(folder / "rehearsal" / "responses.csv")
        stages.run("analysis", "report", responses, "--study", str(folder), "--out", str(report), "--note", NOTE)
    _show_next_steps(folder, report, time.monotonic() - began)
    if keep_serving:
        _serve(stages, folder, port)


def claim(folder: Path, seed: int) -> None:
    """Mark the folder as the demo's, or check that it is.

    Raises:
        ConfigError: if it contains something else, or a demo with another seed.
    """

    mark = folder / MARK
    if mark.is_file():
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))["seed"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{mark} is damaged; delete {folder} or choose another folder with --dir.") from None
        if found != seed:
            raise ConfigError(f"{folder} contains the demo with --seed {found}; choose another folder with --dir.")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty and was not made by the demo; choose another folder with --dir.")
    from embeddings.provenance import replacing

    with replacing(mark) as temporary:
        temporary.write_text(json.dumps({"seed": seed}) + "\n", encoding="utf-8")


def _synthesise(folder: Path, seed: int) -> None:
    from demo.music import VERSIONS, synthesise
    from demo.pieces import PIECES

    files = synthesise(folder / "music", seed, TRACKS, SECONDS)
    takes = TRACKS // (len(PIECES) * VERSIONS)
    click.echo(
        f"   {len(files)} tracks of {SECONDS:g} s in {folder / 'music'}: "
        f"{len(PIECES)} pieces × {VERSIONS} versions × {takes} performances"
    )


def _design(stages: DemoStages, folder: Path, seed: int) -> None:
    if not (folder / "study.toml").is_file():
        stages.run("study", "init", str(folder), "--audio", str(folder / "music"), "--name", NAME)
        _complete(folder, seed)
    stages.run("study", "build", str(folder))
    stages.run("study", "check", str(folder))


def _complete(folder: Path, seed: int) -> None:
    """Complete what `init` leaves to the researcher: the seed, a consent text, the simulated listeners' sensitivity.

    The link is open, so that whoever runs the demo can take the study without a personal link.
    """
    path = folder / "study.toml"
    text = path.read_text(encoding="utf-8")
    for key, value in (("seed", seed), ("scale", SCALE)):
        text = re.sub(rf"^{key} = \S+", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^open = false", "open = true", text, count=1, flags=re.MULTILINE)
    text = re.sub(r'^researcher = ""', 'researcher = "a demonstration"', text, count=1, flags=re.MULTILINE)
    (folder / "consent.md").write_text(CONSENT, encoding="utf-8")
    from embeddings.provenance import replacing
    from study.config import load_study
    from study.secret_key import FILE, SecretKey, write_key

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    # Only for a demo, which gives the same result every time: everybody can compute this key.
    write_key(folder / FILE, SecretKey(hashlib.sha256(f"rootnote demo {seed}".encode()).digest()))
    click.echo("   completed for the demo: consent.md; seed, rehearsal.scale and an open link in study.toml")
    click.echo("   secret.key comes from the demo's seed; in other studies the first build draws a random one")
    config = load_study(folder).config
    found = (config.study.seed, config.rehearsal.scale, config.recruiter.settings.personal_only)
    assert found == (seed, SCALE, False), "study.toml's template has changed"


def _show_next_steps(folder: Path, report: Path, seconds: float) -> None:
    click.secho(f"\nDone in {seconds:.0f} s. {NOTE}", bold=True)
    click.echo(f"The report: {(report / 'report.html').resolve()}")
    click.echo(f"{folder} is an ordinary study folder. Next steps:")
    click.echo(f"  take the study yourself   rootnote demo --dir {shlex.quote(str(folder))} --keep-serving")
    click.echo("  use your own music        rootnote study init my-study --audio ~/Music")


def _serve(stages: DemoStages, folder: Path, port: int) -> None:
    click.secho("\nServing the study with its real database, not the rehearsal's.", bold=True)
    stages.run("server", "migrate", str(folder))
    try:
        stages.run("server", "run", str(folder), "--port", str(port))
    except KeyboardInterrupt:
        click.echo("Stopped.")
