"""The web application: one factory, one transaction per request, one look for every error.

A request commits when its reply is below status 400 and rolls back otherwise. Every reply, errors included,
carries the same security headers; none says what the server is made of.
"""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Flask, g, render_template, request
from sqlalchemy import Engine
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WebResponse

from server import database, participant
from server.door import Door, sha256
from server.flow import Clock, Experiment, Refused, sync_places, utc_now
from server.pages import read_pages
from server.participant import House
from server.settings import Settings
from study.config import Study
from study.plan import read_plan

MAX_REQUEST_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}
ERRORS = {
    400: ("This did not work", "What was sent is not complete; please load the page again."),
    404: ("There is nothing here", "This page does not exist, or is no longer there."),
    405: ("There is nothing here", "This address cannot be opened this way."),
    413: ("This is too much", "What was sent is too long; please shorten it."),
    416: ("There is nothing here", "That part of the sound does not exist."),
    500: ("Something went wrong here", "It is not your fault, and nothing that you answered before is lost."),
}
log = logging.getLogger(__name__)


def create_app(study: Study, settings: Settings, *, clock: Clock = utc_now) -> Flask:
    """Make the application for one study; the database must be migrated.

    Raises:
        RootnoteError: where artefacts are missing or stale, consent.md is missing, or the database is not
            migrated or belongs to another schedule.
    """
    engine = database.connect(settings.database)
    mend = f"rootnote server migrate {study.folder}" + (" --rehearsal" if settings.rehearsal else "")
    pages = read_pages(study)
    experiment = Experiment(settings.adjust(study.config), read_plan(study), clock)
    database.require_migrated(engine, mend)
    with database.writing(engine) as session, session.begin():
        sync_places(session, experiment)
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES, MAX_FORM_MEMORY_SIZE=MAX_REQUEST_BYTES)
    app.extensions["rootnote"] = House.of(experiment, pages, Door(settings.secret), settings.rehearsal)
    app.extensions["rootnote.engine"] = engine
    app.jinja_env.globals.update(study_name=study.config.study.name, rehearsal=settings.rehearsal)
    app.jinja_env.globals.update(contact=study.config.study.contact, assets=_assets_version(app))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.register_blueprint(participant.blueprint)
    _keep_transactions(app, engine)
    _answer_errors(app)
    return app


def _assets_version(app: Flask) -> str:
    """Changes with the style and the script, so that a browser never pairs an old one with a new page."""
    folder = Path(app.root_path) / "static"
    return sha256("".join((folder / name).read_text("utf-8") for name in ("rootnote.css", "rootnote.js")))[:12]


def _keep_transactions(app: Flask, engine: Engine) -> None:
    @app.before_request
    def begin() -> None:
        writes = request.method == "POST" or request.endpoint == "participant.audio"
        g.session = database.writing(engine) if writes else database.reading(engine)

    @app.after_request
    def end(response: WebResponse) -> WebResponse:
        session = g.pop("session", None)
        if session is not None:
            with session:
                if response.status_code < 400:
                    session.commit()
        response.headers.update(HEADERS)
        if request.endpoint == "static" and response.status_code < 400:
            response.headers["Cache-Control"] = "public, max-age=86400"
        else:
            response.headers["Cache-Control"] = "private, no-store"
        return response

    @app.teardown_request
    def close(error: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            session.close()


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(Refused)
    def refuse(error: Refused) -> tuple[str, int]:
        return _error_page(400, str(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[str, int]:
        code = error.code if error.code in ERRORS else (500 if (error.code or 500) >= 500 else 400)
        return _error_page(code)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[str, int]:
        # The path holds the listener's token: only the kind of page is logged.
        log.error("%s %s failed", request.method, request.endpoint, exc_info=error)
        return _error_page(500)


def _error_page(code: int, problem: str | None = None) -> tuple[str, int]:
    title, text = ERRORS[code]
    # Only a listener's own address is worth going back to.
    token = (request.view_args or {}).get("token") if code != 404 else None
    return render_template("error.html", step="error", title=title, problem=problem or text, token=token), code
