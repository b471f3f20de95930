"""One-time codes: the vectors of the RFCs, the accepted steps, and what authenticator apps read."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.accounts import totp

RFC_KEY = base64.b32encode(b"12345678901234567890").decode()
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
KEYS = st.binary(min_size=20, max_size=20).map(lambda secret: base64.b32encode(secret).decode())


def test_vectors_of_rfc_4226() -> None:
    assert tuple(totp.code_at(RFC_KEY, counter) for counter in range(10)) == RFC_4226


def test_vectors_of_rfc_6238() -> None:
    """Its codes have eight digits; ours are their last six."""
    found = {at: totp.code_at(RFC_KEY, totp.step_at(datetime.fromtimestamp(at, UTC))) for at in RFC_6238}
    assert found == {at: code[2:] for at, code in RFC_6238.items()}


@given(KEYS, st.integers(0, 2**40))
def test_codes_follow_the_rfc(key: str, step: int) -> None:
    """An independent implementation: RFC 4226, section 5.3."""
    digest = hmac.digest(base64.b32decode(key), step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    assert totp.code_at(key, step) == f"{number % 10**6:06d}"


@given(KEYS, MOMENTS)
def test_steps_are_those_of_an_app(key: str, moment: datetime) -> None:
    assert totp.code_at(key, totp.step_at(moment)) == pyotp.TOTP(key).at(moment)


@given(KEYS, MOMENTS, st.integers(-200, 200))
def test_one_step_on_either_side_is_accepted_and_no_more(key: str, moment: datetime, seconds: int) -> None:
    made = totp.step_at(moment + timedelta(seconds=seconds))
    found = totp.matching_step(key, totp.code_at(key, made), moment)
    near = abs(made - totp.step_at(moment)) <= totp.DRIFT_STEPS
    # Of a million codes two steps may have the same one.
    same = found is not None and totp.code_at(key, found) == totp.code_at(key, made)
    assert same and (found or 0) >= made if near else found is None or same


def test_every_accepted_step_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, compared = datetime(2026, 3, 1, tzinfo=UTC), []
    compare = hmac.compare_digest

    def record(expected: bytes, given: bytes) -> bool:
        compared.append(expected)
        return compare(expected, given)

    monkeypatch.setattr("server.accounts.totp.hmac.compare_digest", record)
    codes = [totp.code_at(RFC_KEY, totp.step_at(now) + step) for step in (-1, 0, 1)]
    for code in (*codes, "000000"):
        compared.clear()
        totp.matching_step(RFC_KEY, code, now)
        assert compared == [one.encode() for one in codes], "as many comparisons whether and wherever it matches"


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345é", "\0" * 6, "000000\n"])
def test_malformed_codes_match_no_step(code: str) -> None:
    assert totp.matching_step(RFC_KEY, code, datetime(2026, 3, 1, tzinfo=UTC)) is None


@given(st.text(min_size=1, max_size=80), st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True))
def test_apps_read_the_uri(study: str, name: str) -> None:
    issuer = f"Rootnote {study}"
    if ":" in study or quote(issuer) != quote(issuer.encode("utf-8", "surrogatepass").decode("utf-8", "ignore")):
        return  # pyotp reads a colon as the end of the issuer, however it is encoded
    read = pyotp.parse_uri(totp.provisioning_uri(RFC_KEY, name, issuer))
    assert isinstance(read, pyotp.TOTP)
    assert (read.secret, read.name, read.issuer, read.digits, read.interval) == (RFC_KEY, name, issuer, 6, 30)
