"""Subject access requests: everything that is stored about one person, for them (GDPR articles 15 and 20).

The answer is a JSON object; times are UTC (ISO 8601). It contains the listener's own
choices. What the study's design says about a clip (its bin) is not the listener's data and is left out, so that an
answer unblinds nobody.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from server.db.models import (
    Answer,
    Assignment,
    ClipDelivery,
    Listener,
    LogEntry,
    MarketplaceSubmission,
    Payment,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
    VaultEntry,
)
from server.db.panel_models import PanelCallback
from server.identity import vault as identity_vault
from server.identity.link_check import normalise_id
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault
from server.privacy import consent_texts, retention
from study.config import StudyConfig

RIGHTS = (
    "You may have your answers erased: at /withdraw with your completion code, or by writing to the contact. You may "
    "complain to the review board named in the consent text, or to a data protection authority."
)
OMITTED = {"id", "assignment_id", "token_hash", "entry_hash", "listener_id", "sound", "params", "seal"}


def find(session: Session, signer: TokenSigner, wanted: str, *, worker: bool = False) -> Assignment | None:
    """The run with a completion code or pseudonym, or of a worker by their id at the marketplace."""
    runs = select(Assignment).join(Listener, Assignment.listener_id == Listener.id)
    if worker:
        hashes = (signer.worker_hash(wanted), signer.worker_hash(normalise_id(wanted)))
        return session.scalar(runs.where(Listener.worker_hash.in_(hashes)))
    found = find_code(session, signer, wanted)
    return found or session.scalar(runs.where((Assignment.pseudonym == wanted) | (Listener.pseudonym == wanted)))


def find_code(session: Session, signer: TokenSigner, code: str, *, lock: bool = False) -> Assignment | None:
    """The run with a completion code, in any capitalisation and with spaces or hyphens; `lock`: for a change."""
    typed = "".join(code.upper().split()).replace("-", "")
    if not (typed.isascii() and typed.isalnum()):
        return None
    query = select(Assignment).where(Assignment.completion_code.in_((typed, signer.hidden_code(typed))))
    return session.scalar(query.with_for_update() if lock else query)


def personal_data(
    session: Session, config: StudyConfig, vault: Vault | None, assignment: Assignment, now: datetime
) -> dict[str, Any]:
    """Everything that is stored about one person.

    Raises:
        RootnoteError: if their identity is encrypted with another key.
    """
    number, identities = assignment.id, retention.status(session, config, now)
    payments = session.scalars(select(Payment).where(Payment.assignment_id == number))
    version = next((one for one in consent_texts.versions(session) if one.hash == assignment.consent_version), None)
    return {
        "study": config.study.name,
        "contact": config.study.contact,
        "purpose": "Research on whether a computed measure of musical similarity agrees with what people hear.",
        "recipients": "The study's researchers; the marketplace, if you came from one. Publications contain no names.",
        "kept_until": {
            "identity": _iso(identities.due)
            if identities.due
            else f"{config.privacy.identity_days:g} days after the last payment",
            "answers": "for as long as the research needs them, under a random pseudonym",
        },
        "rights": RIGHTS,
        "identity": _identity(session, vault, assignment),
        "listener": assignment.listener.pseudonym,
        "run": _row(assignment) | {"erased": assignment.erased_at is not None},
        "consent": {"version": assignment.consent_version, "text": version.text if version else None},
        "prescreen": [_row(one) for one in _all(session, PrescreenItem, number)],
        "prescreen_results": [_row(one) for one in _all(session, PrescreenResult, number)],
        "place": [_row(one) for one in _all(session, Place, number)],
        "deliveries": [_row(one) for one in _all(session, ClipDelivery, number)],
        "responses": [_row(one) for one in _all(session, Response, number)],
        "answers": [_row(one) for one in _all(session, Answer, number)],
        "submissions": [
            {"opening": one.opening, "status": one.status, "seen": _iso(one.seen_at)}
            for one in _all(session, MarketplaceSubmission, number)
        ],
        "payments": [_payment(one, config) for one in payments],
        "callbacks": [_row(one) for one in _all(session, PanelCallback, number)],
        "log": [
            {"at": _iso(one.at), "what": one.what, "detail": one.detail, "reason": one.reason}
            for one in session.scalars(select(LogEntry).where(_mentions(assignment)))
        ],
    }


def _payment(one: Payment, config: StudyConfig) -> dict[str, Any]:
    values = {"kind": one.kind, "amount": one.cents / 100, "currency": config.currency}
    values |= {"state": one.state, "reason": one.reason}
    return values | {"at": _iso(one.paid_at)}


def _mentions(assignment: Assignment) -> ColumnElement[bool]:
    """The condition for log entries that mention one run."""
    return or_(LogEntry.detail.contains(assignment.pseudonym), LogEntry.reason.contains(assignment.pseudonym))


def _identity(session: Session, vault: Vault | None, assignment: Assignment) -> dict[str, Any] | None:
    if session.get(VaultEntry, assignment.listener.pseudonym) is None:
        return None
    if vault is None:
        return {"sealed": "an identifier is stored encrypted; set ROOTNOTE_VAULT_KEY to read it"}
    found = identity_vault.load_identity(session, vault, assignment.listener)
    if found is None:
        return None
    ids = {"worker": found.worker, "submission": found.submission, "opening": found.opening}
    return ids | {"parameters": dict(found.kept)} if found.kept else ids


def _all(session: Session, table: Any, number: int) -> list[Any]:
    return list(session.scalars(select(table).where(table.assignment_id == number).order_by(table.id)))


def _row(row: Any) -> dict[str, Any]:
    columns = (column.key for column in row.__table__.columns)
    return {name: _json_value(getattr(row, name)) for name in columns if name not in OMITTED}


def _json_value(value: Any) -> Any:
    return _iso(value) if isinstance(value, datetime) else value


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
