"""`rootnote server user`: who may open the desk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from embeddings.lazy_group import LazyGroup
from server.commands.common import study_argument

name_argument = click.argument("name")
rehearsal_option = click.option("--rehearsal", is_flag=True, help="Of the rehearsal's desk.")
ROLES = ("owner", "researcher", "monitor")


@click.group(cls=LazyGroup)
def user() -> None:
    """Say who may open the researcher's desk, at /desk, and in which role."""


@user.command()
@name_argument
@study_argument
@click.option("--role", type=click.Choice(ROLES), help="Default: the first is the owner, the others researchers.")
@rehearsal_option
def add(name: str, folder: Path, role: str | None, rehearsal: bool) -> None:
    """Add somebody; the password is asked for, or taken from ROOTNOTE_DESK_PASSWORD."""
    from server.accounts import users
    from server.accounts.roles import Role

    with _engine(folder, rehearsal) as engine:
        password, wanted = _password(), Role(role) if role else None
        _change(engine, "added", name, lambda session, now: users.add(session, name, password, now, wanted).role)
    click.echo(f"'{name}' may sign in at /desk.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def passwd(name: str, folder: Path, rehearsal: bool) -> None:
    """Give a researcher another password; they are signed out everywhere."""
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        password = _password()
        _change(
            engine, "changed the password of", name, lambda session, now: users.change_password(session, name, password)
        )
    click.echo(f"'{name}' has another password and is signed out everywhere.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def remove(name: str, folder: Path, rehearsal: bool) -> None:
    """Remove a researcher, who is signed out everywhere; what they did stays in the log."""
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        _change(engine, "removed", name, lambda session, now: users.remove(session, name))
    click.echo(f"'{name}' can sign in no more.")


@user.command()
@name_argument
@click.argument("role", type=click.Choice(ROLES))
@study_argument
@rehearsal_option
def role(name: str, role: str, folder: Path, rehearsal: bool) -> None:
    """Give somebody another role, from their next page on."""
    from server.accounts import users
    from server.accounts.roles import Role

    def change(session: Any, now: Any) -> str:
        users.change_role(session, name, Role(role))
        return role

    with _engine(folder, rehearsal) as engine:
        _change(engine, "changed the role of", name, change)
    click.echo(f"'{name}' is {role} now.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def reset_factor(name: str, folder: Path, rehearsal: bool) -> None:
    """Forget somebody's second factor, who is signed out everywhere; they may set up another."""
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        _change(engine, "reset the second factor of", name, lambda session, now: users.drop_factor(session, name))
    click.echo(f"'{name}' signs in by password alone until they set up another second factor.")


@user.command(name="list")
@study_argument
@rehearsal_option
def list_(folder: Path, rehearsal: bool) -> None:
    """List who may sign in, in which role, and who has a second factor."""
    from sqlalchemy import select

    from server.commands.common import opened
    from server.db import database
    from server.db.models import Researcher

    with opened(folder, rehearsal) as (_, engine), database.reading(engine) as session:
        for researcher in session.scalars(select(Researcher).order_by(Researcher.name)):
            factor = "second factor" if researcher.factor else "password alone"
            click.echo(f"{researcher.name}  {researcher.role}  {factor}")


def _password() -> str:
    given = os.environ.get("ROOTNOTE_DESK_PASSWORD", "")
    return given or str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@contextlib.contextmanager
def _engine(folder: Path, rehearsal: bool) -> Iterator[Any]:
    """The database, to be changed: what is done is written into the log."""
    from server.commands.common import opened

    with opened(folder, rehearsal, secret=True) as (_, engine):
        yield engine


def _change(engine: Any, what: str, name: str, act: Any) -> None:
    """Do it and write it into the log, with the role that it returns, both or neither."""
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database

    with database.writing(engine) as session, session.begin():
        role = act(session, utc_now())
        detail = f"{name}: {role}" if role else name
        study_control.write_log(session, current_actor(), what, utc_now(), detail=detail)
