"""HTTP requests and replies of the local marketplaces."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class HttpRequest:
    """One HTTP request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class HttpReply:
    """One HTTP reply."""

    status: int
    body: bytes = b""
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(status: int, value: Any) -> HttpReply:
    return HttpReply(status, json.dumps(value, default=str).encode())


def page(title: str, body: str, status: int = 200) -> HttpReply:
    """An HTML page with this title; `body` is HTML."""
    shown = html.escape(title)
    text = f"<!doctype html><meta charset=utf-8><title>{shown}</title><h1>{shown}</h1>{body}"
    return HttpReply(status, text.encode(), "text/html; charset=utf-8")


def redirect(address: str) -> HttpReply:
    return HttpReply(303, headers={"Location": address})
