"""Checks of what listeners reach: the public address with its certificate and headers, and the stimuli."""

from __future__ import annotations

import hashlib
import secrets
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.doctor.check import DoctorContext, Finding
from server.doctor.database import is_private
from server.recruiting.marketplaces.registry import origins_of
from server.web.security_headers import security_headers
from study.leaks import describe_leaks

TIMEOUT = 10.0
WARNING_DAYS, ERROR_DAYS = 21, 7  # of validity left
CLOCK_SECONDS = 5.0
PAGES = {"/take": False, "/desk/sign-in": True, "/no-such-page": False, "/static/player.js": False}  # whether desk
PROXY = "use deploy/Caddyfile or deploy/nginx.conf, which neither add nor remove headers"


def check_address(deployment: DoctorContext) -> Iterator[Finding]:
    """Listeners reach this server over https at ROOTNOTE_PUBLIC_URL, with its own headers."""
    url = deployment.settings.public_url
    if not url.startswith("https://"):
        text = f"ROOTNOTE_PUBLIC_URL is '{url}', which is not https." if url else "ROOTNOTE_PUBLIC_URL is not set."
        yield Finding("error", text, "set it to the address that listeners open, such as https://study.example.org")
        return
    if deployment.settings.trusted_proxies == 0:
        text = "ROOTNOTE_TRUSTED_PROXIES is 0 although https needs a proxy, so all listeners share one rate limit."
        yield Finding("error", text, "set it to the number of proxies in front of the server, usually 1")
    host = str(urlsplit(url).hostname)
    try:
        private = is_private(host)
    except OSError:
        yield Finding("error", f"The host name {host} has no address.", "add it to the DNS")
        return
    if private:
        yield Finding("warning", f"{host} is a private address, which cannot be reached from outside this network.")
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT, verify=ssl.create_default_context()) as client:
            yield from _check_pages(deployment, client)
            yield from _certificate(host, urlsplit(url).port or 443)
    except (httpx.HTTPError, OSError) as error:
        reason = str(error).partition(" (_ssl")[0] or type(error).__name__
        yield Finding(
            "error", f"{url} cannot be reached from here: {reason}.", "check the proxy, the port and the host name"
        )
    if not private and urlsplit(url).port in (None, 443):
        yield from _plain_http(host)


def _check_pages(deployment: DoctorContext, client: httpx.Client) -> Iterator[Finding]:
    ready = client.get("/readyz")
    if ready.text != "ready\n":
        reason = (
            ready.text.strip().splitlines()[0][:80]
            if ready.headers.get("content-type", "").startswith("text/plain")
            else ""
        )
        text = f"{deployment.settings.public_url}/readyz answers {ready.status_code}{': ' + reason if reason else ''}."
        yield Finding("error", text, "check that the server is running and that the proxy forwards to it")
        return
    yield Finding("ok", f"{deployment.settings.public_url} is ready.")
    differing = []
    for path, desk in PAGES.items():
        differing += [f"{name} at {path}" for name in _differing(deployment, client.get(path), desk)]
    if differing:
        yield Finding(
            "error", f"Security headers are missing, changed or duplicated: {', '.join(differing[:4])}.", PROXY
        )
    else:
        yield Finding("ok", f"The security headers arrive unchanged (on {len(PAGES)} kinds of page).")
    if client.get("/metrics").status_code != 404:
        yield Finding("error", "/metrics can be read without the token.", PROXY)
    if any(letter.isdigit() for letter in ready.headers.get("server", "")):
        yield Finding(
            "warning", f"The proxy reveals its version ({ready.headers['server']}).", "for nginx: server_tokens off"
        )
    if "date" in ready.headers:
        skew = parsedate_to_datetime(ready.headers["date"]).timestamp() - time.time()
        if abs(skew) > CLOCK_SECONDS:
            yield Finding(
                "error", f"The server's clock differs from this machine's by {skew:+.0f} s.", "synchronise both clocks"
            )


def _differing(deployment: DoctorContext, reply: httpx.Response, desk: bool) -> list[str]:
    """The names of the security headers that did not arrive exactly once and as the server sends them."""
    origin = None if desk else deployment.storage.origin
    sounds = (origin,) if origin else ()
    expected = security_headers(origins_of(deployment.study.config), desk=desk, secure=True, sounds=sounds)
    return [name for name, value in expected.items() if reply.headers.get_list(name) != [value]]


def _certificate(host: str, port: int) -> Iterator[Finding]:
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        certificate, protocol = wrapped.getpeercert() or {}, wrapped.version()
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    text = f"The certificate is valid for another {counted(round(days), 'day')} ({protocol})."
    if days < WARNING_DAYS:
        yield Finding("error" if days < ERROR_DAYS else "warning", text, "find out why it was not renewed")
    else:
        yield Finding("ok", text)


def _plain_http(host: str) -> Iterator[Finding]:
    """Without encryption, the server only redirects to https."""
    try:
        reply = httpx.get(f"http://{host}/take", timeout=TIMEOUT)
    except httpx.HTTPError:
        yield Finding("ok", f"http://{host} does not answer.")
        return
    if reply.headers.get("location", "").startswith("https://"):
        yield Finding("ok", f"http://{host} redirects to https.")
    else:
        yield Finding("error", f"http://{host} answers {reply.status_code} without encryption.", "redirect it to https")


def check_stimuli(deployment: DoctorContext) -> Iterator[Finding]:
    """Every stimulus is present and unchanged; a bucket serves them to listeners only; the secret key is secret."""
    yield from _blinding(deployment)
    if not deployment.study.config.storage.stimuli:
        yield from _local_stimuli(deployment)
        return
    stimulus = secrets.choice(list(deployment.plan.stimuli.values()))
    deployment.storage.read(stimulus)
    where = deployment.study.config.storage.stimuli
    yield Finding("ok", f"A randomly chosen stimulus in {where} is unchanged.")
    address = deployment.storage.address(stimulus)
    if address is not None:
        yield from _signed(deployment, where, address, stimulus.sha256)


def _blinding(deployment: DoctorContext) -> Iterator[Finding]:
    """Whether listeners could predict the more similar side."""
    key = deployment.study.key
    if deployment.plan.leaks:
        text = f"An earlier version built this study: {describe_leaks(deployment.plan.leaks)}."
        yield Finding("warning", text, "finish it as it is if people have consented")
    elif stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding("warning", f"Other users of this host can read {key}.", f"chmod 600 {key}")


def _local_stimuli(deployment: DoctorContext) -> Iterator[Finding]:
    stimuli = deployment.plan.stimuli.values()
    damaged = [one.file.name for one in stimuli if hashlib.sha256(one.file.read_bytes()).hexdigest() != one.sha256]
    if damaged:
        raise RootnoteError(
            f"{deployment.study.stimuli / damaged[0]} is damaged; run `rootnote study build {deployment.folder}`."
        )
    yield Finding("ok", f"{counted(len(stimuli), 'stimulus', 'stimuli')} present and unchanged.")


def _signed(deployment: DoctorContext, where: str, address: str, sha256: str) -> Iterator[Finding]:
    """Fetch a stimulus as a browser does (signed address, the study's origin), and as a stranger does (unsigned)."""
    origin = deployment.settings.public_url
    try:
        reply = httpx.get(address, headers={"Origin": origin}, timeout=TIMEOUT)
        bare = httpx.get(address.partition("?")[0], timeout=TIMEOUT)
    except httpx.HTTPError as error:
        yield Finding("error", f"{where} cannot be reached at its signed addresses ({type(error).__name__}).")
        return
    if reply.status_code != 200 or hashlib.sha256(reply.content).hexdigest() != sha256:
        yield Finding(
            "error", f"A signed address of {where} answers {reply.status_code}.", "check the region and the clock"
        )
    elif reply.headers.get("access-control-allow-origin") not in ("*", origin):
        fix = f"rootnote study cors --origin {origin or 'https://study.example.org'}"
        yield Finding(
            "error", f"The CORS rules of {where} do not allow pages of {origin or 'the study'} to fetch sounds.", fix
        )
    else:
        yield Finding("ok", "The study's pages can fetch a stimulus at its signed address.")
    if bare.status_code == 200:
        yield Finding(
            "error", f"{where} serves its sounds to anyone, without a signature.", "block public access to the bucket"
        )
