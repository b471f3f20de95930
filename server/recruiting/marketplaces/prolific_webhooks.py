"""Events of Prolific: the signature, and what an event says.

Prolific signs the time of sending and the body with the workspace's secret, sends an event again for up to a day until
it is accepted, and does not keep the order. Its id (X-Event-ID) stays the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from server.db.enums import SubmissionStatus
from server.recruiting.marketplaces.events import EventRefusedError, ReportedEvent

SUBMISSION, STUDY = "submission.status.change", "study.status.change"
EVENT_TYPES = (SUBMISSION, STUDY)
SIGNATURE, SENT, EVENT_ID = "x-prolific-request-signature", "x-prolific-request-timestamp", "x-event-id"
OLDEST, NEWEST = timedelta(hours=25), timedelta(minutes=5)  # a day of attempts, and clocks that differ
GIVEN_BACK = {"RETURNED": SubmissionStatus.RETURNED, "TIMED-OUT": SubmissionStatus.TIMED_OUT}
ID = re.compile(r"[0-9a-f]{24}")


def sign(secret: str, sent: str, body: bytes) -> str:
    """The signature of a request: what is sent as X-Prolific-Request-Signature."""
    return base64.b64encode(hmac.new(secret.encode(), sent.encode() + body, hashlib.sha256).digest()).decode()


def sign_event(secret: str, sent: datetime, body: bytes) -> dict[str, str]:
    """The headers of a signed event."""
    seconds = str(int(sent.timestamp()))
    return {SENT: seconds, SIGNATURE: sign(secret, seconds, body)}


def read_event(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> ReportedEvent | None:
    """The event of a signed request; None if it is of a type that changes nothing here.

    `headers`: by their names in lower case.

    Raises:
        EventRefusedError: if the request is not signed with the secret, too old, or not an event.
    """
    signature, sent = headers.get(SIGNATURE, ""), headers.get(SENT, "")
    if not (_is_signature(signature) and hmac.compare_digest(sign(secret, sent, body), signature)):
        raise EventRefusedError("This request is not signed with the secret of the workspace.", 401)
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 12 and -OLDEST <= _age(sent, now) <= NEWEST):
        raise EventRefusedError("This request was signed too long ago, or in the future.", 401)
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise EventRefusedError("This request is not an event: its body is not a JSON object.", 400)
    kind, resource, worker = (str(given.get(name, "")) for name in ("event_type", "resource_id", "participant_id"))
    if kind not in EVENT_TYPES:
        return None
    id_ = headers.get(EVENT_ID) or signature
    if kind == STUDY:
        return ReportedEvent(id_, kind)
    if not (ID.fullmatch(resource) and ID.fullmatch(worker)):
        raise EventRefusedError("This event does not name a submission and its participant.", 400)
    return ReportedEvent(id_, kind, worker, resource, GIVEN_BACK.get(str(given.get("status", ""))))


def _is_signature(text: str) -> bool:
    try:
        return len(base64.b64decode(text.encode("ascii"), validate=True)) == hashlib.sha256().digest_size
    except (binascii.Error, UnicodeEncodeError):
        return False


def _age(sent: str, now: datetime) -> timedelta:
    """How long ago (negative) or in how long (positive) a request was signed."""
    return timedelta(seconds=int(sent) - now.timestamp())
