"""The server of a rehearsal: a child process on an empty rehearsal database, which ends with the rehearsal."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO

from embeddings.errors import RootnoteError
from server.db import database
from server.settings import read_settings
from study.config import Study

RESERVATION_SECONDS = 6.0  # so that the places of those who vanish become free within the rehearsal
LINK = "/take"


@contextlib.contextmanager
def own_server(study: Study, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server in a child process on a free port, on an empty rehearsal database; yields its address.

    Args:
        variables: its environment (default: that of this process).

    Raises:
        RootnoteError: if it does not start, with its own message.
    """
    # No real people are involved, so a secret that ends with the rehearsal is good enough.
    environment = {"ROOTNOTE_RESERVATION_MINUTES": str(RESERVATION_SECONDS / 60), **(variables or os.environ)}
    if not environment.get("ROOTNOTE_SECRET"):
        environment["ROOTNOTE_SECRET"] = secrets.token_hex(32)
    settings = read_settings(study, environment, rehearsal=True)
    engine = database.connect(settings.database)
    database.recreate(engine)
    engine.dispose()
    command = [
        sys.executable,
        "-m",
        "rootnote",
        "server",
        "run",
        str(study.folder),
        "--rehearsal",
        "--port",
        "0",
    ]
    with tempfile.TemporaryFile("w+") as errors, _ending_on_sigterm():
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        reading: threading.Thread | None = None
        try:
            assert child.stdout is not None
            address = read_address(child.stdout)
            if address is None:
                child.wait(timeout=10)
                errors.seek(0)
                lines = errors.read().strip().splitlines()
                raise RootnoteError(lines[-1].removeprefix("rootnote: ") if lines else "the server did not start.")
            reading = threading.Thread(target=child.stdout.read, daemon=True)
            reading.start()  # a full pipe would stop the server
            yield address
        finally:
            stop(child)
            if reading is not None:
                reading.join()
            assert child.stdout is not None
            child.stdout.close()


def read_address(stdout: IO[str]) -> str | None:
    """The address in the line with the link; None if the server ends without one."""
    for line in stdout:
        word = line.split()[-1] if line.strip() else ""
        if word.startswith("http") and word.endswith(LINK):
            return word.removesuffix(LINK)
    return None


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Make SIGTERM unwind the stack as Ctrl-C does, so that the child is stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop(child: subprocess.Popen[str]) -> None:
    """Terminate a process, or kill it if it does not end within five seconds."""
    child.terminate()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
