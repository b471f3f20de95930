"""Error pages: what a person sees when a request fails, on the study's pages and at the desk."""

from __future__ import annotations

import logging

from flask import Flask, g, render_template, request
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.wrappers import Response as WebResponse

from server.assignments.experiment import StepRefusedError
from server.web import i18n
from server.web.request_log import request_fields
from server.web.security_headers import is_desk_path
from study.languages import mark

ERRORS = {
    400: (mark("This did not work"), mark("Some data is missing; please reload the page.")),
    404: (mark("Page not found"), mark("This page does not exist or no longer exists.")),
    405: (mark("Page not found"), mark("This address cannot be opened this way.")),
    413: (mark("This is too long"), mark("Your answer is too long; please shorten it.")),
    416: (mark("Page not found"), mark("That part of the sound does not exist.")),
    429: (
        mark("One moment, please"),
        mark("There were too many requests at once. Please wait a moment, then reload the page."),
    ),
    500: (
        mark("Something went wrong here"),
        mark("This is not your fault. Your answers so far are saved."),
    ),
}
log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Answer every error of an application with one of these pages."""

    @app.errorhandler(StepRefusedError)
    def handle_refusal(error: StepRefusedError) -> WebResponse:
        return _error_page(400, str(error))

    @app.errorhandler(HTTPException)
    def handle_http_error(error: HTTPException) -> WebResponse:
        code = error.code if error.code in ERRORS else (500 if (error.code or 500) >= 500 else 400)
        page = _error_page(code)
        if isinstance(error, TooManyRequests) and error.retry_after is not None:
            page.headers["Retry-After"] = str(error.retry_after)
        return page

    @app.errorhandler(Exception)
    def handle_failure(error: Exception) -> WebResponse:
        log.error("failed", exc_info=error, extra=request_fields(500))
        return _error_page(500)


def _error_page(code: int, problem: str | None = None) -> WebResponse:
    title, text = ERRORS[code]
    # A listener's own address is the only one worth going back to.
    token = (request.view_args or {}).get("token") if code != 404 else None
    page = render_template(
        "desk/error.html" if is_desk_path(request.path) else "error.html",
        step="error",
        title=i18n.gettext(title),
        problem=i18n.gettext(problem or text),
        token=token,
        reference=g.get("reference") if code >= 500 else None,
    )
    return WebResponse(page, status=code, mimetype="text/html")
