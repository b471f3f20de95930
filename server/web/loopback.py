"""Addresses of this machine."""

from __future__ import annotations

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str | None) -> bool:
    """Whether a host name is this machine's own."""
    return host in LOOPBACK
