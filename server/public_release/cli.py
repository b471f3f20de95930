"""`rootnote server anonymize`: the public release of a study, or nothing."""

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
    from server.public_release.documentation import ReleaseMetadata
    from study.config import Study
    from study.trial_plan import Plan


@click.command()
@study_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make; it must not exist.")
@click.option("--licence", type=click.Choice([*LICENCES]), required=True, help="Under which the data are published.")
@click.option(
    "--author", "authors", multiple=True, required=True, metavar="NAME", help='"Family, Given[, ORCID]"; repeatable.'
)
@click.option("--title", default="", help="Of the data (default: the study's name).")
@click.option("--k", default=5, show_default=True, type=click.IntRange(2, 1000), help="Listeners alike, at least.")
@click.option("--leave-out", multiple=True, metavar="ID", help="A question that is not to be told; repeatable.")
@click.option("--without-plan", is_flag=True, help="Leave out the frozen plan, which names contact and paths.")
@click.option("--with-clips", is_flag=True, help="Tell which tracks the clips are from.")
@click.option("--before-closing", metavar="REASON", default="", help="Publish though the study is not closed.")
@click.option("--unchecked", is_flag=True, help="Do not make the report again (it needs rootnote[analysis]).")
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
    """Make the public release: data in which nobody can be found, with all that a stranger needs to use them.

    Names are drawn anew each time and kept nowhere; answers about people are coarsened until each is one of k alike.
    """
    from server.assignments.experiment import utc_now
    from server.public_release.bundle import ReleaseOptions, require_questions
    from server.public_release.documentation import read_author

    if out.exists():
        raise RootnoteError(f"{out} exists already; name a folder that does not with --out.")
    named = tuple(read_author(author) for author in authors)
    with opened(folder, rehearsal, secret=True) as (study, engine):
        require_questions(study, leave_out)
        closed = rehearsal or _require_publishable(engine, before_closing)
        title = title.strip() or f"{study.config.study.name}: listeners' answers"
        made, with_plan = utc_now().date(), not without_plan
        wanted = ReleaseOptions(title, named, licence, k, made, with_clips, rehearsal, closed, with_plan, leave_out)
        story, sums = _release(study, engine, wanted, out, before_closing, check=not unchecked)
    _tell(out, story, sums, as_json)


def _release(
    study: Study, engine: Engine, wanted: ReleaseOptions, out: Path, reason: str, *, check: bool
) -> tuple[ReleaseMetadata, str]:
    """Make the folder and note it in the log, both or neither: what it says of itself, and the hash of its hashes."""
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.export import responses
    from server.public_release.bundle import finish
    from study.trial_plan import read_plan

    plan = read_plan(study)
    with database.reading(engine) as session:
        gone = responses.erased(session)
    with _in_the_making(out) as made:
        story = _make(study, plan, engine, wanted, made, check=check)
        sums = finish(made, story)
        detail = f"{out.name}: {story.responses} answers, k = {story.k}, {story.licence}, SHA256SUMS {sums}"
        with database.writing(engine) as session, session.begin():
            if responses.erased(session) != gone:
                raise RootnoteError("somebody had their answers erased meanwhile; make the release once more.")
            study_control.publish(
                session, current_actor(), reason, utc_now(), detail=detail, rehearsal=wanted.rehearsal
            )
            made.rename(out)
    return story, sums


def _require_publishable(engine: Engine, reason: str) -> bool:
    """Whether the study is closed; where it is not, a reason must be given."""
    from server.audit import study_control
    from server.db import database

    with database.reading(engine) as session:
        try:
            return study_control.may_publish(session, reason)
        except study_control.ControlRefusedError as problem:
            raise RootnoteError(str(problem)) from None


@contextlib.contextmanager
def _in_the_making(out: Path) -> Iterator[Path]:
    """A folder beside `out` to work in, which is renamed in the end; what fails leaves neither."""
    made = out.parent / f".{out.name}-{secrets.token_hex(4)}"
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        yield made
    except BaseException as error:
        # Renamed already and then not noted in the log: then it is not to be there either.
        shutil.rmtree(made if made.exists() else out, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(out, error) from error
        raise


def _not_written(out: Path, error: OSError) -> RootnoteError:
    return RootnoteError(f"{out} cannot be written ({error.strerror or error}); nothing was published.")


def _make(
    study: Study, plan: Plan, engine: Engine, wanted: ReleaseOptions, made: Path, *, check: bool
) -> ReleaseMetadata:
    from server.db import database
    from server.export import responses
    from server.public_release.bundle import write_bundle
    from server.public_release.verify import TABLES, require_same_table

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with database.snapshot(engine) as session:
            require_same_schedule(session, plan.schedule_fingerprint)
            story = write_bundle(session, study, plan, wanted, made)
            if check:
                responses.export(session, study, plan, scratch / "own", rehearsal=wanted.rehearsal)
        if not check:
            return story
        report = require_same_table(made, scratch / "own", study.folder, scratch)
        for table in TABLES:
            shutil.copyfile(report / table, made / table)
    return replace(story, checked=True)


def _tell(out: Path, story: ReleaseMetadata, sums: str, as_json: bool) -> None:
    if story.turns_public:
        click.echo(
            "Warning: this study hands its lists out in the order that its seed tells, as earlier versions did, so "
            "whoever has build/schedule.parquet, or can make it again, can tell early listeners from late ones; "
            "publish neither it nor the seed.",
            err=True,
        )
    if as_json:
        told = {one.column.name: {"level": one.level.label, "withheld": one.withheld} for one in story.published}
        counts = {"responses": story.responses, "listeners": story.listeners, "k": story.k, "checked": story.checked}
        click.echo(json.dumps({"path": str(out), "sha256sums": sums, **counts, "published": told}))
        return
    click.echo(f"{out}: {story.responses:,} answers of {story.listeners:,} listeners under names made for it alone.")
    for one in story.published:
        click.echo(f"  {one.column.name}: {one.level.label}; {one.withheld:,} of {len(one.values):,} withheld")
    for column, why in story.dropped.items():
        click.echo(f"  {column}: not told ({why})")
    if story.checked:
        click.echo("The report was made again from it: Table 1 is equal in every digit.")
    if story.plan:
        click.echo(
            "The frozen plan is published as registered, with the contact and paths in it (--without-plan: not)."
        )
    click.echo(f"Read {out / 'README.md'} as a stranger would before you publish it.")
