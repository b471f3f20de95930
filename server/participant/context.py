"""The house: what every page of the participants' side needs, and the few ways to get at it within a request."""

from __future__ import annotations

from dataclasses import dataclass

from flask import abort, current_app, g
from sqlalchemy.orm import Session

from server.assignments import lifecycle
from server.assignments.experiment import Experiment
from server.db.models import Assignment
from server.identity.tokens import TokenSigner
from server.participant.marketplace_entry import MarketplaceEntry
from server.privacy.erasure import Journal
from server.web import i18n
from server.web.markdown import StudyTexts
from study.prescreen.item import encode_wav
from study.prescreen.volume import volume_sound

TOKEN_LIMIT = 64


@dataclass(frozen=True)
class AppContext:
    """Everything the pages need that is the same for all listeners."""

    experiment: Experiment
    texts: dict[str, StudyTexts]  # by language
    door: TokenSigner
    volume: bytes
    rehearsal: bool
    journal: Journal
    reception: MarketplaceEntry | None = None  # None: listeners come by plain links

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        texts: dict[str, StudyTexts],
        door: TokenSigner,
        rehearsal: bool,
        journal: Journal,
        reception: MarketplaceEntry | None = None,
    ) -> AppContext:
        loudness = experiment.config.stimuli.loudness_lufs
        return cls(experiment, texts, door, encode_wav(volume_sound(loudness)), rehearsal, journal, reception)

    @property
    def pages(self) -> StudyTexts:
        """The texts in the language of the page."""
        return self.texts[i18n.present()]


def present_context() -> AppContext:
    """The house of this application."""
    house = current_app.extensions["rootnote"]
    assert isinstance(house, AppContext)
    return house


def present_session() -> Session:
    """The session of this request."""
    assert isinstance(g.session, Session)
    return g.session


def present_assignment(token: str, *, lock: bool = False) -> Assignment:
    """The run at a listener's address, whose language the page takes; a page 404 where there is none."""
    found = lifecycle.find(present_session(), token, lock=lock) if len(token) <= TOKEN_LIMIT else None
    if found is None:
        abort(404)
    i18n.use(found.language)
    return found
