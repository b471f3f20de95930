"""One recruiting command at a time for each study."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, text

from embeddings.errors import RootnoteError

LOCK_NUMBER = 0x726F6F74  # "root"
BUSY = (
    "another `rootnote server open`, `sync`, `approve`, `pay` or `close` of this study is running; wait until it ends."
)


@contextlib.contextmanager
def exclusive(engine: Engine) -> Iterator[None]:
    """Hold the study's lock; a program that dies releases it.

    Raises:
        RootnoteError: if another program holds it.
    """
    if engine.dialect.name == "sqlite":
        with Path(f"{engine.url.database}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RootnoteError(BUSY) from None
            yield
        return
    with engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": LOCK_NUMBER}):
            raise RootnoteError(BUSY)
        connection.commit()  # the lock belongs to the connection, not to the transaction
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": LOCK_NUMBER})
