"""Append-only files outside the database, which several processes write: the journal of erasures, the witness."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def append(path: Path, lines: bytes, *, sync: bool) -> None:
    """Append complete lines to a file that only its owner can read; an incomplete last line is removed first.

    Args:
        sync: whether to wait until the lines are on the disk.

    Raises:
        OSError: if the file cannot be written; then nothing was added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        _inherit_owner(number, path)
        complete = _remove_partial_line(number)
        if os.write(number, lines) != len(lines):
            os.ftruncate(number, complete)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fsync(number)
    finally:
        os.close(number)


def _remove_partial_line(number: int) -> int:
    """Remove an incomplete last line, which was never confirmed; returns the remaining size in bytes."""
    size = os.fstat(number).st_size
    if size == 0 or os.pread(number, 1, size - 1) == b"\n":
        return size
    complete = os.pread(number, size, 0).rfind(b"\n") + 1
    os.ftruncate(number, complete)
    return complete


def _inherit_owner(number: int, path: Path) -> None:
    """Give a file that root creates to the owner of its folder, so that the server can still write it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(number, owner.st_uid, owner.st_gid)
