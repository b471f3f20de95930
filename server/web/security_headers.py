"""Security headers: what every reply forbids the browser to do.

No page contains inline scripts or styles, and none loads anything from elsewhere. Only the marketplace in use may frame
the study's pages; nothing may frame the desk. HSTS is sent where listeners come by https.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

HSTS = "max-age=31536000"
FIXED = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}


@dataclass(frozen=True)
class MarketplaceOrigins:
    """The sites of a marketplace: those that show our pages in a frame, and those to which our pages post forms."""

    frames: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()


def security_headers(
    marketplace: MarketplaceOrigins, *, desk: bool, secure: bool, sounds: tuple[str, ...] = (), market: str = ""
) -> dict[str, str]:
    """The headers of a reply to a listener who came from `marketplace`, or to a researcher (`desk`).

    `secure`: the request came by https. `sounds`: further origins that audio is fetched from. `market`: the address of
    a local marketplace that replaces the real one in a rehearsal.
    """
    place = MarketplaceOrigins() if desk else marketplace
    if market and place.frames:
        place = _local(market)
    policy = {
        "default-src": ("'none'",),
        "script-src": ("'self'",),
        "style-src": ("'self'",),
        "img-src": ("'self'",),
        "media-src": ("'self'", *sounds),
        "connect-src": ("'self'", *sounds),
        "form-action": ("'self'", *place.forms),
        "base-uri": ("'none'",),
        "frame-ancestors": place.frames or ("'none'",),
    }
    headers = FIXED | {
        "Content-Security-Policy": "; ".join(f"{key} {' '.join(sources)}" for key, sources in policy.items())
    }
    if not place.frames:
        headers["X-Frame-Options"] = "DENY"  # for browsers without frame-ancestors; it cannot name hosts
    if secure:
        headers["Strict-Transport-Security"] = HSTS
    return headers


def is_desk_path(path: str) -> bool:
    """Whether a path belongs to the researchers' desk."""
    return path == "/desk" or path.startswith("/desk/")


def local_path(url: str) -> str:
    """The path and query of an address, without its host; it never begins with two slashes, which would name one."""
    parts = urlsplit(url)
    return f"/{parts.path.lstrip('/')}" + (f"?{parts.query}" if parts.query else "")


def _local(market: str) -> MarketplaceOrigins:
    """A local marketplace, which workers and server may reach by different names of this machine."""
    port = urlsplit(market).port
    hosts = tuple(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return MarketplaceOrigins(hosts, hosts)
