"""Nothing on the way to listeners compresses a sound or a page: the compressed size would reveal what is in it.

The proxies run with the files under deploy/, in front of the deployed server.
"""

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
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from server.db import database
from tests.deploy.https import make_certificate
from tests.deploy.proxies import shakes_hands
from tests.server.real_server import RealServer, real_server
from tests.server.small_study import make_study

DEPLOY = Path(__file__).parents[2] / "deploy"
ACCEPTED = {"Accept-Encoding": "gzip, deflate, br, zstd"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    """gunicorn with a study that has no prescreen."""
    study = make_study(tmp_path / "study", listeners=1, toml='[prescreen]\nkind = "none"\n')
    url = f"sqlite:///{tmp_path / 'answers.sqlite3'}"
    engine = database.connect(make_url(url))
    database.migrate(engine)
    engine.dispose()
    more = {"ROOTNOTE_PUBLIC_URL": "https://localhost", "ROOTNOTE_TRUSTED_PROXIES": "1"}
    with real_server(study.folder, url, tmp_path / "log", workers=1, more=more) as running:
        yield running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def nginx(server: RealServer, folder: Path, site: str) -> Iterator[httpx.Client]:
    certificate, port = make_certificate(folder, 60), free_port()
    site = re.sub(r"/etc/letsencrypt/\S+/(fullchain|privkey).pem", str(certificate), site)
    site = site.replace("/var/log/nginx/rootnote.log", str(folder / "error.log"))
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("study.example.org", "localhost")
    site = site.replace("listen 443 ", f"listen 127.0.0.1:{port} ")
    site = site.replace("listen 80", f"listen 127.0.0.1:{free_port()}")
    site = re.sub(r"^\s*listen \[::\]:.*\n", "", site, flags=re.MULTILINE)
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    # Debian switches compression on for all sites; here it is for everything.
    usual = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;"
    main = f"daemon off; pid {folder}/pid; error_log stderr; events {{}} "
    (folder / "nginx.conf").write_text(f"{main}http {{ {usual} {temporary} include {folder}/site.conf; }}")
    with running(["nginx", "-c", str(folder / "nginx.conf")], port, certificate) as client:
        yield client


@contextlib.contextmanager
def caddy(server: RealServer, folder: Path, site: str) -> Iterator[httpx.Client]:
    port, root = free_port(), folder / "data/caddy/pki/authorities/local/root.crt"
    alone = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n"
    (folder / "Caddyfile").write_text(site.replace("{\n", alone, 1))
    environment = {
        "ROOTNOTE_HOST": f"localhost:{port}",
        "ROOTNOTE_UPSTREAM": f"127.0.0.1:{server.port}",
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with running(command, port, root, environment) as client:
        yield client


@contextlib.contextmanager
def running(
    command: list[str], port: int, certificate: Path, environment: dict[str, str] | None = None
) -> Iterator[httpx.Client]:
    """A proxy, and a client that reaches it and trusts its certificate."""
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}, stderr=subprocess.DEVNULL) as proxy:
        try:
            end = time.monotonic() + 30
            while not shakes_hands(port, certificate):
                assert proxy.poll() is None and time.monotonic() < end, "the proxy does not start"
                time.sleep(0.1)
            trusted = ssl.create_default_context(cafile=str(certificate))
            with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, headers=ACCEPTED) as client:
                yield client
        finally:
            proxy.terminate()


def replies(client: httpx.Client) -> dict[str, httpx.Response]:
    """The pages and sounds on a listener's way to the first trial."""
    consent = client.get("/take")
    fields = dict(re.findall(r'name="(entry|lang)" value="([^"]+)"', consent.text))
    arrived = client.post("/take", data=fields)
    address = arrived.headers["Location"]
    client.post(f"{address}/instructions")
    trial = client.get(address)
    sounds = re.findall(r'<audio data-clip="(\w)"[^>]* src="([^"]+)"', trial.text)
    found = {"consent": consent, "trial": trial, "volume": client.get("/audio/volume")}
    return found | {clip: client.get(sound) for clip, sound in sounds}


def compressed(found: dict[str, httpx.Response]) -> list[str]:
    assert [found[clip].content[:4] for clip in "XAB"] == [b"RIFF"] * 3
    return [name for name, reply in found.items() if "Content-Encoding" in reply.headers]


Proxy = Callable[[RealServer, Path, str], AbstractContextManager[httpx.Client]]
PROXIES = {"nginx": (nginx, "nginx.conf", "gzip off;", ""), "caddy": (caddy, "Caddyfile", "encode /static/*", "encode")}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROXIES)
def test_no_proxy_compresses_a_sound_or_a_page(program: str, server: RealServer, tmp_path: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    start, file, line, without = PROXIES[program]
    site = (DEPLOY / file).read_text()
    with start(server, tmp_path, site) as client:
        found = replies(client)
        assert compressed(found) == []
        assert len({found[clip].headers["Content-Length"] for clip in "XAB"}) == 1
    # Without that line it would.
    assert line in site
    with start(server, tmp_path, site.replace(line, without)) as client:
        assert client.get("/take").headers.get("Content-Encoding") is not None


@pytest.mark.slow
def test_the_server_itself_compresses_nothing(server: RealServer) -> None:
    with httpx.Client(base_url=server.url, headers=ACCEPTED) as client:
        assert compressed(replies(client)) == []
