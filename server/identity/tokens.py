"""Tokens: how a person becomes a pseudonym and an address.

A visit to /take gets a ticket: a random one-time number, signed, in a hidden field. Consent turns the ticket into a
token (HMAC of the number under the secret), the listener's address from then on. The same ticket always gives the same
token, so a double click makes one assignment although the database stores only hashes. A personal link carries its
number in the link itself, so it leads to the same assignment from any device.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

TICKET_SECONDS = 24 * 3600
WORKER_LIMIT = 128
CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O 1 I L


@dataclass(frozen=True)
class ConsentTicket:
    """A person's entry: `number` is secret, `consent` the version they read, `worker_hash` a keyed hash of their id.

    `proven`: a personal link, or an id that was signed here.
    """

    number: str
    consent: str
    worker_hash: str | None = None
    proven: bool = False

    @property
    def hash(self) -> str:
        return sha256(self.number)

    def with_consent(self, consent: str) -> ConsentTicket:
        """The same ticket for another version of the consent text."""
        return dataclasses.replace(self, consent=consent)


class TokenSigner:
    """Makes and checks tickets, tokens and links; needs the secret, no database."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        keywords = {"digest_method": hashlib.sha256}
        self._tickets = URLSafeTimedSerializer(secret, salt="rootnote.entry", signer_kwargs=keywords)
        self._links = URLSafeSerializer(secret, salt="rootnote.link", signer_kwargs=keywords)

    def new_ticket(self, consent: str, worker: str | None = None, link: str | None = None) -> ConsentTicket | None:
        """A new ticket, or that of a personal link; None if the link was not signed here."""
        if link:
            number = self._unsign_link(link)
            return ConsentTicket(number, consent, self._keyed("link", number), proven=True) if number else None
        return ConsentTicket(random_token(), consent, self.worker_hash(worker) if worker else None)

    def sign_ticket(self, ticket: ConsentTicket) -> str:
        signed = self._tickets.dumps([ticket.number, ticket.consent, ticket.worker_hash, ticket.proven])
        return signed if isinstance(signed, str) else signed.decode()

    def read_ticket(self, signed: str) -> ConsentTicket | None:
        """The ticket of a form; None if it was not signed here or is more than a day old."""
        try:
            (number, consent, worker_hash, *more), made = self._tickets.loads(signed, return_timestamp=True)
        except (BadData, ValueError, TypeError):
            return None
        # A ticket from the future was signed by another server, or before this clock was set back: it is accepted.
        if (datetime.now(UTC) - made).total_seconds() > TICKET_SECONDS:
            return None
        return ConsentTicket(number, consent, worker_hash, bool(more and more[0]))  # 0.2.0 signed three values

    def token_for(self, ticket: ConsentTicket) -> str:
        """The token in the address of the assignment that this ticket becomes (256 bits)."""
        return _text(hmac.digest(self._secret, b"rootnote.token:" + ticket.number.encode(), "sha256"))

    def worker_hash(self, worker: str) -> str:
        """The keyed hash of a worker's id, which the database stores outside the vault."""
        return self._keyed("worker", worker)

    def hidden_code(self, code: str) -> str:
        """The replacement of a completion code once identities are deleted: 60 bits of its keyed hash."""
        return f"~{self._keyed('code', code)[:15]}"

    def submission_key(self, worker: str, submission: str) -> str:
        """The keyed hash of a marketplace's submission and its worker: an id may come again with another worker."""
        return self._keyed("submission", f"{worker}:{submission}")

    def ticket_for_worker(self, consent: str, worker: str, submission: str = "") -> ConsentTicket:
        """The ticket of a worker with one submission: always the same, so that they resume without a cookie.

        Without a submission: of a worker whose id was signed here, and of runs from before 0.3.
        """
        who = f"{worker}:{submission}" if submission else worker
        return ConsentTicket(self._keyed("entry", who), consent, self.worker_hash(worker), proven=not submission)

    def sign_id(self, worker: str) -> str:
        """The signature of an id (128 bits), the value of /take?worker=…&signature=."""
        return self._keyed("id", worker)[:32]

    def is_signed_id(self, worker: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign_id(worker).encode(), signature.encode())

    def make_link(self) -> str:
        """A new personal link, the value of /take?link=."""
        signed = self._links.dumps(secrets.token_urlsafe(16))
        return signed if isinstance(signed, str) else signed.decode()

    def _unsign_link(self, link: str) -> str | None:
        try:
            number = self._links.loads(link)
        except BadData:
            return None
        return number if isinstance(number, str) else None

    def _keyed(self, purpose: str, value: str) -> str:
        return hmac.digest(self._secret, f"rootnote.{purpose}:{value}".encode(), "sha256").hex()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def random_token() -> str:
    """A random name of 256 bits: 43 characters of A-Z, a-z, 0-9, - and _."""
    return secrets.token_urlsafe(32)


def random_pseudonym() -> str:
    return secrets.token_hex(8)


def random_code() -> str:
    """A completion code of 50 bits without letters and digits that look alike."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(10))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
