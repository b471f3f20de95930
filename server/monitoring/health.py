"""Health: /healthz (the process answers), /readyz (it can serve this study), /metrics (the study's progress).

Everything in /metrics is counted in the database at the time of the request, so that every process gives the same
numbers. None of it reveals what listeners chose. Without ROOTNOTE_METRICS_TOKEN there is no /metrics.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field

from flask import Blueprint, abort, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.audit import study_control
from server.db.database import reading
from server.db.models import ArrivalCount, Response, StudyRecord
from server.monitoring import status
from study.trial_plan import Plan


@dataclass(frozen=True)
class HealthChecks:
    """The health of one server, checked against its database, the expected migration, and the plan of trials."""

    engine: Engine
    revision: str
    plan: Plan
    metrics_token: str = field(default="", repr=False)

    def find_problem(self) -> str | None:
        """Why this server cannot serve its study; None if it can."""
        try:
            with reading(self.engine) as session:
                revision = session.scalar(text("SELECT version_num FROM alembic_version"))
                schedule = session.scalar(select(StudyRecord.schedule))
        except SQLAlchemyError:
            return "the database cannot be read"
        if revision != self.revision:
            return "the database is at another revision; run rootnote server migrate"
        if schedule != self.plan.schedule_fingerprint:
            return "the database belongs to another schedule"
        return None

    def is_authorized(self, authorization: str) -> bool:
        """Whether a request's Authorization header contains the metrics token."""
        given = authorization.removeprefix("Bearer ")
        return bool(self.metrics_token) and hmac.compare_digest(given.encode(), self.metrics_token.encode())

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        with reading(self.engine) as session:
            registry.register(_DatabaseCollector(session, self.plan))
            return generate_latest(registry)


def make_blueprint(checks: HealthChecks) -> Blueprint:
    """The routes of one server's health."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> WebResponse:
        return WebResponse("ok\n", mimetype="text/plain")  # does not query the database

    @blueprint.get("/readyz")
    def readyz() -> WebResponse:
        problem = checks.find_problem()
        return WebResponse(f"{problem or 'ready'}\n", status=503 if problem else 200, mimetype="text/plain")

    @blueprint.get("/metrics")
    def metrics() -> WebResponse:
        if not checks.is_authorized(request.headers.get("Authorization", "")):
            abort(404)
        return WebResponse(checks.metrics(), content_type=CONTENT_TYPE_LATEST)

    return blueprint


class _DatabaseCollector:
    """A Prometheus collector that counts in the database."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self._session, self._plan = session, plan

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
        yield self._arrivals()
        recruiting = int(study_control.control(self._session).recruiting)
        yield GaugeMetricFamily("rootnote_recruiting", "1 while new listeners are admitted.", value=recruiting)
        yield CounterMetricFamily("rootnote_responses", "Trials answered.", value=counted["responses"])
        late = self._session.scalar(select(func.count()).select_from(Response).where(Response.late))
        yield CounterMetricFamily("rootnote_late_responses", "Answers kept and marked late.", late)
        planned = sum(len(trials) for trials in self._plan.lists.values())
        yield GaugeMetricFamily("rootnote_trials_planned", "Trials in the schedule.", value=planned)
        last = self._session.scalar(select(func.max(Response.answered_at)))
        if last is not None:
            help_text = "When the last answer was saved (Unix seconds)."
            yield GaugeMetricFamily("rootnote_last_response_timestamp_seconds", help_text, value=last.timestamp())

    def _arrivals(self) -> Metric:
        family = CounterMetricFamily("rootnote_arrivals", "Arrivals at /take by what was shown.", labels=["shown"])
        by_shown = select(ArrivalCount.shown, func.sum(ArrivalCount.number)).group_by(ArrivalCount.shown)
        for shown, number in self._session.execute(by_shown):
            family.add_metric([shown], number)
        return family
