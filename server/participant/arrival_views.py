"""Arriving: /take shows information and consent, and turns a consenting person into an assignment.

GET changes no assignment. A person consents once: sending the form twice, or coming again from the marketplace, leads
to the same assignment.
"""

from __future__ import annotations

import logging
import math
from urllib.parse import urlencode

from flask import redirect, render_template, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as WebResponse

from server.assignments import experiment, lifecycle, places, steps
from server.assignments.experiment import StepRefusedError
from server.assignments.places import Availability
from server.audit import study_control
from server.db.models import Assignment, AssignmentState
from server.identity.arrival import Arrival
from server.identity.tokens import WORKER_LIMIT, ConsentTicket
from server.participant import open_links
from server.participant.visit import TOKEN_LIMIT, Visit, blueprint, pass_visit
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.web import i18n

log = logging.getLogger(__name__)

ADDRESS_LIMIT = 512


@blueprint.get("/")
def home() -> WebResponse:
    return redirect(url_for("participant.take"), 303)


@blueprint.get("/take")
@pass_visit
def take(visit: Visit) -> WebResponse | str | tuple[str, int]:
    """Information and consent; changes nothing."""
    if visit.marketplace_entry is not None:
        return _arrive_from_marketplace(visit, visit.marketplace_entry)
    worker, link = request.args.get("worker", "").strip(), request.args.get("link", "")
    if len(worker) > WORKER_LIMIT or len(link) > 4 * TOKEN_LIMIT:
        raise StepRefusedError("This link is incomplete; please open the link that you received.")
    ticket = visit.signer.new_ticket(visit.texts.consent_version, worker or None, link or None)
    if ticket is None:
        raise StepRefusedError("This link is incomplete; please open the link that you received.")
    if link and lifecycle.find_by_ticket(visit.session, ticket):
        return redirect(_address(visit, ticket), 303)
    return _first_page(visit, ticket)


def _arrive_from_marketplace(visit: Visit, entry: MarketplaceEntry) -> WebResponse | str:
    query = {name: value[:ADDRESS_LIMIT] for name, value in request.args.items()}
    arrival = entry.read_arrival(visit.session, query)
    if "owed" in request.args and not entry.marketplace.capabilities.pays_by_hand:
        link = entry.return_link_when_owed(arrival)
        return render_template("owed.html", step="owed", back=link, preview=arrival.preview)
    if arrival.preview:
        full = _unavailable_page(visit)
        return full or render_template("preview.html", step="preview", text=visit.texts.consent)
    ticket = entry.ticket_for(visit.texts.consent_version, arrival)
    assignment = lifecycle.find_by_ticket(visit.session, ticket)
    if assignment is None:
        return _first_page(visit, ticket, arrival)
    return _arrive_again(visit, entry, arrival, ticket, assignment)


def _arrive_again(
    visit: Visit, entry: MarketplaceEntry, arrival: Arrival, ticket: ConsentTicket, assignment: Assignment
) -> WebResponse | str:
    """A known worker reloads the frame, took another place, or took the same one again after returning it."""
    i18n.use(assignment.language)
    if entry.has_submitted_elsewhere(visit.session, assignment, arrival):
        return render_template("taken.html", step="taken")
    if assignment.erased_at is not None:  # their identity is not stored again
        return redirect(_address(visit, ticket), 303)
    lost = steps.current_step(visit.session, visit.experiment, assignment) in ("withdrawn", "expired")
    number, left = assignment.id, assignment.state is AssignmentState.WITHDRAWN
    with visit.separate_write() as session:
        entry.record_arrival(session, session.get_one(Assignment, number), arrival, visit.now())
    if lost and not left:
        return _consent_page(visit, ticket, arrival, again=True)
    return redirect(_address(visit, ticket), 303)


def _first_page(visit: Visit, ticket: ConsentTicket, arrival: Arrival | None = None) -> str:
    """The page for a person without an assignment; the arrival is counted."""
    unavailable = _unavailable_page(visit) or open_links.refusal(visit, ticket)
    page = unavailable or _consent_page(visit, ticket, arrival)
    if not _is_prefetch():
        _count_arrival(visit, "not_let_in" if unavailable else "informed")
    return page


def _count_arrival(visit: Visit, shown: str) -> None:
    """Count in a short transaction of its own: many arrive at once, and the page itself only reads."""
    try:
        with visit.single_write() as session:
            study_control.count_arrival(session, shown, visit.now())
    except SQLAlchemyError as error:
        log.warning("an arrival was not counted", exc_info=error)  # no reason to refuse a listener


def _is_prefetch() -> bool:
    """Whether the browser prefetches the page, or requests only its headers."""
    return request.method != "GET" or "prefetch" in request.headers.get("Sec-Purpose", "")


def _unavailable_page(visit: Visit) -> str | None:
    """The page that is shown when no place is free; None if there is one."""
    control = study_control.control(visit.session)
    if not control.recruiting:
        return render_template("full.html", step="full", complete=control.closed_at is not None, paused=True)
    availability = places.availability(visit.session, visit.experiment)
    return None if availability is Availability.OPEN else _full_page(availability)


def _full_page(availability: Availability) -> str:
    return render_template("full.html", step="full", complete=availability is Availability.COMPLETE)


def _consent_page(visit: Visit, ticket: ConsentTicket, arrival: Arrival | None = None, *, again: bool = False) -> str:
    entry = visit.marketplace_entry
    return render_template(
        "consent.html",
        step="consent",
        entry=visit.signer.sign_ticket(ticket),
        arrival=entry.vault.seal(arrival) if entry and arrival else "",
        again=again,
        text=visit.texts.consent,
        version=ticket.consent,
        choices=_language_choices(visit) if request.method == "GET" else {},
        message=study_control.control(visit.session).message,
        megabytes=math.ceil(visit.context.download_bytes / 1e6),
    )


def _language_choices(visit: Visit) -> dict[str, str]:
    """The address of this page in each language of the study."""
    path, offered = url_for("participant.take"), visit.experiment.config.study.languages
    return {code: f"{path}?{urlencode(request.args.to_dict() | {'lang': code})}" for code in offered}


@blueprint.post("/take")
@pass_visit
def consent(visit: Visit) -> WebResponse | str | tuple[str, int]:
    """Record the listener's consent and create the assignment, once per ticket."""
    i18n.use(request.form.get("lang"))
    ticket = visit.signer.read_ticket(request.form.get("entry", ""))
    if ticket is None:
        raise StepRefusedError("This page was open for too long; please open the link that you received again.")
    entry, arrival = visit.marketplace_entry, None
    if entry is not None:
        arrival = entry.read_sealed(request.form.get("arrival", ""), ticket)
        if arrival is None:
            raise StepRefusedError("This page is incomplete; please open it from the marketplace again.")
    if lifecycle.find_by_ticket(visit.session, ticket) is None:
        if unavailable := _unavailable_page(visit) or open_links.refusal(visit, ticket):
            return unavailable
        if ticket.consent != visit.texts.consent_version:
            return _consent_page(visit, ticket.with_consent(visit.texts.consent_version), arrival)
    token = visit.signer.token_for(ticket)
    try:
        assignment = lifecycle.consent(visit.session, visit.experiment, ticket, token, i18n.present())
    except experiment.NoPlaceError:
        return _full_page(places.availability(visit.session, visit.experiment))
    except experiment.AlreadyTakenPartError:
        return render_template("taken.html", step="taken"), 409
    if entry is not None and arrival is not None:
        # In this order, because `server sync` also locks the submission before the assignment.
        entry.record_arrival(visit.session, assignment, arrival, visit.now())
        lifecycle.rejoin(visit.session, visit.experiment, assignment)
    return redirect(url_for("participant.page", token=token), 303)


def _address(visit: Visit, ticket: ConsentTicket) -> str:
    return url_for("participant.page", token=visit.signer.token_for(ticket))
