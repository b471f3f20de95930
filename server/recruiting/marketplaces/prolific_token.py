"""Prolific's signed arrivals: the parameter `prolific_token`, a JSON Web Token with the ids of the address.

A study with `is_external_study_url_secure` gets it, for two minutes after the participant opened the study. Whoever
changes an id, or signs a token themselves, is refused. A token that cannot be checked (the keys cannot be fetched, it
has expired, its key is not published, a clock is wrong) proves nothing and harms nobody: the run stays unconfirmed
until Prolific lists it, and the log says why.

Source: Prolific's API description, `is_external_study_url_secure` and `/.well-known/study/jwks.json`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt

from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import ArrivalError
from server.web.loopback import is_loopback
from study.languages import mark

TOKEN_PARAMETER = "prolific_token"  # noqa: S105 (the parameter's name)
KEYS_PATH = "/.well-known/study/jwks.json"
LEEWAY_SECONDS = 30  # clocks differ a little
KEPT_SECONDS = 12 * 3600  # Prolific asks for a refresh at least daily
AGAIN_SECONDS = 60.0  # an unknown key makes us fetch, but no more often than this
TIMEOUT_SECONDS = 3
TOKEN_LIMIT = 4096
FORGED = mark("This address was changed on the way here; please open the study from Prolific again.")
log = logging.getLogger(__name__)


class UncheckedTokenError(Exception):
    """A token that cannot be checked now; the message is one sentence for the log."""


class ProlificSignatures:
    """Checks tokens with Prolific's public keys, which are fetched when needed and kept."""

    def __init__(self, site: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`site`: where the keys are, such as https://api.prolific.com."""
        self._keys = jwt.PyJWKClient(
            site.rstrip("/") + KEYS_PATH, cache_jwk_set=False, cache_keys=False, timeout=TIMEOUT_SECONDS
        )
        self._clock, self._lock = clock, threading.Lock()
        self._known: dict[str, jwt.PyJWK] = {}
        self._fetched, self._tried = float("-inf"), float("-inf")

    def is_signed(self, token: str, arrival: Arrival, host: str) -> bool:
        """Whether Prolific signed these ids for this server; False if that cannot be checked.

        Args:
            host: the server's name and port, as in the address that listeners open.

        Raises:
            ArrivalError: if the token is forged, or belongs to other ids.
        """
        if not token:
            return False
        try:
            self._check(self._read(token), arrival, host)
        except UncheckedTokenError as problem:
            log.warning("an arrival from Prolific stays unconfirmed: %s", problem)
            return False
        return True

    def _check(self, claims: Mapping[str, Any], arrival: Arrival, host: str) -> None:
        """Compare what was signed with the address that was opened."""
        own = claims.get("prolific")
        named = {"PROLIFIC_PID": arrival.worker, "STUDY_ID": arrival.opening, "SESSION_ID": arrival.submission}
        if not isinstance(own, Mapping) or any(own.get(name) != value for name, value in named.items()):
            raise ArrivalError(FORGED)
        audience = str(claims["aud"])
        if _origin(f"//{host}") != _origin(audience):
            raise UncheckedTokenError(f"its token is for {audience}, and ROOTNOTE_PUBLIC_URL names {host}.")

    def _read(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature and times are right."""
        try:
            header = jwt.get_unverified_header(token[:TOKEN_LIMIT])
        except jwt.InvalidTokenError:
            raise ArrivalError(FORGED) from None
        if header.get("alg") != "RS256":
            raise ArrivalError(FORGED)
        key = self._key(str(header.get("kid", "")))
        try:
            return jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud"], "verify_aud": False},  # the host of `aud` is compared
            )
        except jwt.ExpiredSignatureError:
            raise UncheckedTokenError("its token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise UncheckedTokenError(
                "its token is from the future, so this machine's clock is slow; set it by NTP."
            ) from None
        except jwt.InvalidTokenError:
            raise ArrivalError(FORGED) from None

    def _key(self, kid: str) -> jwt.PyJWK:
        """The published key of this id; the keys are fetched again if it is not known."""
        with self._lock:
            now = self._clock()
            stale = kid not in self._known or now - self._fetched > KEPT_SECONDS
            if stale and now - self._tried >= AGAIN_SECONDS:
                self._tried = now
                self._fetch(now)
            if kid in self._known:
                return self._known[kid]
        if self._fetched == float("-inf"):
            raise UncheckedTokenError(f"the keys at {self._keys.uri} cannot be fetched.")
        raise UncheckedTokenError("its token names a key that Prolific does not publish.")

    def _fetch(self, now: float) -> None:
        try:
            found = self._keys.get_jwk_set(refresh=True).keys
        except (jwt.PyJWTError, ValueError) as error:
            log.warning("the keys of Prolific cannot be fetched (%s)", error)
            return
        self._known = {str(key.key_id): key for key in found if key.key_id and key.key_type == "RSA"}
        self._fetched = now


def _origin(address: str) -> tuple[str, int | None]:
    """The host and port of an address, without the usual ports; the names of this machine are one."""
    try:
        parts = urlsplit(address)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    return "localhost" if is_loopback(name) else name, None if port in (80, 443) else port
