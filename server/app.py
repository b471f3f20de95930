"""The web application: one factory, one transaction per request, one look for every error.

A request commits when its reply is below status 400 and rolls back otherwise. Every reply, errors included,
carries the same security headers; none says what the server is made of.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from pathlib import Path

from flask import Flask, g, render_template, request
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as WebResponse

from embeddings.errors import RootnoteError
from server.assignments.experiment import Clock, Experiment, StepRefusedError, utc_now
from server.assignments.places import sync_places
from server.audit import hash_chain
from server.db import database
from server.desk import account_views, study_views, user_views
from server.desk import views as desk_views
from server.identity.tokens import TokenSigner, sha256
from server.identity.vault import NEEDED
from server.monitoring import health
from server.participant import privacy_views
from server.participant import views as participant_views
from server.participant.context import AppContext
from server.participant.marketplace_entry import MarketplaceEntry
from server.privacy import consent_texts, retention
from server.privacy.erasure import Journal, replay
from server.recruiting.marketplaces.registry import make_marketplace
from server.settings import Settings
from server.web import i18n
from server.web.markdown import read_study_texts
from server.web.rate_limits import Limits
from server.web.request_queue import WAITED, QueuedApp, RequestQueue
from server.web.security_headers import security_headers
from study.config import Study
from study.languages import mark
from study.questionnaire import text_characters
from study.stimuli.storage import open_storage
from study.trial_plan import read_plan

MAX_REQUEST_BYTES = 64 * 1024
SENT_BYTES = 12  # of one character in a form, at most
HOUSEKEEPING_SECONDS = 3600
ERRORS = {
    400: (mark("This did not work"), mark("What was sent is not complete; please load the page again.")),
    404: (mark("There is nothing here"), mark("This page does not exist, or is no longer there.")),
    405: (mark("There is nothing here"), mark("This address cannot be opened this way.")),
    413: (mark("This is too much"), mark("What was sent is too long; please shorten it.")),
    416: (mark("There is nothing here"), mark("That part of the sound does not exist.")),
    429: (
        mark("One moment, please"),
        mark("Very many requests came from here at once. Please wait a moment, then load the page again."),
    ),
    500: (
        mark("Something went wrong here"),
        mark("It is not your fault, and nothing that you answered before is lost."),
    ),
}
ASSETS = ("rootnote.css", "player.js", "rootnote.js", "desk.css", "desk.js")
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
QUIET = ("static", "watch.healthz", "watch.readyz", "watch.metrics")
log = logging.getLogger(__name__)


def create_app(study: Study, settings: Settings, *, clock: Clock = utc_now) -> Flask:
    """Make the application for one study; the database must be migrated.

    Raises:
        RootnoteError: where artefacts are missing or stale, consent.md is missing, or the database is not
            migrated or belongs to another schedule.
    """
    engine = database.connect(settings.database, settings.secret)
    mend = f"rootnote server migrate {study.folder}" + (" --rehearsal" if settings.rehearsal else "")
    pages = read_study_texts(study)
    storage = open_storage(study)
    experiment = Experiment(settings.adjust(study.config), read_plan(study), clock, storage, settings.rehearsal)
    revision = database.require_migrated(engine, mend)
    journal = Journal(settings.erasures_of(study))
    with database.writing(engine) as session, session.begin():
        sync_places(session, experiment)
        hash_chain.begin(session, clock())
        shown = {name: (one.consent_version, one.consent_source) for name, one in pages.items()}
        consent_texts.keep(session, shown, clock())
    with database.writing(engine) as session, session.begin():  # by itself: runs are locked before the log is
        replay(session, journal, clock())
    app, door = Flask(__name__), TokenSigner(settings.secret)
    most = _request_bytes(study)
    app.config.update(MAX_CONTENT_LENGTH=most, MAX_FORM_MEMORY_SIZE=most)
    app.extensions["rootnote"] = AppContext.of(
        experiment, pages, door, settings.rehearsal, journal, _reception(study, settings, door)
    )
    app.extensions["rootnote.engine"] = engine
    app.extensions["rootnote.revision"] = revision
    app.extensions["rootnote.settings"] = settings
    proxies = settings.trusted_proxies
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    app.jinja_env.globals.update(study_name=study.config.study.name, rehearsal=settings.rehearsal)
    app.jinja_env.globals.update(contact=study.config.study.contact, assets=_assets_version(app))
    app.jinja_env.globals.update(marketplace=_marketplace(app))
    app.jinja_env.globals.update(unheard_usd=study.config.pay.unheard_usd)
    app.jinja_env.globals.update(screened_out_usd=study.config.pay.screened_out_usd)
    i18n.install(app, study.config.study.languages)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.register_blueprint(participant_views.blueprint)
    app.register_blueprint(privacy_views.blueprint)
    for desk in (desk_views, study_views, account_views, user_views):
        app.register_blueprint(desk.blueprint)
    app.register_blueprint(health.blueprint)
    _keep_logs(app)
    _keep_limits(app, Limits(settings.requests_per_second))
    _keep_headers(app, study.config.recruiter.kind, settings, storage.origin)
    _keep_transactions(app, engine)
    _keep_retention(app, engine, experiment, door)
    _answer_errors(app)
    app.extensions["rootnote.gate"] = gate = RequestQueue(settings.at_work)
    app.wsgi_app = QueuedApp(app.wsgi_app, gate, most)  # type: ignore[method-assign]
    return app


def _request_bytes(study: Study) -> int:
    """What a request may hold: enough for the longest answers in any script, and below four times the least."""
    return max(MAX_REQUEST_BYTES, 15_000 + SENT_BYTES * text_characters(study.config.questions))


def _reception(study: Study, settings: Settings, door: TokenSigner) -> MarketplaceEntry | None:
    """Who sees to those who come from a marketplace; None where listeners come by plain links."""
    if study.config.recruiter.kind == "link":
        return None
    if settings.vault is None:
        raise RootnoteError(NEEDED)
    recruiter = make_marketplace(study, endpoint=settings.market_url)
    return MarketplaceEntry(recruiter, settings.vault, door, study.config.pay)


def _marketplace(app: Flask) -> str:
    """The marketplace's name, "" for plain links."""
    reception = app.extensions["rootnote"].reception
    return reception.recruiter.terms.name if reception else ""


def _assets_version(app: Flask) -> str:
    """Changes with the styles and the scripts, so that a browser never pairs an old one with a new page."""
    folder = Path(app.root_path) / "static"
    return sha256("".join((folder / name).read_text("utf-8") for name in ASSETS))[:12]


def _keep_logs(app: Flask) -> None:
    @app.before_request
    def note() -> None:
        g.began, g.reference = time.monotonic(), secrets.token_hex(4)

    @app.after_request
    def tell(response: WebResponse) -> WebResponse:
        level = logging.DEBUG if request.endpoint in QUIET and response.status_code < 400 else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "request", extra=_line(response.status_code))
        return response


def _line(status: int) -> dict[str, object]:
    """What a log may know of a request: the path holds the listener's token, so only the route is told."""
    ms = round(1000 * (time.monotonic() - g.began), 1)
    # A method or a route of the sender's own making is told as none.
    method = request.method if request.method in METHODS else "other"
    waited = round(1000 * request.environ.get(WAITED, 0.0), 1)
    told = {"route": request.endpoint, "method": method, "status": status, "ms": ms}
    return told | {"waited_ms": waited, "reference": g.reference}


def _keep_limits(app: Flask, limits: Limits) -> None:
    @app.before_request
    def limit() -> None:
        named = request.view_args or {}
        wait = limits.wait(request.remote_addr, named.get("token") or named.get("name"))  # a listener's, or a sound's
        if wait:
            raise TooManyRequests(retry_after=math.ceil(wait))


def _keep_headers(app: Flask, recruiter: str, settings: Settings, storage: str | None) -> None:
    @app.after_request
    def add(response: WebResponse) -> WebResponse:
        desk, by_https = _is_desk(), settings.secure or request.is_secure
        sounds = (storage,) if storage and not desk else ()
        headers = security_headers(recruiter, desk=desk, secure=by_https, sounds=sounds, market=settings.market_url)
        response.headers.update(headers)
        if request.endpoint == "static" and response.status_code < 400:
            response.headers["Cache-Control"] = "public, max-age=86400"
        else:
            response.headers["Cache-Control"] = "private, no-store"
        return response


def _is_desk() -> bool:
    return request.path == "/desk" or request.path.startswith("/desk/")


def _keep_transactions(app: Flask, engine: Engine) -> None:
    @app.before_request
    def begin() -> None:
        g.session = database.writing(engine) if request.method == "POST" else database.reading(engine)

    @app.after_request
    def end(response: WebResponse) -> WebResponse:
        session = g.pop("session", None)
        if session is not None:
            with session:
                if response.status_code < 400:
                    session.commit()
        return response

    @app.teardown_request
    def close(error: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            session.close()


def _keep_retention(app: Flask, engine: Engine, experiment: Experiment, door: TokenSigner) -> None:
    """Look once an hour, before a request, whether identities are due to be deleted; several processes may."""
    looked = [-math.inf]

    @app.before_request
    def look() -> None:
        early = time.monotonic() - looked[0] < HOUSEKEEPING_SECONDS
        if early or request.method != "GET" or request.endpoint == "watch.healthz":
            return
        looked[0] = time.monotonic()
        try:
            retention.purge_automatically(engine, experiment.config, door, experiment.clock)
        except SQLAlchemyError as error:
            log.warning("identities were not looked at", exc_info=error)  # the next hour's turn


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(StepRefusedError)
    def refuse(error: StepRefusedError) -> WebResponse:
        return _error_page(400, str(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> WebResponse:
        code = error.code if error.code in ERRORS else (500 if (error.code or 500) >= 500 else 400)
        page = _error_page(code)
        if isinstance(error, TooManyRequests) and error.retry_after is not None:
            page.headers["Retry-After"] = str(error.retry_after)
        return page

    @app.errorhandler(Exception)
    def fail(error: Exception) -> WebResponse:
        log.error("failed", exc_info=error, extra=_line(500))
        return _error_page(500)


def _error_page(code: int, problem: str | None = None) -> WebResponse:
    title, text = ERRORS[code]
    # Only a listener's own address is worth going back to.
    token = (request.view_args or {}).get("token") if code != 404 else None
    reference = g.get("reference") if code >= 500 else None
    page = render_template(
        "desk/error.html" if _is_desk() else "error.html",
        step="error",
        title=i18n.gettext(title),
        problem=i18n.gettext(problem or text),
        token=token,
        reference=reference,
    )
    return WebResponse(page, status=code, mimetype="text/html")
