"""Arriving: /take shows information and consent, and turns a consenting person into an assignment.

GET changes nothing but the day's count of arrivals; everything else waits for the form. A person consents once: sending
the form twice, or coming again from the marketplace with the same submission, leads to the same assignment.
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
from server.db.enums import RunVerification
from server.db.models import Assignment, AssignmentState
from server.identity.arrival import Arrival
from server.identity.link_check import find_link_problem, normalise_id
from server.identity.tokens import WORKER_LIMIT, ConsentTicket
from server.participant import open_links
from server.participant.visit import TOKEN_LIMIT, Visit, blueprint, pass_visit
from server.recruiting import confirmation
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.recruiting.marketplaces.base import ArrivalError
from server.web import i18n

log = logging.getLogger(__name__)

TOKEN_ADDRESS_LIMIT = 4096  # of one parameter; a signed arrival is the longest


@blueprint.get("/")
def home() -> WebResponse:
    return redirect(url_for("participant.take"), 303)


@blueprint.get("/take")
@pass_visit
def take(visit: Visit) -> WebResponse | str | tuple[str, int]:
    """Information and consent; changes nothing but the day's count of arrivals."""
    try:
        _require_filled_in(visit)
        if visit.marketplace_entry is not None:
            return _arrive_from_marketplace(visit, visit.marketplace_entry)
    except ArrivalError as error:
        if request.args:
            _count_arrival(visit, "damaged_link")
        raise StepRefusedError(str(error)) from None
    return _arrive_by_link(visit)


def _require_filled_in(visit: Visit) -> None:
    """Refuse a link whose ids were not filled in or are damaged.

    Raises:
        ArrivalError: with one sentence that says what is wrong with the link.
    """
    given = dict(request.args.lists())
    if problem := find_link_problem(given, visit.context.id_parameters):
        raise ArrivalError(problem)


def _arrive_by_link(visit: Visit) -> WebResponse | str:
    ticket = _link_ticket(visit)
    given = request.args.get("worker", "").strip()
    if given != normalise_id(given) and lifecycle.knows_worker(visit.session, visit.signer.worker_hash(given)):
        return render_template("taken.html", step="taken")  # took part before names had one spelling
    if ticket.proven and lifecycle.find_by_ticket(visit.session, ticket):
        return redirect(_address(visit, ticket), 303)
    return _first_page(visit, ticket)


def _link_ticket(visit: Visit) -> ConsentTicket:
    """The ticket of a link: a personal one, an id that was signed here, an id, or nothing."""
    given, link = request.args.get("worker", ""), request.args.get("link", "")
    signature, signer = request.args.get("signature", ""), visit.signer
    worker, version = normalise_id(given), visit.texts.consent_version
    incomplete = StepRefusedError("This link is incomplete; please open the link that you received.")
    if len(worker) > WORKER_LIMIT or len(link) > 4 * TOKEN_LIMIT or len(signature) > TOKEN_LIMIT:
        raise incomplete
    if signature:
        if link or not signer.is_signed_id(worker, signature):
            raise incomplete
        return signer.ticket_for_worker(version, worker)
    ticket = signer.new_ticket(version, worker or None, link or None)
    if ticket is None:
        raise incomplete
    return ticket


def _arrive_from_marketplace(visit: Visit, entry: MarketplaceEntry) -> WebResponse | str:
    query = {name: value[:TOKEN_ADDRESS_LIMIT] for name, value in request.args.items()}
    arrival = entry.read_arrival(visit.session, query, visit.host)
    if "owed" in request.args and not entry.marketplace.capabilities.pays_by_hand:
        link = entry.return_link_when_owed(visit.session, arrival)
        return render_template("owed.html", step="owed", back=link, preview=arrival.preview)
    if arrival.preview:
        full = _unavailable_page(visit)
        return full or render_template("preview.html", step="preview", text=visit.texts.consent)
    ticket = entry.ticket_for(visit.texts.consent_version, arrival)
    if (own := entry.find_run(visit.session, ticket, arrival)) is not None:
        return _arrive_again(visit, entry, arrival, ticket, own)
    if (other := entry.find_by_worker(visit.session, arrival)) is None:
        return _first_page(visit, ticket, arrival)
    # A known worker with another submission: nothing is shown or changed before they have proven that it is theirs.
    if entry.is_over(visit.session, other, arrival) or not entry.lists_submissions:
        return render_template("taken.html", step="taken")
    return _consent_page(visit, ticket, arrival, again=True)


def _arrive_again(
    visit: Visit, entry: MarketplaceEntry, arrival: Arrival, ticket: ConsentTicket, assignment: Assignment
) -> WebResponse | str:
    """The worker of a run reloads the frame, or comes again with the same submission after a pause."""
    i18n.use(assignment.language)
    if entry.has_submitted_elsewhere(visit.session, assignment, arrival) or _has_better_run(visit, entry, arrival):
        return render_template("taken.html", step="taken")
    lost = steps.current_step(visit.session, visit.experiment, assignment) in ("withdrawn", "expired")
    if lost and assignment.state is not AssignmentState.WITHDRAWN and assignment.erased_at is None:
        return _consent_page(visit, ticket, arrival, again=True)
    return _to_run(visit, entry, arrival, ticket, assignment)


def _has_better_run(visit: Visit, entry: MarketplaceEntry, arrival: Arrival) -> bool:
    """Whether the marketplace has listed this worker with another run, which is over."""
    other = entry.find_by_worker(visit.session, arrival)
    return other is not None and entry.has_submitted_elsewhere(visit.session, other, arrival)


def _to_run(
    visit: Visit, entry: MarketplaceEntry, arrival: Arrival, ticket: ConsentTicket, assignment: Assignment
) -> WebResponse | str:
    token = entry.token_of(visit.session, assignment, ticket, arrival)
    if token is None:  # identities were deleted, and nothing leads to this run any more
        return render_template("taken.html", step="taken")
    return redirect(url_for("participant.page", token=token), 303)


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
    can_prove = visit.marketplace_entry is not None and visit.marketplace_entry.lists_held
    availability = places.availability(visit.session, visit.experiment, confirmed=can_prove)
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
    entry = visit.marketplace_entry
    if entry is not None:
        arrival = entry.read_sealed(request.form.get("arrival", ""), ticket)
        if arrival is None:
            raise StepRefusedError("This page is incomplete; please open it from the marketplace again.")
        return _consent_from_marketplace(visit, entry, arrival, ticket)
    if lifecycle.find_by_ticket(visit.session, ticket) is None and (page := _not_now(visit, ticket)):
        return page
    assignment = _create_run(visit, ticket)
    return redirect(_address(visit, ticket), 303) if isinstance(assignment, Assignment) else assignment


def _consent_from_marketplace(
    visit: Visit, entry: MarketplaceEntry, arrival: Arrival, ticket: ConsentTicket
) -> WebResponse | str | tuple[str, int]:
    """Begin a run, or continue one: a worker's own, or with another submission once that is proven."""
    own = entry.find_run(visit.session, ticket, arrival)
    other = entry.find_by_worker(visit.session, arrival) if own is None else None
    if other is not None and (entry.is_over(visit.session, other, arrival) or not entry.lists_submissions):
        return render_template("taken.html", step="taken"), 409
    run = own or other
    if run is None and (page := _not_now(visit, ticket, arrival)):
        return page
    proven = entry.is_proven(visit.session, arrival)
    if not proven and entry.lists_submissions and _must_prove(visit, entry, own, other):
        proven = _look_up(visit, entry, arrival)
        if not proven:
            return _waiting_page(visit, ticket, arrival)
    if run is None:
        began = _create_run(visit, ticket, _standing(entry, proven=proven))
        if not isinstance(began, Assignment):
            return began
        run = began
    # In this order, because `server sync` also locks the submission before the assignment.
    entry.record_arrival(visit.session, run, arrival, visit.now(), proven=proven)
    lifecycle.rejoin(visit.session, visit.experiment, run)
    return _to_run(visit, entry, arrival, ticket, run)


def _must_prove(visit: Visit, entry: MarketplaceEntry, own: Assignment | None, other: Assignment | None) -> bool:
    """Whether an unproven arrival waits for the marketplace: it continues another run, or too many are unproven."""
    if other is not None:
        return True
    holds_place = own is not None and places.has_place(visit.session, own)
    if holds_place or (own is not None and own.verification is not RunVerification.UNCONFIRMED):
        return False
    return entry.needs_proof(visit.session, visit.experiment, visit.network)


def _look_up(visit: Visit, entry: MarketplaceEntry, arrival: Arrival) -> bool:
    """Ask the marketplace whether it lists this submission, and confirm whatever its list confirms."""
    if not entry.is_of_posting(visit.session, arrival):
        return False
    visit.release_connection()
    listing = entry.look_up(arrival)
    if listing is None:
        return entry.is_proven(visit.session, arrival)  # `sync` may have recorded it meanwhile
    confirmation.confirm_listed(visit.session, visit.signer, listing, wait=False)
    return True


def _standing(entry: MarketplaceEntry, *, proven: bool) -> RunVerification:
    if proven:
        return RunVerification.CONFIRMED
    return RunVerification.UNCONFIRMED if entry.lists_submissions else RunVerification.UNVERIFIED


def _not_now(visit: Visit, ticket: ConsentTicket, arrival: Arrival | None = None) -> str | None:
    """The page for a person who cannot begin: no place is free, or the consent text has changed."""
    if unavailable := _unavailable_page(visit) or open_links.refusal(visit, ticket):
        return unavailable
    if ticket.consent != visit.texts.consent_version:
        return _consent_page(visit, ticket.with_consent(visit.texts.consent_version), arrival)
    return None


def _create_run(
    visit: Visit, ticket: ConsentTicket, standing: RunVerification | None = None
) -> Assignment | str | tuple[str, int]:
    """The run that begins with this consent, or the page that says why there is none."""
    token = visit.signer.token_for(ticket)
    try:
        return lifecycle.consent(visit.session, visit.experiment, ticket, token, i18n.present(), standing)
    except experiment.NoPlaceError:
        return _full_page(places.availability(visit.session, visit.experiment))
    except experiment.AlreadyTakenPartError:
        return render_template("taken.html", step="taken"), 409


def _waiting_page(visit: Visit, ticket: ConsentTicket, arrival: Arrival) -> WebResponse:
    """The page for a worker whose submission must be looked up, and cannot be at this moment; nothing is stored."""
    assert visit.marketplace_entry is not None
    page = render_template(
        "waiting.html",
        step="waiting",
        entry=visit.signer.sign_ticket(ticket),
        arrival=visit.marketplace_entry.vault.seal(arrival),
    )
    return WebResponse(page, status=200, mimetype="text/html", headers={"Retry-After": "60"})


def _address(visit: Visit, ticket: ConsentTicket) -> str:
    return url_for("participant.page", token=visit.signer.token_for(ticket))
