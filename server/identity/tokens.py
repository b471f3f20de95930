"""The door: how a person becomes a pseudonym and an address.

A visit to /take gets an entry: a random one-time number, signed, in a hidden field. Consenting turns the entry
into a token (HMAC of the number under the secret), the listener's address from then on. The same entry always
gives the same token, so a double click yields one assignment though the database keeps only hashes.
A listener's own link carries its number in the link itself, so it leads back to the same assignment from any device.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

ENTRY_SECONDS = 24 * 3600
WORKER_LIMIT = 128
CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O 1 I L


@dataclass(frozen=True)
class ConsentTicket:
    """One person's one coming in: `number` is secret, `worker_hash` names nobody, `consent` is what they read."""

    number: str
    consent: str
    worker_hash: str | None = None

    @property
    def hash(self) -> str:
        return sha256(self.number)


class TokenSigner:
    """Makes and checks what a listener carries; needs the secret, no database."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        keywords = {"digest_method": hashlib.sha256}
        self._entries = URLSafeTimedSerializer(secret, salt="rootnote.entry", signer_kwargs=keywords)
        self._links = URLSafeSerializer(secret, salt="rootnote.link", signer_kwargs=keywords)

    def open(self, consent: str, worker: str | None = None, link: str | None = None) -> ConsentTicket | None:
        """A new entry, or that of a listener's own link; None where the link is not one of ours."""
        if link:
            number = self._unsign_link(link)
            return ConsentTicket(number, consent, self._keyed("link", number)) if number else None
        return ConsentTicket(random_token(), consent, self.worker_hash(worker) if worker else None)

    def sign(self, entry: ConsentTicket) -> str:
        signed = self._entries.dumps([entry.number, entry.consent, entry.worker_hash])
        return signed if isinstance(signed, str) else signed.decode()

    def read(self, signed: str) -> ConsentTicket | None:
        """The entry of a form, or None where it is not ours or more than a day old."""
        try:
            (number, consent, worker_hash), made = self._entries.loads(signed, return_timestamp=True)
        except (BadData, ValueError, TypeError):
            return None
        # One from the future was signed before a clock was set back, or by another server: no fault of the listener's.
        if (datetime.now(UTC) - made).total_seconds() > ENTRY_SECONDS:
            return None
        return ConsentTicket(number, consent, worker_hash)

    def token(self, entry: ConsentTicket) -> str:
        """The address of the assignment that this entry becomes (256 bits)."""
        return _text(hmac.digest(self._secret, b"rootnote.token:" + entry.number.encode(), "sha256"))

    def worker_hash(self, worker: str) -> str:
        """What the database keeps of a worker's id outside the vault."""
        return self._keyed("worker", worker)

    def hidden_code(self, code: str) -> str:
        """What is kept of a completion code once nobody is to be found by it: 60 bits of its keyed hash."""
        return f"~{self._keyed('code', code)[:15]}"

    def submission_key(self, worker: str, submission: str) -> str:
        """What it keeps of a marketplace's submission, whose id may come again with another worker."""
        return self._keyed("submission", f"{worker}:{submission}")

    def welcome(self, consent: str, worker: str) -> ConsentTicket:
        """The entry of a marketplace's worker: always the same, so that they find back without a cookie."""
        return ConsentTicket(self._keyed("entry", worker), consent, self.worker_hash(worker))

    def make_link(self) -> str:
        """A new link for one listener, to go behind /take?link=."""
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
    """A random name of 256 bits, 43 characters."""
    return secrets.token_urlsafe(32)


def random_pseudonym() -> str:
    return secrets.token_hex(8)


def random_code() -> str:
    """A completion code that survives being read aloud, 50 bits."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(10))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
