"""Time-based one-time codes as RFC 6238 has them, by the choices that every authenticator app knows.

SHA-1, because apps know nothing else for certain; as an HMAC it has no known weakness, and nothing else here uses it.
Codes have six digits and change every 30 seconds (a step). The code of the step before and of the step after is taken
too, for clocks that differ and people who type (RFC 6238, 5.2).
"""

from __future__ import annotations

import hmac
from datetime import datetime
from urllib.parse import quote

DIGITS = 6
STEP_SECONDS = 30
SKEW = 1  # steps to either side


def hotp(secret: bytes, counter: int) -> str:
    """The code of a counter (RFC 4226, 5.3).

    Raises:
        OverflowError: where the counter is negative or has more than 64 bits.
    """
    digest = hmac.digest(secret, counter.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(moment: datetime) -> int:
    return int(moment.timestamp()) // STEP_SECONDS


def matching_step(secret: bytes, code: str, now: datetime) -> int | None:
    """The step whose code this is, the latest where there are several; None where it is of none at present."""
    found = None
    for step in range(step_of(now) - SKEW, step_of(now) + SKEW + 1):
        if hmac.compare_digest(hotp(secret, step).encode(), code.encode()):
            found = step
    return found


def address(secret_text: str, name: str, issuer: str) -> str:
    """What the QR code says: the address by which apps take a key (base32)."""
    label = f"{quote(issuer, safe='')}:{quote(name, safe='')}"
    return f"otpauth://totp/{label}?secret={secret_text}&issuer={quote(issuer, safe='')}"
