"""The parts of the application and of the request that the desk's pages need."""

from __future__ import annotations

from datetime import datetime

from flask import g
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.app_context import current_context
from server.assignments.experiment import Experiment
from server.settings import Settings


def settings() -> Settings:
    return current_context().settings


def engine() -> Engine:
    return current_context().engine


def experiment() -> Experiment:
    return current_context().experiment


def now() -> datetime:
    """The time by the study's clock."""
    return current_context().now()


def session() -> Session:
    """The database session of this request."""
    assert isinstance(g.session, Session)
    return g.session
