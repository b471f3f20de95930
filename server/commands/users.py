"""`rootnote server user`: who may sign in at the desk."""

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
rehearsal_option = click.option("--rehearsal", is_flag=True, help="Use the rehearsal's database.")
ROLES = ("owner", "researcher", "monitor")


@click.group(cls=LazyGroup)
def user() -> None:
    """Manage who may sign in at the researcher's desk (/desk), and with which role."""


@user.command()
@name_argument
@study_argument
@click.option("--role", type=click.Choice(ROLES), help="Default: owner for the first user, researcher for the others.")
@rehearsal_option
def add(name: str, folder: Path, role: str | None, rehearsal: bool) -> None:
    """Add a user.

    Asks for the password, unless ROOTNOTE_DESK_PASSWORD is set.

    Example: rootnote server user add anna my-study
    """
    from server.accounts import users
    from server.accounts.roles import Role

    with _engine(folder, rehearsal) as engine:
        password, wanted = _password(), Role(role) if role else None
        _change(
            engine, "added the user", name, lambda session, now: users.add(session, name, password, now, wanted).role
        )
    click.echo(f"Added the user '{name}', who can now sign in at /desk.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def passwd(name: str, folder: Path, rehearsal: bool) -> None:
    """Reset a user's password.

    Asks for the new one, unless ROOTNOTE_DESK_PASSWORD is set. The user is signed out everywhere.
    """
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        password = _password()
        _change(
            engine, "changed the password of", name, lambda session, now: users.change_password(session, name, password)
        )
    click.echo(f"Reset the password of '{name}' and signed them out everywhere.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def remove(name: str, folder: Path, rehearsal: bool) -> None:
    """Remove a user.

    The user is signed out everywhere; the log keeps what they did.
    """
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        _change(engine, "removed the user", name, lambda session, now: users.remove(session, name))
    click.echo(f"Removed the user '{name}', who can no longer sign in.")


@user.command()
@name_argument
@click.argument("role", type=click.Choice(ROLES))
@study_argument
@rehearsal_option
def role(name: str, role: str, folder: Path, rehearsal: bool) -> None:
    """Change a user's role.

    The new role takes effect on their next page.
    """
    from server.accounts import users
    from server.accounts.roles import Role

    def change(session: Any, now: Any) -> str:
        users.change_role(session, name, Role(role))
        return role

    with _engine(folder, rehearsal) as engine:
        _change(engine, "changed the role of", name, change)
    click.echo(f"Changed the role of '{name}' to {role}.")


@user.command()
@name_argument
@study_argument
@rehearsal_option
def reset_factor(name: str, folder: Path, rehearsal: bool) -> None:
    """Reset a user's second factor.

    The user is signed out everywhere, signs in with the password alone, and can set up another second factor.
    """
    from server.accounts import users

    with _engine(folder, rehearsal) as engine:
        _change(engine, "reset the second factor of", name, lambda session, now: users.remove_two_factor(session, name))
    click.echo(f"Reset the second factor of '{name}', who signs in with the password alone until they set up another.")


@user.command(name="list")
@study_argument
@rehearsal_option
def list_(folder: Path, rehearsal: bool) -> None:
    """List users, with their roles and second factors."""
    from sqlalchemy import select

    from server.commands.common import opened
    from server.db import database
    from server.db.models import Researcher

    with opened(folder, rehearsal) as (_, engine), database.reading(engine) as session:
        researchers = session.scalars(select(Researcher).order_by(Researcher.name)).all()
        for researcher in researchers:
            factor = "second factor" if researcher.factor else "password only"
            click.echo(f"{researcher.name}  {researcher.role}  {factor}")
    if not researchers:
        click.echo("There are no users yet; add one with `rootnote server user add NAME`.", err=True)


def _password() -> str:
    given = os.environ.get("ROOTNOTE_DESK_PASSWORD", "")
    return given or str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@contextlib.contextmanager
def _engine(folder: Path, rehearsal: bool) -> Iterator[Any]:
    """The database, opened for a change that is logged."""
    from server.commands.common import opened

    with opened(folder, rehearsal, secret=True) as (_, engine):
        yield engine


def _change(engine: Any, what: str, name: str, act: Any) -> None:
    """Call `act` and log it, with the role that it returns (if any), both or neither."""
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database

    with database.writing(engine) as session, session.begin():
        role = act(session, utc_now())
        detail = f"{name}: {role}" if role else name
        study_control.write_log(session, current_actor(), what, utc_now(), detail=detail)
