"""Time-based one-time codes (RFC 6238) with the parameters that every authenticator app supports.

HMAC-SHA-1, because apps reliably support nothing else; as an HMAC it has no known weakness, and nothing else here uses
it. Codes have six digits and change every 30 seconds (one step). The codes of the previous and the next step are
accepted too, because clocks differ and typing takes time (RFC 6238, section 5.2). Keys are base32 text.

pyotp computes the codes. Which step a code belongs to is decided here: `pyotp.TOTP.verify` does not return the step
(replay protection needs it) and stops at the first match (so its timing depends on the code).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

import pyotp

DIGITS = 6
STEP_SECONDS = 30
DRIFT_STEPS = 1  # accepted on either side of the current step


def step_at(moment: datetime) -> int:
    """The number of the 30-second step that contains a moment, counted from the Unix epoch."""
    return int(moment.timestamp()) // STEP_SECONDS


def code_at(key: str, step: int) -> str:
    """The code of a step.

    Raises:
        ValueError: if the step is negative or the key is not base32.
    """
    return _generator(key).generate_otp(step)


def matching_step(key: str, code: str, now: datetime) -> int | None:
    """The latest accepted step that has this code; None if the code is not valid now.

    Every accepted step is compared, each in constant time.
    """
    found, current = None, step_at(now)
    for step in range(current - DRIFT_STEPS, current + DRIFT_STEPS + 1):
        if hmac.compare_digest(code_at(key, step).encode(), code.encode()):
            found = step
    return found


def provisioning_uri(key: str, name: str, issuer: str) -> str:
    """The otpauth:// address in the QR code, by which an app stores the key."""
    return _generator(key).provisioning_uri(name=name, issuer_name=issuer)


def _generator(key: str) -> pyotp.TOTP:
    return pyotp.TOTP(key, digits=DIGITS, digest=hashlib.sha1, interval=STEP_SECONDS)
