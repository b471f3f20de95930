"""What the desk's pages take from the application and from the request."""

from __future__ import annotations

from datetime import datetime

from flask import current_app, g
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.settings import Settings


def settings() -> Settings:
    found = current_app.extensions["rootnote.settings"]
    assert isinstance(found, Settings)
    return found


def engine() -> Engine:
    found = current_app.extensions["rootnote.engine"]
    assert isinstance(found, Engine)
    return found


def experiment() -> Experiment:
    found = current_app.extensions["rootnote"].experiment
    assert isinstance(found, Experiment)
    return found


def now() -> datetime:
    """The time by the study's clock."""
    return experiment().clock()


def session() -> Session:
    """The database session of this request."""
    assert isinstance(g.session, Session)
    return g.session
