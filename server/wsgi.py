"""The entry point for a WSGI server with several processes, such as gunicorn: `server.wsgi:make()`.

ROOTNOTE_STUDY names the study's folder (default: the current directory); server.settings lists the other variables.
The application is made once, in the parent process, and holds no connection when it forks: each process opens its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flask import Flask

from embeddings.errors import RootnoteError
from server.app import create_app
from server.app_context import context_of
from server.settings import read_settings
from server.web import logs
from study.config import load_study

# Seconds after which a running thread lets others run. An answer waits for its turn several times, once after each
# database statement, so Python's default of 5 ms would add up.
SWITCH_SECONDS = 0.001


def make(rehearsal: bool = False) -> Flask:
    """Make the application of the study in ROOTNOTE_STUDY; it logs JSON lines to stderr.

    Raises:
        SystemExit: with one sentence, if the study, the environment or the database is not ready to serve.
    """
    try:
        study = load_study(Path(os.environ.get("ROOTNOTE_STUDY", ".")))
        app = create_app(study, read_settings(study, os.environ, rehearsal=rehearsal))
    except RootnoteError as error:
        raise SystemExit(f"rootnote: {error}") from None
    context_of(app).engine.dispose()
    logs.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    return app
