"""`rootnote server`: the database, the web, recruiting and paying, export, backup, doctor."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from embeddings.errors import RootnoteError
from study.config import Study, load_study

# The web and the database are imported by the commands that need them, so that help is instant.

study_argument = click.argument("folder", metavar="[STUDY]", type=click.Path(path_type=Path), default=Path())
rehearsal_option = click.option("--rehearsal", is_flag=True, help="Use the rehearsal's database, never the real one.")


LAZY = {
    "rehearse": "server.simulation.cli",
    "user": "server.commands.users",
    "backup": "server.commands.backup",
    "restore": "server.commands.backup",
    "doctor": "server.doctor.cli",
    "vault": "server.commands.vault",
    **dict.fromkeys(("approve", "pay", "close"), "server.commands.recruiting"),
    "open": "server.commands.recruiting:open_",
    "sync": "server.commands.recruiting:sync_",
    "anonymize": "server.public_release.cli",
    "audit": "server.commands.audit",
    "consents": "server.commands.audit:consents_",
    **dict.fromkeys(("erase", "disclose", "purge"), "server.commands.privacy"),
}
ORDER = (
    "migrate", "run", "user", "vault", "rehearse", "open", "status", "sync", "approve", "pay", "close", "links",
    "codes", "export", "anonymize", "erase", "disclose", "purge", "consents", "audit", "backup", "restore", "doctor",
)  # fmt: skip


class _Group(click.Group):
    """Mounts the commands that lie in files of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*ORDER]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in LAZY:
            return super().get_command(ctx, name)
        module, _, function = LAZY[name].partition(":")
        command = getattr(importlib.import_module(module), function or name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group)
def cli() -> None:
    """Serve the study to listeners, rehearse it, export responses."""


@cli.command()
@study_argument
@rehearsal_option
@click.option("--fresh", is_flag=True, help="Empty the rehearsal's database first.")
@click.option("--check", is_flag=True, help="Only check that the migrations match the models (for developers).")
def migrate(folder: Path, rehearsal: bool, fresh: bool, check: bool) -> None:
    """Make or update the database's tables."""
    from server.db import database
    from server.settings import read_settings, show

    if check:
        database.check_migrations()
        click.echo("The migrations match the models.")
        return
    if fresh and not rehearsal:
        raise click.UsageError("--fresh is for --rehearsal only: real answers are never thrown away.")
    settings = read_settings(load_study(folder), os.environ, rehearsal=rehearsal, secret=False)
    engine = database.connect(settings.database)
    if fresh:
        database.recreate(engine)
    click.echo(f"{show(settings.database)} is at revision {database.migrate(engine)}.")


@cli.command()
@study_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 64), help="Requests served at once.")
@rehearsal_option
def run(folder: Path, host: str, port: int, threads: int, rehearsal: bool) -> None:
    """Serve the study to listeners."""
    from server.app import create_app
    from server.settings import read_settings, show
    from server.web import logs

    study = load_study(folder)
    settings = read_settings(study, os.environ, rehearsal=rehearsal)
    app = create_app(study, settings)
    server = _listen(app, host, port, threads, behind_proxy=settings.trusted_proxies > 0)
    logs.configure()
    port = getattr(server, "effective_port", port)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"'{study.config.study.name}' is served{' for rehearsal' if rehearsal else ''}.")
    click.echo(f"The link to send: http://{shown}:{port}/take")
    click.echo(f"Answers lie in {show(settings.database)}. Stop with Ctrl-C.")
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
            connection_limit=1000,
            clear_untrusted_proxy_headers=not behind_proxy,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RootnoteError(
            f"cannot listen at {host}:{port} ({reason}); stop what uses it or choose another with --port."
        ) from error


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(0)


@cli.command()
@study_argument
@rehearsal_option
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, rehearsal: bool, watch: bool, as_json: bool) -> None:
    """How many listeners stand where, how many places are left, and what was paid; asks no marketplace."""
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
    from server.assignments.experiment import utc_now
    from server.db import database
    from server.monitoring.status import count, identities, money, wage

    config = study.config
    with database.reading(engine) as session:
        told = count(session) | money(session, config.pay)
        return told | wage(session, config.pay) | identities(session, config, utc_now())


def _status_table(counted: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for section in ("places", "listeners", "marketplace", "money", "wage", "identities"):
        if section in counted:
            table.add_row(section.capitalize(), "", style="bold")
        for name, number in counted.get(section, {}).items():
            table.add_row(f"  {name.replace('_', ' ')}", str(number))
    table.add_row("Responses", str(counted["responses"]), style="bold")
    return table


@cli.command()
@study_argument
@click.argument("number", type=click.IntRange(1, 100_000))
@click.option("--url", help="Where listeners reach the server (default: ROOTNOTE_PUBLIC_URL, or this machine).")
def links(folder: Path, number: int, url: str | None) -> None:
    """Print NUMBER links, each for one listener and one run, to be resumed on any device."""
    from server.identity.tokens import TokenSigner
    from server.settings import read_settings

    settings = read_settings(load_study(folder), os.environ)
    door, url = TokenSigner(settings.secret), url or settings.public_url or "http://127.0.0.1:8000"
    for _ in range(number):
        click.echo(f"{url.rstrip('/')}/take?link={door.make_link()}")


@cli.command()
@study_argument
@rehearsal_option
def codes(folder: Path, rehearsal: bool) -> None:
    """Print every completion code that was shown, with its outcome and pay, as CSV (for paying listeners)."""
    from server.db import database
    from server.monitoring.status import shown_codes

    click.echo("code,outcome,usd")
    with opened(folder, rehearsal) as (study, engine), database.reading(engine) as session:
        for code, outcome, usd in shown_codes(session, study.config.pay):
            click.echo(f"{code},{outcome},{usd:.2f}")


@cli.command()
@study_argument
@rehearsal_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: the study's).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(folder: Path, rehearsal: bool, out: Path | None, as_json: bool) -> None:
    """Write responses.csv, responses.parquet and listeners.csv, under pseudonyms, and export.json with their hashes."""
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.export import responses
    from study.trial_plan import read_plan

    with opened(folder, rehearsal, secret=True) as (study, engine):
        plan = read_plan(study)
        default = study.folder / "rehearsal" if rehearsal else study.folder
        with database.writing(engine) as session, session.begin():  # by itself: nobody who answers waits for an export
            require_same_schedule(session, plan.schedule_fingerprint)
            study_control.write_log(session, current_actor(), "exported responses", utc_now())
        with database.snapshot(engine) as session:
            written = responses.export(session, study, plan, out or default, rehearsal=rehearsal)
    if as_json:
        paths = {name: str(getattr(written, name)) for name in ("csv", "parquet", "listeners", "manifest")}
        click.echo(json.dumps(paths | {"responses": written.responses, "completed": written.completed}))
        return
    click.echo(f"{written.responses} responses; {written.completed} listeners completed the study.")
    others = ", ".join(path.name for path in (written.parquet, written.listeners))
    click.echo(f"Written: {written.csv}, {others} and {written.manifest.name}.")


@contextlib.contextmanager
def opened(folder: Path, rehearsal: bool, *, secret: bool = False) -> Iterator[tuple[Study, Any]]:
    """A study and its migrated database, let go of at the end.

    Args:
        secret: whether what is done is written into the log, which needs ROOTNOTE_SECRET (a rehearsal's, which is no
            one's, does not). What was erased is then erased again, should the database come from a backup.
    """
    from server.assignments.experiment import utc_now
    from server.db import database
    from server.privacy import erasure
    from server.settings import read_settings

    study = load_study(folder)
    passing = {"ROOTNOTE_SECRET": secrets.token_hex(32)} if rehearsal and not os.environ.get("ROOTNOTE_SECRET") else {}
    settings = read_settings(study, {**os.environ, **passing}, rehearsal=rehearsal, secret=secret)
    engine = database.connect(settings.database, settings.secret)
    try:
        database.require_migrated(engine, f"rootnote server migrate {folder}" + (" --rehearsal" if rehearsal else ""))
        if secret:
            with database.writing(engine) as session, session.begin():
                erasure.replay(session, erasure.Journal(settings.erasures_of(study)), utc_now())
        yield study, engine
    finally:
        engine.dispose()


def require_same_schedule(session: Any, fingerprint: str) -> None:
    """Refuse a database that belongs to another schedule."""
    from server.db.models import StudyRecord

    record = session.get(StudyRecord, 1)
    if record is not None and record.schedule != fingerprint:
        raise RootnoteError(
            f"the database belongs to another schedule (of the study '{record.name}'); "
            "restore the study folder it was begun with, then export."
        )
