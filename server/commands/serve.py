"""`rootnote server` migrate, run, links: the database's tables, the web server, and links to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from embeddings.errors import RootnoteError
from server.commands.common import rehearsal_option, study_argument

CONNECTIONS = 4000  # waitress reads a request completely before it takes a thread; a half-sent one is a connection
IDLE_SECONDS, CLEANUP_SECONDS = 20, 5  # for a connection on which nothing happens


@click.command()
@study_argument
@rehearsal_option
@click.option("--fresh", is_flag=True, help="Empty the rehearsal's database first.")
@click.option("--check", is_flag=True, help="Only check that the migrations match the models (for developers).")
def migrate(folder: Path, rehearsal: bool, fresh: bool, check: bool) -> None:
    """Create or update the database tables."""
    from server.db import database
    from server.db.urls import display_url
    from server.settings import read_settings
    from study.config import load_study

    if check:
        database.check_migrations()
        click.echo("The migrations match the models.")
        return
    if fresh and not rehearsal:
        raise click.UsageError("--fresh is for --rehearsal only: it deletes all responses.")
    settings = read_settings(load_study(folder), os.environ, rehearsal=rehearsal, secret=False)
    engine = database.connect(settings.database)
    if fresh:
        database.recreate(engine)
    click.echo(f"{display_url(settings.database)} is at revision {database.migrate(engine)}.")


@click.command()
@study_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 64), help="Simultaneous requests.")
@rehearsal_option
def run(folder: Path, host: str, port: int, threads: int, rehearsal: bool) -> None:
    """Serve the study to listeners."""
    from server.app import create_app
    from server.db.urls import display_url
    from server.settings import read_settings
    from server.web import logs
    from study.config import load_study

    study = load_study(folder)
    settings = read_settings(study, os.environ, rehearsal=rehearsal)
    app = create_app(study, settings)
    server = _listen(app, host, port, threads, behind_proxy=settings.trusted_proxies > 0)
    logs.configure()
    port = getattr(server, "effective_port", port)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Serving '{study.config.study.name}'{' for rehearsal' if rehearsal else ''}.")
    address = f"http://{shown}:{port}"
    if not rehearsal and getattr(study.config.recruiter.settings, "personal_only", False):
        click.echo(f"Personal links for listeners: rootnote server links {folder} 20 --url {address}")
    else:
        click.echo(f"Link for listeners: {address}/take")
    click.echo(f"Answers are stored in {display_url(settings.database)}. Press Ctrl-C to stop.")
    signal.signal(signal.SIGTERM, _stop)
    try:
        server.run()
    except (KeyboardInterrupt, SystemExit):
        click.echo("Stopped.")
    finally:
        server.close()


def _listen(app: Any, host: str, port: int, threads: int, *, behind_proxy: bool) -> Any:
    import waitress  # type: ignore[import-untyped]

    from server.app import MAX_REQUEST_BYTES

    try:
        return waitress.create_server(
            app,
            host=host,
            port=port,
            threads=threads,
            ident=None,
            max_request_body_size=4 * MAX_REQUEST_BYTES,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=CLEANUP_SECONDS,
            asyncore_use_poll=True,  # select() ends at 1,024 open files
            clear_untrusted_proxy_headers=not behind_proxy,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RootnoteError(
            f"cannot listen at {host}:{port} ({reason}); free that port or choose another with --port."
        ) from error


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(0)


@click.command()
@study_argument
@click.argument("number", type=click.IntRange(1, 100_000), required=False)
@click.option(
    "--ids",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with one id a line: print a signed link for each, which only that person has.",
)
@click.option("--url", help="Public address of the server (default: ROOTNOTE_PUBLIC_URL, else this machine).")
def links(folder: Path, number: int | None, ids: Path | None, url: str | None) -> None:
    """Print NUMBER links, each for one listener, who can resume on any device.

    Whoever comes by one of these links is confirmed; whoever comes by an open link is unverified.

    Example: rootnote server links my-study --ids ids.txt
    """
    from server.identity.link_check import normalise_id
    from server.identity.tokens import TokenSigner
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    if study.config.recruiter.has_arrivals:
        raise RootnoteError(
            f"people come from {study.config.recruiter.shown_name} with ids of its own, so personal links do not work; "
            'they are for recruiter.kind = "link" without a panel.'
        )
    settings = read_settings(study, os.environ)
    signer, address = TokenSigner(settings.secret), url or settings.public_url or "http://127.0.0.1:8000"
    take = f"{address.rstrip('/')}/take"
    if (number is None) == (ids is None):
        raise RootnoteError("say how many links you want, or name a file of ids with --ids.")
    for worker in _read_ids(ids) if ids else []:
        signature = signer.sign_id(normalise_id(worker))
        click.echo(f"{take}?{urlencode({'worker': worker, 'signature': signature})}")
    for _ in range(number or 0):
        click.echo(f"{take}?link={signer.make_link()}")


def _read_ids(path: Path) -> list[str]:
    """The ids of a file, one a line.

    Raises:
        RootnoteError: if it cannot be read, an id is unusable, or two lines name the same person.
    """
    from server.identity.link_check import find_link_problem, normalise_id
    from server.identity.tokens import WORKER_LIMIT

    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RootnoteError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    seen: dict[str, int] = {}
    found = []
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        name = normalise_id(text)
        if find_link_problem({"worker": [text]}, ("worker",)) or len(name) > WORKER_LIMIT:
            raise RootnoteError(f"{path}, line {number}: '{text[:40]}' is not a person's id; correct that line.")
        if name in seen:
            raise RootnoteError(f"{path}: lines {seen[name]} and {number} name the same person; remove one.")
        seen[name] = number
        found.append(text)
    if not found:
        raise RootnoteError(f"{path} has no ids; write one a line.")
    return found
