"""The real web study on a temporary database, brought into every state so that pictures of its pages can be taken.

It runs in a thread on its own port and is deleted with its temporary folder; the study's databases are never touched.
Listeners move through the use cases of server.assignments.lifecycle, on a clock that can be advanced. No page is
written here, so each is what a listener in that state would see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from flask import Flask
from sqlalchemy import select, text, update
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from werkzeug.serving import WSGIRequestHandler, make_server

from server.app import create_app
from server.app_context import context_of
from server.assignments import audio, lifecycle, prescreen, steps, trials
from server.assignments.experiment import Experiment
from server.assignments.prescreen import ItemAnswer
from server.assignments.trials import TrialAnswer
from server.audit import study_control
from server.db import database
from server.db.enums import SubmissionStatus
from server.db.models import (
    ACTIVE,
    Assignment,
    AssignmentState,
    ClipDelivery,
    MarketplaceSubmission,
    Place,
    Posting,
    PrescreenItem,
)
from server.identity.vault import Vault, new_key
from server.privacy import erasure
from server.recruiting.marketplaces.registry import make_marketplace, marketplace_class
from server.settings import Settings
from study.config import Study
from study.config_sections import StorageConfig
from study.marketplaces import RecruiterConfig
from study.prescreen.registry import STEPS
from study.prescreen.steps import stored_item

WHO = "the board packet"
WHY = "to take a picture of the page"
SIMULATED_SECONDS = 60.0  # of listening to one sound of the prescreen


@dataclass
class ScratchClock:
    """The scratch study's clock: it stands still until it is advanced."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class ScratchStudy:
    """The scratch study: its address and its app."""

    study: Study
    app: Flask
    address: str
    clock: ScratchClock

    @property
    def experiment(self) -> Experiment:
        return context_of(self.app).experiment

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        with database.writing(context_of(self.app).engine) as session, session.begin():
            yield session

    # ------------------------------------------------------------------ arriving

    def entry_address(self, person: int, *, place: int = 1, preview: bool = False, **more: str) -> str:
        """The address at which a person arrives; `place` counts the places they took at the marketplace."""
        query = make_marketplace(self.study).sample_arrival(person, place, preview=preview)
        return f"{self.address}/take?{urlencode(query | more)}"

    def list_submission(self, person: int) -> None:
        """The marketplace lists the place that a person took; nothing where it lists nobody."""
        entry = context_of(self.app).marketplace_entry
        if entry is None or not entry.lists_submissions:
            return
        arrival = entry.marketplace.arrive(entry.marketplace.sample_arrival(person, 1))
        with self.writing() as session:
            session.add(
                MarketplaceSubmission(
                    key=entry.signer.submission_key(arrival.worker or "", arrival.submission),
                    opening=arrival.opening,
                    status=SubmissionStatus.HELD,
                    seen_at=self.clock.now,
                    listed=True,
                )
            )

    # ------------------------------------------------------------------ moving a listener forward

    @contextlib.contextmanager
    def listener(self, token: str) -> Iterator[tuple[Session, Assignment]]:
        with self.writing() as session:
            found = lifecycle.find(session, token, lock=True)
            assert found is not None
            yield session, found

    def set_language(self, token: str, language: str) -> None:
        """Set the language of a listener's pages."""
        with self.listener(token) as (_, assignment):
            assignment.language = language

    def step(self, token: str) -> str:
        with self.listener(token) as (session, assignment):
            return steps.current_step(session, self.experiment, assignment)

    def item(self, token: str) -> PrescreenItem | None:
        """The next item of the prescreen, None if the prescreen is over."""
        with self.listener(token) as (session, assignment):
            due = prescreen.due_items(session, assignment) if assignment.state is AssignmentState.CONSENTED else ()
            session.expunge_all()
            return due[0] if due else None

    def answer_item(self, token: str, item: PrescreenItem, *, right: bool = True) -> None:
        answer = stored_item(item.kind, item.params).answer
        if not right:
            answer = STEPS[item.kind].field.other(answer)
        with self.listener(token) as (session, assignment):
            given = ItemAnswer(item.kind, item.attempt, item.item, answer)
            lifecycle.answer_prescreen(session, self.experiment, assignment, given, SIMULATED_SECONDS)

    def begin_listening(self, token: str) -> None:
        with self.listener(token) as (session, assignment):
            trials.begin_listening(session, self.experiment, assignment)

    def answer_trials(self, token: str) -> None:
        """Answer every trial, as if all clips had been heard once."""
        with self.listener(token) as (session, assignment):
            clips = self.experiment.config.corpus.clip_seconds
            taken = round(4000 * clips)
            sure = 3 if self.experiment.config.player.confidence else None
            for position in range(1, len(self.experiment.trials(assignment)) + 1):
                of_trial = (ClipDelivery.assignment_id == assignment.id, ClipDelivery.position == position)
                for serving in session.scalars(select(ClipDelivery.id).where(*of_trial)):
                    audio.mark_fetched(session, self.experiment, serving)
                session.expire_all()
                given = TrialAnswer(position, "A", taken, 1, 1, 1, sure)
                trials.answer_trial(session, self.experiment, assignment, given, simulated=4 * clips)

    def finish(self, token: str) -> None:
        with self.listener(token) as (session, assignment):
            lifecycle.answer_questions(session, self.experiment, assignment, {})

    def leave(self, token: str) -> None:
        with self.listener(token) as (session, assignment):
            lifecycle.leave(session, self.experiment, assignment)

    def erase(self, token: str) -> None:
        with self.listener(token) as (session, assignment):
            erasure.erase(session, None, assignment, self.experiment.clock(), erasure.LISTENER)

    def end_unheard(self, token: str) -> None:
        with self.listener(token) as (session, assignment):
            lifecycle.end_for_technical_reasons(session, self.experiment, assignment)

    def submit(self, token: str) -> None:
        """The marketplace reports that the work was submitted."""
        with self.listener(token) as (session, assignment):
            submission = update(MarketplaceSubmission).where(MarketplaceSubmission.assignment_id == assignment.id)
            session.execute(submission.values(status="submitted"))

    # ------------------------------------------------------------------ the study as a whole

    def expire_lease(self) -> None:
        self.clock.now += self.experiment.lease + timedelta(minutes=1)

    def fill_other_places(self) -> None:
        """Fill every place that no active listener holds."""
        with self.writing() as session:
            session.execute(update(Place).where(Place.assignment_id.is_(None)).values(filled=True))
            held = select(Assignment.id).where(Assignment.state.in_(ACTIVE))
            given_up = Place.assignment_id.is_not(None) & Place.assignment_id.not_in(held)
            session.execute(update(Place).where(given_up).values(filled=True))

    def stop(self) -> None:
        with self.writing() as session:
            study_control.stop(session, WHO, WHY, self.clock.now)

    def close(self) -> None:
        with self.writing() as session:
            study_control.close(session, WHO, WHY, self.clock.now)

    def break_down(self) -> None:
        """Drop a table, so that the next page fails as on a broken server."""
        with self.writing() as session:
            session.execute(text("DROP TABLE places"))


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Hide what the scratch study logs, such as its intended failure."""
    logger, handler = logging.getLogger("server"), logging.NullHandler()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class _Quiet(WSGIRequestHandler):
    def log(self, kind: str, message: str, *args: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def open_scratch_study(study: Study) -> Iterator[ScratchStudy]:
    """Serve the study from a temporary database, in this process, with clips from build/stimuli and not from a bucket.

    Raises:
        RootnoteError: if the study is not built, its clips are not on this machine, or a text is missing.
    """
    changes = {"storage": StorageConfig(), "recruiter": _with_open_links(study.config.recruiter)}
    local_study = dataclasses.replace(study, config=study.config.model_copy(update=changes))
    with tempfile.TemporaryDirectory(prefix="rootnote-packet-") as folder, _without_logs():
        url, clock = URL.create("sqlite", database=str(Path(folder) / "scratch.sqlite3")), ScratchClock()
        engine = database.connect(url)
        database.migrate(engine)
        engine.dispose()
        vault = None if not study.config.recruiter.has_arrivals else Vault([new_key()])
        journal = str(Path(folder) / "erasures.jsonl")  # not the study's own
        settings = Settings(url, secrets.token_hex(32), requests_per_second=0, vault=vault, erasures=journal)
        app = create_app(local_study, settings, clock=clock, for_people=False)
        _ask_nobody(app)
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            scratch = ScratchStudy(local_study, app, f"http://127.0.0.1:{server.server_port}", clock)
            _open_places(scratch)
            yield scratch
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            context_of(app).engine.dispose()


def _ask_nobody(app: Flask) -> None:
    """Never ask the real marketplace about the packet's made-up people, even if its token is set."""
    context = context_of(app)
    if context.marketplace_entry is not None:
        entry = dataclasses.replace(context.marketplace_entry, lookup=None)
        app.extensions["rootnote"] = dataclasses.replace(context, marketplace_entry=entry)


def _with_open_links(recruiter: RecruiterConfig) -> RecruiterConfig:
    """The pages are the same with personal links, which the packet's made-up people do not have."""
    if recruiter.kind != "link":
        return recruiter
    return recruiter.model_copy(update={"link": recruiter.settings.model_copy(update={"open": True})})


def _open_places(scratch: ScratchStudy) -> None:
    """Store the posting through which marketplace workers arrive."""
    marketplace = marketplace_class(scratch.study.config)
    if not scratch.study.config.recruiter.has_arrivals:
        return
    with scratch.writing() as session:
        session.add(
            Posting(
                token="packet",  # noqa: S106 (a name)
                places=1,
                reward_cents=0,
                fee_cents=0,
                market_id=marketplace.sample_opening,
                ordered_at=scratch.clock.now,
            )
        )
