"""The request log: one record for each request, with its route, never its path, which holds the listener's token."""

from __future__ import annotations

import logging
import secrets
import time

from flask import Flask, g, request
from werkzeug.wrappers import Response as WebResponse

from server.web.request_queue import WAITED

METHODS = ("GET", "HEAD", "POST", "OPTIONS")
QUIET = ("static", "health.healthz", "health.readyz", "health.metrics")  # logged only if they fail
log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Log every request of an application; each gets a random reference, which error pages show."""

    @app.before_request
    def begin() -> None:
        g.began, g.reference = time.monotonic(), secrets.token_hex(4)

    @app.after_request
    def finish(response: WebResponse) -> WebResponse:
        level = logging.DEBUG if request.endpoint in QUIET and response.status_code < 400 else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "request", extra=request_fields(response.status_code))
        return response


def request_fields(status: int) -> dict[str, object]:
    """The fields of a log record about the current request."""
    return {
        "route": request.endpoint,
        "method": request.method if request.method in METHODS else "other",  # never text that the client made up
        "status": status,
        "ms": round(1000 * (time.monotonic() - g.began), 1),
        "waited_ms": round(1000 * request.environ.get(WAITED, 0.0), 1),
        "reference": g.reference,
    }
