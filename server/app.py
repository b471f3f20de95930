"""The web application: `create_app` makes it for one study.

Each request is one transaction: it commits when its reply is below status 400 and rolls back otherwise. Every reply,
errors included, carries the same security headers; none reveals what software the server runs.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

from flask import Flask, g, request
from jinja2 import ChoiceLoader, FileSystemLoader
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response as WebResponse

from embeddings.errors import RootnoteError
from server import error_pages
from server.app_context import AppContext
from server.assignments.earlier_builds import require_blind
from server.assignments.experiment import Clock, Experiment, utc_now
from server.assignments.places import sync_places
from server.audit import answer_seals, hash_chain, resuming
from server.db import database
from server.db.compaction import truncate_wal
from server.desk import account_views, study_views, user_views
from server.desk import views as desk_views
from server.identity import vault as identity_vault
from server.identity.tokens import TokenSigner, sha256
from server.monitoring import health
from server.participant import panel, privacy_views, routes
from server.privacy import consent_texts, retention
from server.privacy.erasure import Journal, replay
from server.recruiting.arrival_proof import PAUSE_SECONDS, SubmissionLookup, UnconfirmedLimit
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.recruiting.marketplaces.registry import make_marketplace, origins_of
from server.settings import Settings
from server.web import i18n, rate_limits, request_log
from server.web.markdown import read_study_texts
from server.web.rate_limits import Limits
from server.web.request_queue import QueuedApp, RequestQueue
from server.web.security_headers import MarketplaceOrigins, is_desk_path, local_path, security_headers
from server.webhooks import views as webhook_views
from study.config import Study
from study.prescreen.item import encode_wav
from study.prescreen.registry import STEPS
from study.prescreen.steps import prescreen_bytes
from study.prescreen.volume import volume_sound
from study.questionnaire import QUESTION_TYPES, text_characters
from study.registry import template_folders
from study.stimuli.storage import open_storage
from study.trial_plan import read_plan

MAX_REQUEST_BYTES = 64 * 1024
BYTES_PER_CHARACTER = 12  # as a form sends it, at most
HOUSEKEEPING_SECONDS = 3600
ASSETS = ("rootnote.css", "player.js", "rootnote.js", "desk.css", "desk.js")
log = logging.getLogger(__name__)


def create_app(study: Study, settings: Settings, *, clock: Clock = utc_now, for_people: bool = True) -> Flask:
    """Make the application for one study; the database must be migrated.

    Args:
        for_people: whether people may take part; then, unless it is a rehearsal, a build that leaks is refused.

    Raises:
        RootnoteError: if artefacts are missing or stale, consent.md is missing, or the database is not
            migrated or belongs to another schedule.
    """
    context = _make_context(study, settings, clock)
    _prepare_database(context, study.folder if for_people and not settings.rehearsal else None)
    _require_readable_identities(context)
    app = Flask(__name__)
    context.install(app)
    max_bytes = _max_request_bytes(study)
    app.config.update(MAX_CONTENT_LENGTH=max_bytes, MAX_FORM_MEMORY_SIZE=max_bytes)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    _set_up_templates(app, study, context)
    _register_pages(app, context)
    # Hooks run in this order before a request and in the reverse order after it.
    request_log.install(app)
    rate_limits.install(app, context.limits)
    _add_security_headers(app, origins_of(study.config), context)
    _open_transactions(app, context.engine)
    _purge_hourly(app, context)
    error_pages.install(app)
    app.wsgi_app = QueuedApp(app.wsgi_app, context.queue, max_bytes)  # type: ignore[method-assign]
    return app


def _make_context(study: Study, settings: Settings, clock: Clock) -> AppContext:
    engine = database.connect(settings.database, settings.secret, settings.witness_of(study))
    texts = read_study_texts(study)
    config = settings.adjust(study.config)
    experiment = Experiment(config, read_plan(study), clock, open_storage(study), settings.rehearsal)
    command = f"rootnote server migrate {study.folder}" + (" --rehearsal" if settings.rehearsal else "")
    signer = TokenSigner(settings.secret)
    volume_wav = encode_wav(volume_sound(config.stimuli.loudness_lufs))
    return AppContext(
        engine=engine,
        revision=database.require_migrated(engine, command),
        settings=settings,
        experiment=experiment,
        texts=texts,
        signer=signer,
        journal=Journal(settings.erasures_of(study)),
        volume_wav=volume_wav,
        download_bytes=len(volume_wav) + prescreen_bytes(config) + experiment.plan.bytes_per_listener,
        limits=Limits(settings.requests_per_second),
        queue=RequestQueue(settings.at_work),
        marketplace_entry=_marketplace_entry(study, settings, signer),
        id_parameters=_id_parameters(study),
    )


def _marketplace_entry(study: Study, settings: Settings, signer: TokenSigner) -> MarketplaceEntry | None:
    """The entry point for people from a marketplace; None if listeners come by plain links."""
    if not study.config.recruiter.has_arrivals:
        return None
    if settings.vault is None:
        raise RootnoteError(identity_vault.NEEDED)
    marketplace = make_marketplace(study, endpoint=settings.market_url)
    pause = 0.0 if settings.market_url else PAUSE_SECONDS
    lookup = SubmissionLookup(marketplace, pause=pause) if marketplace.capabilities.lists_held else None
    limit = UnconfirmedLimit(limited=settings.unconfirmed_limited)
    return MarketplaceEntry(marketplace, settings.vault, signer, study.config.pay, limit, lookup)


def _id_parameters(study: Study) -> tuple[str, ...]:
    """The parameters of a listener's link that hold ids: those of the marketplace's own links."""
    sample = make_marketplace(study).sample_arrival(1, 1)
    ids = [name for name, value in sample.items() if "://" not in value]
    return (*ids, *(() if study.config.recruiter.has_arrivals else ("link", "signature")))


def _prepare_database(context: AppContext, served: Path | None) -> None:
    """Create the rows that a new database lacks, and repeat the erasures of the journal.

    Args:
        served: the study folder, if people may take part.
    """
    now = context.now()
    with database.writing(context.engine) as session, session.begin():
        if served is not None:  # before the places are created, so that the study can still be built again
            require_blind(session, context.experiment.plan, served)
        resuming.resume(session, now)
    with database.writing(context.engine) as session, session.begin():
        sync_places(session, context.experiment)
        hash_chain.begin(session, now)
        answer_seals.seal_earlier(session, now)
        shown = {language: (one.consent_version, one.consent_source) for language, one in context.texts.items()}
        consent_texts.keep(session, shown, now)
    # In a transaction of its own: assignments are locked before the log is.
    with database.writing(context.engine) as session, session.begin():
        replay(session, context.journal, now)


def _require_readable_identities(context: AppContext) -> None:
    """Refuse to start with a key too few: a listener whose identity cannot be read could not be paid."""
    vault = context.settings.vault
    if vault is not None:
        with database.reading(context.engine) as session:
            identity_vault.require_readable(session, vault)


def _max_request_bytes(study: Study) -> int:
    """How large a request may be: enough for the longest answers in any script, below four times the minimum."""
    return max(MAX_REQUEST_BYTES, 15_000 + BYTES_PER_CHARACTER * text_characters(study.config.questions))


def _set_up_templates(app: Flask, study: Study, context: AppContext) -> None:
    config, entry = study.config, context.marketplace_entry
    extensions = [FileSystemLoader(folder) for folder in template_folders(QUESTION_TYPES, STEPS)]
    if extensions:
        app.jinja_loader = ChoiceLoader([FileSystemLoader(Path(app.root_path) / "templates"), *extensions])
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(
        study_name=config.study.name,
        contact=config.study.contact,
        rehearsal=context.settings.rehearsal,
        marketplace=entry.marketplace.capabilities.name if entry and entry.marketplace.holds_places else "",
        panel=entry.marketplace.capabilities.name if entry and not entry.marketplace.holds_places else "",
        unheard=config.pay.unheard,
        screened_out=config.pay.screened_out,
        currency=config.currency,
        assets=_assets_version(app),
    )
    i18n.install(app, config.study.languages)
    panel.install(app, entry)


def _assets_version(app: Flask) -> str:
    """Changes with the styles and scripts, so that a browser never combines an old one with a new page."""
    folder = Path(app.root_path) / "static"
    return sha256("".join((folder / name).read_text("utf-8") for name in ASSETS))[:12]


def _register_pages(app: Flask, context: AppContext) -> None:
    checks = health.HealthChecks(
        context.engine, context.revision, context.experiment.plan, context.settings.metrics_token
    )
    for blueprint in (
        routes.blueprint,
        privacy_views.blueprint,
        desk_views.blueprint,
        study_views.blueprint,
        account_views.blueprint,
        user_views.blueprint,
        health.make_blueprint(checks),
        webhook_views.make_blueprint(context),
    ):
        app.register_blueprint(blueprint)


# ------------------------------------------------------------------ hooks of every request


def _add_security_headers(app: Flask, origins: MarketplaceOrigins, context: AppContext) -> None:
    settings, storage = context.settings, context.experiment.storage.origin

    @app.after_request
    def add_headers(response: WebResponse) -> WebResponse:
        desk, https = is_desk_path(request.path), settings.secure or request.is_secure
        sounds = (storage,) if storage and not desk else ()
        headers = security_headers(origins, desk=desk, secure=https, sounds=sounds, market=settings.market_url)
        response.headers.update(headers)
        if isinstance(request.routing_exception, RequestRedirect):  # it would name the host that the request names
            response.headers["Location"] = local_path(request.routing_exception.new_url)
        if request.endpoint == "static" and response.status_code < 400:
            response.headers["Cache-Control"] = "public, max-age=86400"
        else:
            # No proxy may compress a sound: its compressed size would hint at the more similar clip.
            response.headers["Cache-Control"] = "private, no-store, no-transform"
        return response


def _open_transactions(app: Flask, engine: Engine) -> None:
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


def _purge_hourly(app: Flask, context: AppContext) -> None:
    """Once an hour, before a request, delete identities that are due; several processes may do it at once."""
    last = [-math.inf]

    @app.before_request
    def purge() -> None:
        early = time.monotonic() - last[0] < HOUSEKEEPING_SECONDS
        if early or request.method != "GET" or request.endpoint == "health.healthz":
            return
        last[0] = time.monotonic()
        experiment = context.experiment
        try:
            retention.purge_automatically(context.engine, experiment.config, context.signer, experiment.clock)
            truncate_wal(context.engine)  # which still contains what was erased
        except SQLAlchemyError as error:
            log.warning("identities were not checked", exc_info=error)  # retried in the next hour
