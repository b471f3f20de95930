"""The sample sites of deploy/ for nginx and Caddy, run in front of a server on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.https import make_certificate

DEPLOY = Path(__file__).parents[2] / "deploy"


@dataclass
class RunningProxy:
    """A proxy at https://localhost:`port`; `plain_port` is its http, where it has one."""

    process: subprocess.Popen[bytes]
    port: int
    certificate: Path
    plain_port: int | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens at a port."""
    end = time.monotonic() + 20
    while True:
        assert process.poll() is None, "the proxy ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, "the proxy does not answer"
            time.sleep(0.1)


@contextlib.contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[RunningProxy]:
    certificate, port, plain = make_certificate(folder, 60), free_port(), free_port()
    site = (DEPLOY / "nginx.conf").read_text()
    site = re.sub(r"/etc/letsencrypt/\S+/(fullchain|privkey).pem", str(certificate), site)
    site = site.replace("/var/log/nginx/rootnote.log", str(folder / "error.log"))
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}").replace("study.example.org", "localhost")
    site = re.sub(r"^\s*listen \[::\]:.*\n", "", site, flags=re.MULTILINE)
    site = site.replace("listen 443 ", f"listen 127.0.0.1:{port} ").replace("listen 80", f"listen 127.0.0.1:{plain}")
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = f"daemon off; pid {folder}/pid; error_log stderr; events {{ worker_connections 4096; }} "
    (folder / "nginx.conf").write_text(f"{main}http {{ {temporary} include {folder}/site.conf; }}")
    with subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL) as process:
        try:
            yield RunningProxy(process, port, certificate, plain)
        finally:
            process.terminate()


def shakes_hands(port: int, root: Path) -> bool:
    """Whether a TLS connection can be made."""
    try:
        context = ssl.create_default_context(cafile=str(root))
        with socket.create_connection(("127.0.0.1", port), timeout=1) as plain:
            context.wrap_socket(plain, server_hostname="localhost").close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def caddy(upstream: int, folder: Path) -> Iterator[RunningProxy]:
    # Caddy makes a certificate for localhost by itself, as it gets one for a public name.
    port, alone = free_port(), "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n"
    (folder / "Caddyfile").write_text((DEPLOY / "Caddyfile").read_text().replace("{\n", alone, 1))
    environment = {
        **os.environ,
        "ROOTNOTE_HOST": f"localhost:{port}",
        "ROOTNOTE_UPSTREAM": f"127.0.0.1:{upstream}",
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    root = folder / "data/caddy/pki/authorities/local/root.crt"
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not shakes_hands(port, root) and time.monotonic() < end:  # its certificate comes after the root's
                time.sleep(0.1)
            yield RunningProxy(process, port, root)
        finally:
            process.terminate()


PROXIES: dict[str, Callable[[int, Path], AbstractContextManager[RunningProxy]]] = {"nginx": nginx, "caddy": caddy}
INSTALLED = [
    pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed"))
    for name in PROXIES
]
