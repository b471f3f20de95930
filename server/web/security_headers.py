"""Headers: what every reply tells the browser to forbid.

No page holds inline script or style, and none loads anything from elsewhere. A study's pages may be framed only by
the study's own marketplace, and the desk by no site at all. HSTS is sent where listeners come by https.
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
    """The sites of a marketplace: those that show our pages in a frame, those that we post forms to."""

    frames: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()


def security_headers(
    marketplace: MarketplaceOrigins, *, desk: bool, secure: bool, sounds: tuple[str, ...] = (), market: str = ""
) -> dict[str, str]:
    """The headers of a reply to a listener who came from `marketplace`, or to a researcher (`desk`).

    `secure`: the request came by https. `sounds`: other origins that audio is fetched from. `market`: a marketplace on
    this machine that stands in for the real one in a rehearsal.
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
    headers = FIXED | {"Content-Security-Policy": "; ".join(f"{key} {' '.join(who)}" for key, who in policy.items())}
    if not place.frames:
        headers["X-Frame-Options"] = "DENY"  # for browsers that know no frame-ancestors; it cannot name hosts
    if secure:
        headers["Strict-Transport-Security"] = HSTS
    return headers


def _local(market: str) -> MarketplaceOrigins:
    """A marketplace on loopback, which workers may reach by another name than we do."""
    port = urlsplit(market).port
    hosts = tuple(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return MarketplaceOrigins(hosts, hosts)
