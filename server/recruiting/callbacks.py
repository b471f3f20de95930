"""Callbacks: telling a panel's server, once, that a listener finished ([recruiter.link] callback_url).

A call is recorded as `sending` and committed before it is made. If the program stops in between, or the answer leaves
open whether the panel took note, the call is `unclear` and a person decides: it is never repeated automatically. Only
what certainly did not arrive is tried again, at growing intervals. Whoever calls this holds the ledger's lock, so a
call that is still `sending` belongs to a program that stopped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.audit import study_control
from server.audit.actor import current_actor
from server.db.enums import CallbackState
from server.db.models import COMPLETED, TURNED_AWAY, Assignment
from server.db.panel_models import PanelCallback
from server.identity.vault import load_identity
from server.payments import ledger
from server.recruiting.confirmation import is_payable
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.marketplaces.return_urls import is_local

log = logging.getLogger(__name__)

TIMEOUT = 20.0  # seconds
ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)
AGAIN = (429, 503)  # the panel's server says that it did nothing yet
OPEN = (CallbackState.UNCLEAR, CallbackState.REFUSED)  # a person decides


@dataclass(frozen=True)
class CallResult:
    """What came of a call; `text` goes into the records and names nobody."""

    state: CallbackState
    text: str


def deliver_callbacks(context: RecruitingContext, report: Report, *, rehearsal: bool = False) -> int:
    """Make the calls that are due; returns how many the panel accepted. A rehearsal calls this machine only."""
    if not context.marketplace.calls_back:
        return 0
    _give_up_interrupted(context)
    with context.reading() as session:
        due = _due(session, context)
    accepted = 0
    for number in due:
        if (address := _begin(context, number, rehearsal)) is not None:
            answer = call(address) if address else CallResult(CallbackState.REFUSED, "the participant's id is deleted")
            _record(context, number, answer)
            accepted += answer.state is CallbackState.DONE
    with context.reading() as session:
        waiting = [one for one in listed(session) if one.state in OPEN]
    if waiting:
        calls, verb = counted(len(waiting), "callback"), "needs" if len(waiting) == 1 else "need"
        report(f"{calls} to the panel {verb} a decision: run `rootnote server callbacks`.")
    return accepted


def has_outstanding(session: Session, context: RecruitingContext) -> bool:
    """Whether a later pass has calls to make."""
    later = select(PanelCallback.id).where(PanelCallback.state == CallbackState.WAITING).limit(1)
    return context.marketplace.calls_back and session.scalar(later) is not None


def call(address: str) -> CallResult:
    """Make one call."""
    import httpx

    try:
        status = httpx.get(address, timeout=TIMEOUT, follow_redirects=False).status_code
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        return CallResult(CallbackState.WAITING, f"not reached ({type(error).__name__})")
    except httpx.HTTPError as error:
        return CallResult(CallbackState.UNCLEAR, f"no clear answer ({type(error).__name__})")
    if status in AGAIN:
        return CallResult(CallbackState.WAITING, f"HTTP {status}")
    if 200 <= status < 300:
        return CallResult(CallbackState.DONE, f"HTTP {status}")
    return CallResult(CallbackState.REFUSED if 400 <= status < 500 else CallbackState.UNCLEAR, f"HTTP {status}")


def _give_up_interrupted(context: RecruitingContext) -> None:
    with context.writing() as session:
        for row in session.scalars(select(PanelCallback).where(PanelCallback.state == CallbackState.SENDING)):
            row.state, row.answer = CallbackState.UNCLEAR, "the call was interrupted"


def _due(session: Session, context: RecruitingContext) -> list[int]:
    """The assignments whose call is due, oldest first."""
    again = (PanelCallback.state == CallbackState.WAITING) & (PanelCallback.next_at <= context.clock())
    query = (
        select(Assignment)
        .outerjoin(PanelCallback, PanelCallback.assignment_id == Assignment.id)
        .where(Assignment.state.in_((*COMPLETED, *TURNED_AWAY)), or_(PanelCallback.id.is_(None), again))
    )
    found = session.scalars(query.order_by(Assignment.id))
    payable = (one for one in found if is_payable(context, one))
    return [one.id for one in payable if ledger.outcome(one.state, context.config.pay) == "finished"]


def _begin(context: RecruitingContext, number: int, rehearsal: bool) -> str | None:
    """Record that a call is being made; its address ("" if nobody knows the id any more), None if it is not made."""
    with context.writing() as session:
        assignment = session.get_one(Assignment, number)
        arrival = load_identity(session, context.vault, assignment.listener)
        address = context.marketplace.callback_address(arrival, assignment.completion_code) if arrival else ""
        if rehearsal and not is_local(address):
            return None
        query = select(PanelCallback).where(PanelCallback.assignment_id == number).with_for_update()
        row = session.scalar(query)
        if row is None:
            row = PanelCallback(assignment_id=number, attempts=0, answer="")
            session.add(row)
        elif row.state != CallbackState.WAITING:
            return None
        row.state, row.attempts = CallbackState.SENDING, row.attempts + 1
        row.called_at, row.next_at = context.clock(), None
    return address


def _record(context: RecruitingContext, number: int, answer: CallResult) -> None:
    """Record what came of a call, also in the log."""
    with context.writing() as session:
        row = session.scalars(select(PanelCallback).where(PanelCallback.assignment_id == number)).one()
        row.state, row.answer = answer.state, answer.text
        if row.state == CallbackState.WAITING and row.attempts >= ATTEMPTS:
            row.state = CallbackState.REFUSED
        elif row.state == CallbackState.WAITING:
            row.next_at = context.clock() + min(FIRST_WAIT * 3 ** (row.attempts - 1), LONGEST_WAIT)
        pseudonym = session.get_one(Assignment, number).pseudonym
        detail = f"{pseudonym}: {row.state}, {answer.text}"
        study_control.write_log(session, current_actor(), "called the panel", context.clock(), detail=detail)
    log.info("a callback to the panel: %s", detail)


# ------------------------------------------------------------------ for a person


@dataclass(frozen=True)
class ListedCallback:
    """One callback, as `rootnote server callbacks` shows it."""

    pseudonym: str
    state: CallbackState
    attempts: int
    answer: str


def listed(session: Session) -> list[ListedCallback]:
    """All callbacks, oldest first."""
    query = select(PanelCallback, Assignment.pseudonym).join(Assignment, PanelCallback.assignment_id == Assignment.id)
    return [
        ListedCallback(pseudonym, CallbackState(row.state), row.attempts, row.answer)
        for row, pseudonym in session.execute(query.order_by(PanelCallback.id))
    ]


def decide(context: RecruitingContext, pseudonym: str, *, send_again: bool) -> None:
    """Settle an unclear or refused callback: it arrived, or it is made again by the next `sync`.

    Raises:
        RootnoteError: if there is no such callback.
    """
    with context.writing() as session:
        query = select(PanelCallback).join(Assignment, PanelCallback.assignment_id == Assignment.id)
        row = session.scalar(query.where(Assignment.pseudonym == pseudonym).with_for_update(of=PanelCallback))
        if row is None or row.state not in OPEN:
            raise RootnoteError(
                f"assignment {pseudonym} has no callback that needs a decision; `rootnote server callbacks` lists them."
            )
        row.state = CallbackState.WAITING if send_again else CallbackState.DONE
        row.attempts, row.next_at = 0, context.clock() if send_again else None
        what = "is to be sent again" if send_again else "had arrived"
        study_control.write_log(
            session, current_actor(), "decided on a callback", context.clock(), detail=f"{pseudonym}: {what}"
        )
