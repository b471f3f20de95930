"""Addresses with placeholders: where a panel's participants return to, and where a panel is called.

`https://panel.example.org/done?id={worker}&code={code}`: every placeholder is filled with a value in URL encoding, so a
value can add neither a parameter nor a path, and the host is always the one that study.toml names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import quote, urlsplit

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
URL_LIMIT = 1000
VALUE_LIMIT = 256
DOTS = (".", "..")  # a browser would remove them from a path, and the part before them


def check_address(template: str, names: Collection[str]) -> str:
    """The address as given.

    Raises:
        ValueError: if it is not an https address, or has an unknown placeholder or one in its host.
    """
    if not template:
        return template
    found = placeholders(template)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is not known; use {', '.join(f'{{{name}}}' for name in names)}")
    if "{" in PLACEHOLDER.sub("", template) or "}" in PLACEHOLDER.sub("", template):
        raise ValueError("a brace belongs to no placeholder")
    if len(template) > URL_LIMIT or not template.isascii() or re.search(r"[\s\\<>\"]", template):
        raise ValueError(f"the address must be at most {URL_LIMIT} ASCII characters without spaces")
    try:
        parts = urlsplit(template)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or "@" in parts.netloc or "{" in parts.netloc:
        raise ValueError("the address must start with https:// and a host without placeholders")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError("the address must start with https:// (http:// only on this machine)")
    return template


def placeholders(template: str) -> list[str]:
    return PLACEHOLDER.findall(template)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The address with its placeholders filled."""
    return PLACEHOLDER.sub(lambda match: quote(values[match[1]], safe=""), template)


def host_of(template: str) -> str:
    return urlsplit(template).hostname or ""


def is_local(address: str) -> bool:
    """Whether an address is on this machine."""
    return host_of(address) in LOOPBACK


def is_usable(value: str) -> bool:
    """Whether a value from an address can be stored and put into another address."""
    return 0 < len(value) <= VALUE_LIMIT and value.isprintable() and value not in DOTS
