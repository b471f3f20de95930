"""A visit: one request of a listener, the first argument of every view of the participants' pages."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Blueprint, abort, g, request
from sqlalchemy.orm import Session

from server.app_context import AppContext, current_context
from server.assignments import lifecycle, rehearsal_clock
from server.assignments.experiment import Experiment
from server.db import database
from server.db.models import Assignment
from server.identity.tokens import TokenSigner
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.web import i18n
from server.web.markdown import StudyTexts
from server.web.rate_limits import network

TOKEN_LIMIT = 64

blueprint = Blueprint("participant", __name__)

Arguments = ParamSpec("Arguments")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class Visit:
    """One request: the application's context and the request's database session."""

    context: AppContext
    session: Session

    @property
    def experiment(self) -> Experiment:
        return self.context.experiment

    @property
    def signer(self) -> TokenSigner:
        return self.context.signer

    @property
    def marketplace_entry(self) -> MarketplaceEntry | None:
        return self.context.marketplace_entry

    @property
    def network(self) -> str:
        """The network that the listener's address belongs to; it is never stored."""
        return network(request.remote_addr)

    @property
    def host(self) -> str:
        """Our own name and port in the address that listeners open."""
        return urlsplit(self.context.settings.public_url).netloc or request.host

    @property
    def texts(self) -> StudyTexts:
        """The study's texts in the language of the page."""
        return self.context.texts[i18n.present()]

    def now(self) -> datetime:
        return self.context.now()

    @property
    def simulated_seconds(self) -> float:
        """The seconds that a simulated listener adds to the server's clock; 0 outside a rehearsal."""
        return rehearsal_clock.simulated_seconds(
            self.session, self.experiment, request.headers.get(rehearsal_clock.HEADER, "")
        )

    def assignment(self, token: str, *, lock: bool = False) -> Assignment:
        """The assignment at a listener's address, whose language the page takes; a 404 page if there is none."""
        found = lifecycle.find(self.session, token, lock=lock) if len(token) <= TOKEN_LIMIT else None
        if found is None:
            abort(404)
        i18n.use(found.language)
        return found

    @contextlib.contextmanager
    def single_write(self) -> Iterator[Session]:
        """A transaction for one statement that writes in a request that otherwise reads.

        The lock is held for that statement alone, and not while a page is rendered.
        """
        self.release_connection()
        with database.writing_once(self.context.engine) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def separate_write(self) -> Iterator[Session]:
        """A transaction of its own that writes in a request that otherwise reads."""
        self.release_connection()
        with database.writing(self.context.engine) as session, session.begin():
            yield session

    def release_connection(self) -> None:
        """Close the reading session, so that the request does not hold a second connection, or one while it waits."""
        self.session.commit()


def pass_visit(view: Callable[Concatenate[Visit, Arguments], Reply]) -> Callable[Arguments, Reply]:
    """Call a view with the visit of its request as first argument."""

    @functools.wraps(view)
    def with_visit(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Reply:
        assert isinstance(g.session, Session)
        return view(Visit(current_context(), g.session), *args, **kwargs)

    return with_visit
