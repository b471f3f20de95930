"""What machines ask: /healthz (the process lives), /readyz (it can serve this study), /metrics (how far it is).

Everything in /metrics is counted in the database when asked, so that it is right however many workers answer, and
none of it tells what listeners chose. Without ROOTNOTE_METRICS_TOKEN there is no /metrics.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from flask import Blueprint, abort, current_app, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.assignments.experiment import Experiment
from server.audit import study_control
from server.db.database import reading
from server.db.models import ArrivalCount, Response, StudyRecord
from server.monitoring import status

blueprint = Blueprint("watch", __name__)


@blueprint.get("/healthz")
def healthz() -> WebResponse:
    """The process answers; it asks nothing of the database."""
    return WebResponse("ok\n", mimetype="text/plain")


@blueprint.get("/readyz")
def readyz() -> WebResponse:
    """200 where the database is reachable, migrated and of this schedule; else 503 with the reason."""
    problem = _problem()
    return WebResponse(f"{problem or 'ready'}\n", status=503 if problem else 200, mimetype="text/plain")


def _problem() -> str | None:
    extensions = current_app.extensions
    try:
        with reading(extensions["rootnote.engine"]) as session:
            revision = session.scalar(text("SELECT version_num FROM alembic_version"))
            schedule = session.scalar(select(StudyRecord.schedule))
    except SQLAlchemyError:
        return "the database cannot be read"
    if revision != extensions["rootnote.revision"]:
        return "the database is at another revision; run rootnote server migrate"
    if schedule != extensions["rootnote"].experiment.plan.schedule_fingerprint:
        return "the database belongs to another schedule"
    return None


@blueprint.get("/metrics")
def metrics() -> WebResponse:
    """Prometheus' text format, for who bears the token."""
    token: str = current_app.extensions["rootnote.settings"].metrics_token
    borne = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not token or not hmac.compare_digest(borne.encode(), token.encode()):
        abort(404)
    registry = CollectorRegistry(auto_describe=False)
    with reading(current_app.extensions["rootnote.engine"]) as session:
        registry.register(_Counted(session, current_app.extensions["rootnote"].experiment))
        return WebResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Counted:
    """A collector that counts in the database."""

    def __init__(self, session: Session, experiment: Experiment) -> None:
        self._session, self._experiment = session, experiment

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        counted = status.count(self._session)
        for name, label in (("places", "standing"), ("listeners", "state")):
            family = GaugeMetricFamily(f"rootnote_{name}", f"{name.capitalize()} by {label}.", labels=[label])
            for value, number in counted[name].items():
                if value != "all":
                    family.add_metric([value], number)
            yield family
        arrived = CounterMetricFamily("rootnote_arrivals", "Arrivals at /take by what was shown.", labels=["shown"])
        by_shown = select(ArrivalCount.shown, func.sum(ArrivalCount.number)).group_by(ArrivalCount.shown)
        for shown, number in self._session.execute(by_shown):
            arrived.add_metric([shown], number)
        yield arrived
        recruiting = int(study_control.control(self._session).recruiting)
        yield GaugeMetricFamily("rootnote_recruiting", "1 while arrivals are let in.", value=recruiting)
        yield CounterMetricFamily("rootnote_responses", "Trials answered.", value=counted["responses"])
        late = select(func.count()).select_from(Response).where(Response.late)
        yield CounterMetricFamily(
            "rootnote_late_responses", "Answers kept and marked late.", self._session.scalar(late)
        )
        planned = sum(len(trials) for trials in self._experiment.plan.lists.values())
        yield GaugeMetricFamily("rootnote_trials_planned", "Trials in the schedule.", value=planned)
        last = self._session.scalar(select(func.max(Response.answered_at)))
        if last is not None:
            help_text = "When the last answer was saved (Unix seconds)."
            yield GaugeMetricFamily("rootnote_last_response_timestamp_seconds", help_text, value=last.timestamp())
