"""The application's context: everything that is the same for all requests, kept as one object on the Flask app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from flask import Flask, current_app
from sqlalchemy import Engine

from server.assignments.experiment import Experiment
from server.identity.tokens import TokenSigner
from server.privacy.erasure import Journal
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.settings import Settings
from server.web.markdown import StudyTexts
from server.web.rate_limits import Limits
from server.web.request_queue import RequestQueue

EXTENSION = "rootnote"  # the key of `app.extensions`


@dataclass(frozen=True)
class AppContext:
    """Everything that one application needs to serve its study.

    `revision`: the migration the database is at; `texts`: by language; `volume_wav`: the sound that listeners set
    their volume with; `download_bytes`: the size of all sounds of one listener; `marketplace_entry`: None if listeners
    come by plain links; `id_parameters`: the parameters of a link that hold ids.
    """

    engine: Engine
    revision: str
    settings: Settings
    experiment: Experiment
    texts: Mapping[str, StudyTexts]
    signer: TokenSigner
    journal: Journal
    volume_wav: bytes
    download_bytes: int
    limits: Limits
    queue: RequestQueue
    marketplace_entry: MarketplaceEntry | None = None
    id_parameters: tuple[str, ...] = ()

    def now(self) -> datetime:
        """The time by the experiment's clock (UTC)."""
        return self.experiment.clock()

    def install(self, app: Flask) -> None:
        """Make this the context of an application."""
        app.extensions[EXTENSION] = self


def context_of(app: Flask) -> AppContext:
    """The context of an application that `server.app.create_app` made."""
    context = app.extensions[EXTENSION]
    assert isinstance(context, AppContext)
    return context


def current_context() -> AppContext:
    """The context of the application that handles the current request."""
    return context_of(current_app)
