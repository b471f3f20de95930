"""Prolific's signed arrivals: JSON Web Tokens by RS256, and the public keys that they are checked with."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://www.prolific.com"
LIFE = timedelta(minutes=2)


class SigningKeys:
    """The keys of a local Prolific: the latest signs; `rotate` adds one, `forget_old` withdraws the earlier ones."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now, self._ids = now, ["key-1"]

    def rotate(self) -> str:
        """Sign with a new key from now on; returns its id."""
        self._ids.append(f"key-{int(self._ids[-1].partition('-')[2]) + 1}")
        return self._ids[-1]

    def forget_old(self) -> None:
        """Publish only the latest key."""
        self._ids = self._ids[-1:]

    def sign(self, address: str, submission: str, workspace: str, **changes: Any) -> str:
        """A token for an arrival at this address; `changes` replace claims, to make a wrong one."""
        now = int(self._now().timestamp())
        given = dict(parse_qsl(urlsplit(address).query, keep_blank_values=True))
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "iat": now,
            "exp": now + int(LIFE.total_seconds()),
            "aud": address,
            "sub": submission,
            "prolific": given | {"workspace_id": workspace},
        }
        header = {"alg": "RS256", "kid": self._ids[-1], "typ": "JWT"}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims | changes))
        signature = _key(self._ids[-1]).sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_encoded(signature)}"

    def published(self) -> dict[str, Any]:
        """The public keys, as /.well-known/study/jwks.json shows them."""
        return {"keys": [_public(id_) for id_ in self._ids]}


def _public(id_: str) -> dict[str, Any]:
    numbers = _key(id_).public_key().public_numbers()
    return {
        "kty": "RSA",
        "kid": id_,
        "alg": "RS256",
        "n": _encoded(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
        "e": _encoded(numbers.e.to_bytes(3, "big")),
        "use": "sig",
        "key_ops": ["verify"],
    }


@functools.cache
def _key(id_: str) -> rsa.RSAPrivateKey:
    """Keys of a rehearsal protect nothing; the same one is used by all markets of a process."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
