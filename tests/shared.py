"""Folders that take long to make, made once for all test processes of a run."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make `folder` unless another process of this run has; the others wait for it. Tests must not change it."""
    ready = folder.with_suffix(".ready")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder
