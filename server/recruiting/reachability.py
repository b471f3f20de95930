"""Whether a marketplace's workers can reach the server."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from embeddings.errors import RootnoteError
from server.settings import Settings
from server.web.loopback import is_loopback


def require_reachable(settings: Settings) -> None:
    """Refuse an address that a marketplace's workers cannot reach.

    Raises:
        RootnoteError: naming the problem.
    """
    import httpx

    url = settings.public_url
    if not url:
        raise RootnoteError(
            "the environment variable ROOTNOTE_PUBLIC_URL is not set; set it to the address of the server, such as "
            "https://study.example.org."
        )
    host = urlsplit(url).hostname or ""
    if settings.market_url and is_loopback(host):
        return
    if not url.startswith("https://"):
        raise RootnoteError(f"ROOTNOTE_PUBLIC_URL is {url}, but a marketplace shows pages by https only.")
    if not _is_public(host):
        raise RootnoteError(f"ROOTNOTE_PUBLIC_URL is {url}, which listeners elsewhere cannot reach.")
    try:
        status = httpx.get(f"{url}/healthz", timeout=10, follow_redirects=False).status_code
    except httpx.HTTPError as error:
        raise RootnoteError(
            f"the server cannot be reached at {url} ({type(error).__name__}); start it first."
        ) from None
    if status != 200:
        raise RootnoteError(f"{url}/healthz answers with status {status}, so the study is not served there.")


def _is_public(host: str) -> bool:
    """Whether all of a host's addresses can be reached from the internet; a host that cannot be found is not public."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(one).partition("%")[0]).is_global for one in found)
