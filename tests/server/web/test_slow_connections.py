"""Half-sent requests cost nobody a thread: listeners' answers and /healthz come as if there were none."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import make_url

from server.db import database
from server.web.buffering_worker import _Incoming
from tests.deploy.proxies import INSTALLED, PROXIES, wait_for
from tests.scale import count, is_soak
from tests.server.real_server import RealServer, real_server
from tests.server.small_study import make_study

SLOW = count(150, 1000)
THREADS = 16  # fewer than there are half-sent requests
ANSWERS = 40
HALVES = (
    b"",
    b"GET /take HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    b"POST /a/anything/trial HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nchoice=",
    b"POST /take HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nentry\r\n",
    b"POST /take HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
)
# Whole, and never closed by the client.
UNCLOSED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def half_sent(port: int, number: int) -> Iterator[list[socket.socket]]:
    """That many connections that have sent a part of a request, or nothing."""
    with contextlib.ExitStack() as stack:
        found = []
        for index in range(number):
            found.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
            found[-1].sendall((*HALVES, UNCLOSED)[index % (len(HALVES) + 1)])
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    study = make_study(tmp_path / "study", listeners=2, trials=3)
    url = f"sqlite:///{tmp_path / 'answers.sqlite3'}"
    engine = database.connect(make_url(url))
    database.migrate(engine)
    engine.dispose()
    with real_server(study.folder, url, tmp_path / "log", workers=1, threads=THREADS) as found:
        yield found


def answer_times(base: str, verify: ssl.SSLContext | bool = True) -> list[float]:
    """How long requests of one client take: health checks, pages and forms."""
    seconds = []
    with httpx.Client(base_url=base, timeout=10, headers={"Host": "localhost"}, verify=verify) as client:
        for number in range(ANSWERS):
            path, expected = (("/healthz", 200), ("/take", 200), ("/a/nobody/trial", 404))[number % 3]
            began = time.monotonic()
            reply = client.post(path, data={"position": "1"}) if expected == 404 else client.get(path)
            seconds.append(time.monotonic() - began)
            assert reply.status_code == expected, reply.text
    return seconds


def require_quick(base: str) -> None:
    seconds = answer_times(base)
    assert float(np.percentile(seconds, 95)) < 0.5, sorted(seconds)[-5:]


@pytest.mark.slow
def test_half_sent_requests_keep_nobody_waiting(server: RealServer) -> None:
    with half_sent(server.port, SLOW):
        require_quick(server.url)
    assert server.stop() == 0


@pytest.mark.slow
def test_large_requests_are_refused_before_they_are_received(server: RealServer) -> None:
    heads = {
        b"POST /take HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n": b"HTTP/1.1 413 ",
        b"GET /take HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 70_000: b"HTTP/1.1 431 ",
    }
    for head, expected in heads.items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(expected)


@pytest.mark.slow
def test_a_request_that_comes_in_pieces_is_answered(server: RealServer) -> None:
    """Byte by byte, two in a row on one connection, and in chunks."""
    whole = b"POST /a/nobody/trial HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nposition=1"
    chunked = whole.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    chunked = chunked.replace(b"position=1", b"4\r\nposi\r\n6\r\ntion=1\r\n0\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for request in (whole, whole + whole, chunked):
            for index in range(0, len(request), 7):
                connection.sendall(request[index : index + 7])
            expected, received = request.count(b"HTTP/1.1"), b""
            while received.count(b"HTTP/1.1 404") < expected or not received.rstrip().endswith(b"</html>"):
                received += connection.recv(65536)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_half_sent_requests_behind_a_proxy(name: str, server: RealServer, tmp_path: Path) -> None:
    """The proxy and the server behind it are both attacked; the proxy ends what stays half sent."""
    with PROXIES[name](server.port, tmp_path) as proxy, contextlib.ExitStack() as stack:
        context = ssl.create_default_context(cafile=str(proxy.certificate))
        wait_for(proxy.port, proxy.process)
        slow = [stack.enter_context(secure_half(proxy.port, context, index)) for index in range(SLOW // 3)]
        stack.enter_context(half_sent(server.port, SLOW))
        seconds = answer_times(f"https://localhost:{proxy.port}", verify=context)
        assert float(np.percentile(seconds, 95)) < 0.5, sorted(seconds)[-5:]
        if is_soak():
            time.sleep(16)
            assert all(has_ended(one) for one in slow)


def secure_half(port: int, context: ssl.SSLContext, index: int) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    found = context.wrap_socket(plain, server_hostname="localhost")
    found.sendall(HALVES[1 + index % 3])
    return found


def has_ended(connection: ssl.SSLSocket) -> bool:
    connection.settimeout(2)
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                if not connection.recv(4096):
                    return True
            except TimeoutError:
                return False
    return True


@pytest.mark.parametrize(
    "body, complete",
    [
        (b"", False),
        (b"4\r\nposi\r\n", False),
        (b"7\r\n0\r\n\r\nab", False),  # looks like the end, within a chunk
        (b"7\r\n0\r\n\r\nab\r\n0\r\n\r\n", True),
        (b"4;x=1\r\nposi\r\n0\r\n\r\nGET / HTTP/1.1\r\n", True),  # and the next request
        (b"0\r\nTrailer: x\r\n", False),
        (b"0\r\nTrailer: x\r\n\r\n", True),
        (b"nonsense\r\n", True),  # gunicorn refuses it
        (b"1" * 300, True),
    ],
)
def test_the_end_of_a_chunked_request(body: bytes, complete: bool) -> None:
    head = b"POST /take HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = _Incoming(b"", 0.0)
    seen = []
    for byte in head + body:
        found.data.append(byte)
        seen.append(found.is_complete)
    assert seen[-1] is complete
    assert not any(seen[: len(head)])
