"""What listeners meet: the public address with its certificate and headers, and the stimuli."""

from __future__ import annotations

import hashlib
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from embeddings.errors import RootnoteError
from server.doctor.check import DoctorContext, Finding
from server.doctor.database import is_private
from server.recruiting.marketplaces.registry import origins_of
from server.web.security_headers import security_headers

TIMEOUT = 10.0
SOON_DAYS, LATE_DAYS = 21, 7
CLOCK_SECONDS = 5.0
PAGES = {"/take": False, "/desk/sign-in": True, "/nothing-of-this-name": False, "/static/player.js": False}
PROXY = "take deploy/Caddyfile or deploy/nginx.conf, which add and remove no header"


def check_address(case: DoctorContext) -> Iterator[Finding]:
    """Listeners reach this server by https at ROOTNOTE_PUBLIC_URL, and get its own headers."""
    url = case.settings.public_url
    if not url.startswith("https://"):
        text = f"ROOTNOTE_PUBLIC_URL is '{url}', no https." if url else "ROOTNOTE_PUBLIC_URL is not set."
        yield Finding("wrong", text, "set it to the address that listeners open, as https://study.example.org")
        return
    if case.settings.trusted_proxies == 0:
        text = "ROOTNOTE_TRUSTED_PROXIES is 0, but https means that a proxy stands before the server: all listeners "
        yield Finding("wrong", text + "are limited as if they were one.", "set it to 1, or to how many stand there")
    host = str(urlsplit(url).hostname)
    try:
        private = is_private(host)
    except OSError:
        yield Finding("wrong", f"The name {host} has no address.", "enter it in the DNS")
        return
    if private:
        yield Finding("look", f"{host} is an address of this network: nobody outside reaches it.")
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT, verify=ssl.create_default_context()) as client:
            yield from _ask(case, client)
            yield from _certificate(host, urlsplit(url).port or 443)
    except (httpx.HTTPError, OSError) as error:
        reason = str(error).partition(" (_ssl")[0] or type(error).__name__
        yield Finding(
            "wrong", f"{url} cannot be reached from here: {reason}.", "see that proxy, port and name are right"
        )
    if not private and urlsplit(url).port in (None, 443):
        yield from _plain(host)


def _ask(case: DoctorContext, client: httpx.Client) -> Iterator[Finding]:
    ready = client.get("/readyz")
    if ready.text != "ready\n":
        told = (
            ready.text.strip().splitlines()[0][:80]
            if ready.headers.get("content-type", "").startswith("text/plain")
            else ""
        )
        text = f"{case.settings.public_url}/readyz answers {ready.status_code}{': ' + told if told else ''}."
        yield Finding("wrong", text, "see that the server runs and that the proxy leads to it")
        return
    yield Finding("ok", f"{case.settings.public_url} is ready.")
    wrong = []
    for path, desk in PAGES.items():
        wrong += [f"{name} at {path}" for name in _differing(case, client.get(path), desk)]
    if wrong:
        yield Finding("wrong", f"Headers are missing, changed or doubled: {', '.join(wrong[:4])}.", PROXY)
    else:
        yield Finding("ok", f"The security headers arrive as they were sent on {len(PAGES)} kinds of pages.")
    if client.get("/metrics").status_code != 404:
        yield Finding("wrong", "/metrics answers somebody without the token.", PROXY)
    if any(letter.isdigit() for letter in ready.headers.get("server", "")):
        yield Finding("look", f"The proxy tells its version ({ready.headers['server']}).", "nginx: server_tokens off")
    if "date" in ready.headers:
        skew = parsedate_to_datetime(ready.headers["date"]).timestamp() - time.time()
        if abs(skew) > CLOCK_SECONDS:
            yield Finding("wrong", f"The server's clock is {skew:+.0f} s from this machine's.", "synchronise both")


def _differing(case: DoctorContext, reply: httpx.Response, desk: bool) -> list[str]:
    """The names of the security headers that did not come exactly once and as the server sends them."""
    origin = None if desk else case.storage.origin
    sounds = (origin,) if origin else ()
    expected = security_headers(origins_of(case.study.config), desk=desk, secure=True, sounds=sounds)
    return [name for name, value in expected.items() if reply.headers.get_list(name) != [value]]


def _certificate(host: str, port: int) -> Iterator[Finding]:
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        certificate, protocol = wrapped.getpeercert() or {}, wrapped.version()
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    text = f"The certificate is good for {days:.0f} days ({protocol})."
    if days < SOON_DAYS:
        yield Finding("wrong" if days < LATE_DAYS else "look", text, "see why it was not renewed")
    else:
        yield Finding("ok", text)


def _plain(host: str) -> Iterator[Finding]:
    """Without encryption there is nothing but the way to https."""
    try:
        reply = httpx.get(f"http://{host}/take", timeout=TIMEOUT)
    except httpx.HTTPError:
        yield Finding("ok", f"http://{host} does not answer.")
        return
    if reply.headers.get("location", "").startswith("https://"):
        yield Finding("ok", f"http://{host} leads to https.")
    else:
        yield Finding("wrong", f"http://{host} answers {reply.status_code} without encryption.", "let it lead to https")


def check_stimuli(case: DoctorContext) -> Iterator[Finding]:
    """Every stimulus is there as it was rendered; a bucket gives them to listeners and to nobody else."""
    if not case.study.config.storage.stimuli:
        yield from _local_stimuli(case)
        return
    stimulus = secrets.choice(list(case.plan.stimuli.values()))
    case.storage.read(stimulus)
    where = case.study.config.storage.stimuli
    yield Finding("ok", f"{where} gives a stimulus drawn at random as it was rendered.")
    address = case.storage.address(stimulus)
    if address is not None:
        yield from _signed(case, where, address, stimulus.sha256)


def _local_stimuli(case: DoctorContext) -> Iterator[Finding]:
    stimuli = case.plan.stimuli.values()
    spoilt = [one.file.name for one in stimuli if hashlib.sha256(one.file.read_bytes()).hexdigest() != one.sha256]
    if spoilt:
        raise RootnoteError(f"{case.study.stimuli / spoilt[0]} is spoilt; run `rootnote study build {case.command}`.")
    yield Finding("ok", f"All {len(stimuli):,} stimuli are as they were rendered.")


def _signed(case: DoctorContext, where: str, address: str, sha256: str) -> Iterator[Finding]:
    """As a browser asks: by the signed address, from the study's origin; and as a stranger: by the bare one."""
    origin = case.settings.public_url
    try:
        reply = httpx.get(address, headers={"Origin": origin}, timeout=TIMEOUT)
        bare = httpx.get(address.partition("?")[0], timeout=TIMEOUT)
    except httpx.HTTPError as error:
        yield Finding("wrong", f"{where} cannot be reached by its signed addresses: {type(error).__name__}.")
        return
    if reply.status_code != 200 or hashlib.sha256(reply.content).hexdigest() != sha256:
        yield Finding("wrong", f"A signed address of {where} answers {reply.status_code}.", "see region and clock")
    elif reply.headers.get("access-control-allow-origin") not in ("*", origin):
        mend = f"rootnote study cors --origin {origin or 'https://study.example.org'}"
        yield Finding("wrong", f"{where} lets no page of {origin or 'the study'} fetch sounds (CORS).", mend)
    else:
        yield Finding("ok", "A signed address gives the sound to the study's pages.")
    if bare.status_code == 200:
        yield Finding("wrong", f"{where} gives its sounds to everybody, unsigned.", "block public access to the bucket")
