"""/hooks/KIND: where a marketplace reports what changed. Only signed requests have an effect; none shows anything."""

from __future__ import annotations

from flask import Blueprint, Response, abort, g, request

from server.app_context import AppContext, current_context
from server.recruiting import webhooks
from server.recruiting.marketplaces.events import EventRefusedError

MAX_BYTES = 16 * 1024


def make_blueprint(context: AppContext) -> Blueprint:
    """The route of the study's marketplace; a blueprint without routes if it sends no events, or no secret is set."""
    blueprint = Blueprint("webhooks", __name__)
    entry = context.marketplace_entry
    if entry is not None and entry.marketplace.event_types and context.settings.webhook_secret:
        path = webhooks.path_of(context.experiment.config.recruiter.kind)
        blueprint.add_url_rule(path, view_func=receive, methods=["POST"])
    return blueprint


def receive() -> Response:
    """Accept an event, once; 401 if it is not signed by the marketplace, 400 if it cannot be read."""
    context = current_context()
    entry = context.marketplace_entry
    assert entry is not None
    if (request.content_length or 0) > MAX_BYTES:
        abort(413)
    body = request.get_data(cache=False)
    if len(body) > MAX_BYTES:  # sent in chunks, without a length
        abort(413)
    try:
        headers = {name.lower(): value for name, value in request.headers.items()}
        event = entry.marketplace.read_event(headers, body, context.settings.webhook_secret, context.now())
    except EventRefusedError as error:
        return Response(f"{error}\n", status=error.status, mimetype="text/plain")
    if event is not None:
        webhooks.record_event(g.session, entry.signer, event, context.now())
    return Response(status=204)
