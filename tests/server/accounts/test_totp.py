"""One-time codes: the RFCs' own vectors, and pyotp as another hand."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.accounts import totp

RFC_SECRET = b"12345678901234567890"
RFC_4226 = ("755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489")
RFC_6238 = {
    59: "94287082",
    1111111109: "07081804",
    1111111111: "14050471",
    1234567890: "89005924",
    2000000000: "69279037",
    20000000000: "65353130",
}
MOMENTS = st.datetimes(datetime(2001, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def test_vectors_of_rfc_4226() -> None:
    assert tuple(totp.hotp(RFC_SECRET, counter) for counter in range(10)) == RFC_4226


def test_vectors_of_rfc_6238() -> None:
    """Its codes have eight digits; ours are their last six."""
    found = {at: totp.hotp(RFC_SECRET, totp.step_of(datetime.fromtimestamp(at, UTC))) for at in RFC_6238}
    assert found == {at: code[2:] for at, code in RFC_6238.items()}


@given(st.binary(min_size=20, max_size=20), MOMENTS)
def test_codes_are_pyotps(secret: bytes, moment: datetime) -> None:
    theirs = pyotp.TOTP(base64.b32encode(secret).decode())
    assert totp.hotp(secret, totp.step_of(moment)) == theirs.at(moment)


@given(st.binary(min_size=20, max_size=20), MOMENTS, st.integers(-200, 200))
def test_one_step_to_either_side_is_taken_and_no_more(secret: bytes, moment: datetime, seconds: int) -> None:
    made = totp.step_of(moment + timedelta(seconds=seconds))
    found = totp.matching_step(secret, totp.hotp(secret, made), moment)
    near = abs(made - totp.step_of(moment)) <= totp.SKEW
    # Of a million codes two steps may have the same one.
    assert found == made if near else found is None or totp.hotp(secret, found) == totp.hotp(secret, made)


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345é", "\0" * 6, "000000\n"])
def test_what_is_no_code_is_of_no_step(code: str) -> None:
    assert totp.matching_step(RFC_SECRET, code, datetime(2026, 3, 1, tzinfo=UTC)) is None


@given(st.text(min_size=1, max_size=80), st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True))
def test_apps_read_the_address(study: str, name: str) -> None:
    key = base64.b32encode(RFC_SECRET).decode()
    issuer = f"Rootnote {study}"
    if ":" in study or quote(issuer) != quote(issuer.encode("utf-8", "surrogatepass").decode("utf-8", "ignore")):
        return  # pyotp takes a colon as the end of the issuer, however it is written
    read = pyotp.parse_uri(totp.address(key, name, issuer))
    assert isinstance(read, pyotp.TOTP)
    assert (read.secret, read.name, read.issuer, read.digits, read.interval) == (key, name, issuer, 6, 30)
