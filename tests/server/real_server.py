"""A real server: gunicorn in processes of its own, with the configuration that is deployed."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.server.conftest import SECRET

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "gunicorn.conf.py"


@dataclass
class RealServer:
    """gunicorn at a port that stays the same when it is killed and started again."""

    study: Path
    database_url: str
    log: IO[str]
    workers: int = 2
    threads: int = 512
    more: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", self.port))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, preexec: object = None) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ROOTNOTE_STUDY": str(self.study),
            "ROOTNOTE_SECRET": SECRET,
            "ROOTNOTE_DATABASE_URL": self.database_url,
            "ROOTNOTE_REQUESTS_PER_SECOND": "0",  # all requests come from one address
            "ROOTNOTE_BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": str(self.workers),
            "ROOTNOTE_THREADS": str(self.threads),
            **self.more,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", str(CONFIG)],
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # its own process group, which is killed as a whole
            preexec_fn=preexec,  # type: ignore[call-overload]
        )
        self.wait()

    def wait(self, seconds: float = 30) -> None:
        """Wait until it answers."""
        end = time.monotonic() + seconds
        while self.status() is None:
            assert self.process is not None
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    def status(self, path: str = "/healthz") -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def kill(self) -> None:
        """Send SIGKILL to all its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """Send SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(timeout=20)
        self.process = None
        return status


@contextlib.contextmanager
def real_server(study: Path, database_url: str, log: Path, **options: object) -> Iterator[RealServer]:
    """Start a server, and kill it at the end."""
    with log.open("w+") as file:
        server = RealServer(study, database_url, file, **options)  # type: ignore[arg-type]
        try:
            server.start()
            yield server
        finally:
            server.kill()
