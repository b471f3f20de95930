"""`rootnote server anonymize`: the public release of a study."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embeddings.errors import RootnoteError
from server.commands.common import json_option, opened, rehearsal_option, require_same_schedule, study_argument
from server.public_release.licences import LICENCES

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from server.public_release.bundle import ReleaseOptions
    from server.public_release.metadata import ReleaseMetadata
    from study.config import Study
    from study.trial_plan import Plan


@click.command()
@study_argument
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to write into; it must not exist yet."
)
@click.option("--licence", type=click.Choice([*LICENCES]), required=True, help="Licence of the data.")
@click.option(
    "--author", "authors", multiple=True, required=True, metavar="NAME", help='"Family, Given[, ORCID]"; repeatable.'
)
@click.option("--title", default="", help="Title of the data (default: from the study's name).")
@click.option("--k", default=5, show_default=True, type=click.IntRange(2, 1000), help="Minimum k-anonymity group size.")
@click.option("--leave-out", multiple=True, metavar="ID", help="Question whose answers to leave out; repeatable.")
@click.option("--without-plan", is_flag=True, help="Leave out the frozen plan, which contains contact and paths.")
@click.option("--with-clips", is_flag=True, help="Publish which tracks the clips are from.")
@click.option("--before-closing", metavar="REASON", default="", help="Publish before the study is closed.")
@click.option("--unchecked", is_flag=True, help="Skip the comparison of Table 1 (which needs rootnote[analysis]).")
@rehearsal_option
@json_option
def anonymize(
    folder: Path,
    out: Path,
    licence: str,
    authors: tuple[str, ...],
    title: str,
    k: int,
    leave_out: tuple[str, ...],
    without_plan: bool,
    with_clips: bool,
    before_closing: str,
    unchecked: bool,
    rehearsal: bool,
    as_json: bool,
) -> None:
    """Write a public release: anonymous data with everything that others need to use them.

    Names are random and not stored anywhere. What listeners said about themselves is generalised until at least k of
    them share each combination of values.

    Example: rootnote server anonymize my-study --out my-release --licence CC-BY-4.0 --author "Lovelace, Ada"
    """
    from server.assignments.experiment import utc_now
    from server.public_release.bundle import ReleaseOptions, require_questions
    from server.public_release.metadata import read_author

    if out.exists():
        raise RootnoteError(f"--out: {out} already exists; name a new folder.")
    named = tuple(read_author(author) for author in authors)
    with opened(folder, rehearsal, secret=True) as (study, engine):
        require_questions(study, leave_out)
        closed = rehearsal or _require_publishable(engine, before_closing)
        title = title.strip() or f"{study.config.study.name}: responses of listeners"
        made, with_plan = utc_now().date(), not without_plan
        options = ReleaseOptions(title, named, licence, k, made, with_clips, rehearsal, closed, with_plan, leave_out)
        metadata, sums = _release(study, engine, options, out, before_closing, check=not unchecked)
    _report(out, metadata, sums, as_json)


def _release(
    study: Study, engine: Engine, options: ReleaseOptions, out: Path, reason: str, *, check: bool
) -> tuple[ReleaseMetadata, str]:
    """Write the folder and the log entry, both or neither; return the metadata and the SHA-256 of SHA256SUMS."""
    from embeddings.wording import counted
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.export import responses
    from server.public_release.bundle import finish
    from study.trial_plan import read_plan

    plan = read_plan(study)
    with database.reading(engine) as session:
        erased_before = responses.erased(session)
    with _unfinished(out) as folder:
        metadata = _write(study, plan, engine, options, folder, check=check)
        sums = finish(folder, metadata)
        number = counted(metadata.responses, "response")
        detail = f"{out.name}: {number}, k = {metadata.k}, {metadata.licence}, SHA256SUMS {sums}"
        with database.writing(engine) as session, session.begin():
            if responses.erased(session) != erased_before:
                raise RootnoteError("a listener erased their answers during the release; run the command again.")
            study_control.publish(
                session, current_actor(), reason, utc_now(), detail=detail, rehearsal=options.rehearsal
            )
            folder.rename(out)
    return metadata, sums


def _require_publishable(engine: Engine, reason: str) -> bool:
    """Whether the study is closed; if it is not, a reason is needed."""
    from server.audit import study_control
    from server.db import database

    with database.reading(engine) as session:
        try:
            return study_control.may_publish(session, reason)
        except study_control.ControlRefusedError as problem:
            raise RootnoteError(str(problem)) from None


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """A temporary folder next to `out`, which the caller renames to it; after an error neither exists."""
    folder = out.parent / f".{out.name}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        yield folder
    except BaseException as error:
        # If the folder was renamed and the log entry then failed, `out` must not remain.
        shutil.rmtree(folder if folder.exists() else out, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(out, error) from error
        raise


def _not_written(out: Path, error: OSError) -> RootnoteError:
    return RootnoteError(f"{out} cannot be written ({error.strerror or error}); nothing was published.")


def _write(
    study: Study, plan: Plan, engine: Engine, options: ReleaseOptions, folder: Path, *, check: bool
) -> ReleaseMetadata:
    """Write the data and, with `check`, compare Table 1 with that of the study's own data."""
    from server.db import database
    from server.export import responses
    from server.public_release.bundle import write_bundle
    from server.public_release.verify import TABLES, require_same_table

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with database.snapshot(engine) as session:
            require_same_schedule(session, plan.schedule_fingerprint)
            metadata = write_bundle(session, study, plan, options, folder)
            if check:
                responses.export(session, study, plan, scratch / "own", rehearsal=options.rehearsal)
        if not check:
            return metadata
        report = require_same_table(folder, scratch / "own", study.folder, scratch)
        for table in TABLES:
            shutil.copyfile(report / table, folder / table)
    return replace(metadata, checked=True)


def _report(out: Path, metadata: ReleaseMetadata, sums: str, as_json: bool) -> None:
    from embeddings.wording import counted

    if metadata.turns_public:
        click.echo(
            "Warning: this study assigns its trial lists in the order of the seed, as earlier versions did. Anyone "
            "who has or can rebuild build/schedule.parquet can tell early listeners from late ones, so publish "
            "neither the schedule nor the seed.",
            err=True,
        )
    if as_json:
        published = {
            one.column.name: {"level": one.level.label, "withheld": one.withheld} for one in metadata.published
        }
        counts = {
            "responses": metadata.responses,
            "listeners": metadata.listeners,
            "k": metadata.k,
            "checked": metadata.checked,
        }
        click.echo(json.dumps({"path": str(out), "sha256sums": sums, **counts, "published": published}))
        return
    responses, listeners = counted(metadata.responses, "response"), counted(metadata.listeners, "listener")
    click.echo(f"Wrote {out}: {responses} of {listeners}, under random names.")
    for one in metadata.published:
        click.echo(f"  {one.column.name}: {one.level.label}; {one.withheld:,} of {len(one.values):,} withheld")
    for column, reason in metadata.dropped.items():
        click.echo(f"  {column}: not published ({reason})")
    if metadata.checked:
        click.echo("Checked: every digit of Table 1 from this folder equals Table 1 from the study's own data.")
    if metadata.plan:
        click.echo("The frozen plan is included, with the contact and paths in it (--without-plan leaves it out).")
    click.echo(f"Before you publish the folder, read {out / 'README.md'}.")
