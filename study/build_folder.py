"""The build folder: one build at a time writes to it, and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from embeddings.errors import ResourceError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the build folder, so that only one build writes to it.

    Raises:
        ResourceError: if another build is running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"another build is running in {folder}; wait until it finishes.") from None
        _sweep(folder)
        yield


def _sweep(folder: Path) -> None:
    """Remove what a killed build left half-written: every hidden file except the lock."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)
