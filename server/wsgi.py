"""The way in for a WSGI server with several processes, such as gunicorn: `server.wsgi:make()`.

The study's folder is told by ROOTNOTE_STUDY (default: the present folder), the rest by the variables of
server.settings. The application is made once, in the parent, and holds no connection when it forks: each process
opens its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flask import Flask

from embeddings.errors import RootnoteError
from server.app import create_app
from server.settings import read_settings
from server.web import logs
from study.config import load_study

# How long a thread that computes keeps the others waiting: an answer takes its turn several times, once after each
# word with the database, so Python's 5 ms would add up. Seconds.
SWITCH = 0.001


def make(rehearsal: bool = False) -> Flask:
    """The application of the study in ROOTNOTE_STUDY; logs go to stderr as JSON lines.

    Raises:
        SystemExit: with one sentence, where the study, the environment or the database is not fit to serve.
    """
    try:
        study = load_study(Path(os.environ.get("ROOTNOTE_STUDY", ".")))
        app = create_app(study, read_settings(study, os.environ, rehearsal=rehearsal))
    except RootnoteError as error:
        raise SystemExit(f"rootnote: {error}") from None
    app.extensions["rootnote.engine"].dispose()
    logs.configure()
    sys.setswitchinterval(SWITCH)
    return app
