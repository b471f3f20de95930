"""Rate limits: how many requests one address may send, and how many may go to one listener's pages or to one sound.

Each key has a token bucket that refills at a steady rate; if it is empty, the reply is 429 with the seconds to wait.
The buckets live in the process: several processes together admit at most the limit times their number. The sizes are
chosen for 500 listeners who arrive at once through one shared address: each sends some thirty requests in the first
minute, then one every three seconds. Addresses are held as keyed hashes for as long as the process runs, and never
stored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, request
from werkzeug.exceptions import TooManyRequests

KEYS = 50_000
ADDRESS_BURST_SECONDS = 100.0
TOKEN_PER_SECOND, TOKEN_BURST = 5.0, 300.0


@dataclass
class _Bucket:
    left: float
    at: float


class Limit:
    """A bucket of `burst` requests for each key, refilled by `per_second`."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Take one request from the bucket of `key`: 0 if there is one, else the seconds to wait."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
            self._buckets.move_to_end(key)
            if len(self._buckets) > KEYS:
                self._buckets.popitem(last=False)
            bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
            bucket.at = now
            if bucket.left < 1:
                return (1 - bucket.left) / self._rate
            bucket.left -= 1
            return 0.0


class Limits:
    """The limits of one server, by address and by token; `per_second` 0 sets no limit by address."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._addresses = Limit(per_second, per_second * ADDRESS_BURST_SECONDS, clock) if per_second else None
        self._tokens = Limit(TOKEN_PER_SECOND, TOKEN_BURST, clock)

    def wait(self, address: str | None, token: str | None) -> float:
        """The seconds that a request must wait; 0 if it is admitted."""
        seconds = self._addresses.take(self._hash(network(address))) if self._addresses is not None else 0.0
        if not seconds and token:
            seconds = self._tokens.take(self._hash(token))
        return seconds

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()


def network(address: str | None) -> str:
    """The network that an address is counted as: an IPv4 address itself, an IPv6 address by its /64 (one household)."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def install(app: Flask, limits: Limits) -> None:
    """Refuse requests of an application that exceed the limits."""

    @app.before_request
    def limit() -> None:
        named = request.view_args or {}
        key = named.get("token") or named.get("name")  # a listener's address, or a sound's
        if seconds := limits.wait(request.remote_addr, key):
            raise TooManyRequests(retry_after=math.ceil(seconds))
