"""The connection to a Ray cluster, without Ray's messages on the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embeddings.errors import ConfigError, MissingPackageError, ResourceError

_REACH_SECONDS = 5
_SILENT = logging.CRITICAL + 1
# Turns off Ray's messages and usage reports, unless the user has set these variables.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster; an existing connection of this process is used as it is."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingPackageError(
            f"--cluster {address}: ray is missing; run `pip install 'rootnote[cluster]'`."
        ) from None
    logging.getLogger("ray").setLevel(_SILENT)
    logging.getLogger("ray.data").setLevel(_SILENT)
    _require_listener(address)
    if ray.is_initialized():
        yield ray
        return
    try:
        with _without_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=_SILENT)
    except Exception as error:
        raise ResourceError(_not_reached(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for more than a minute."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--cluster {address}: give auto, local, HOST:PORT or ray://HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(_not_reached(address, error)) from error


def _not_reached(address: str, error: Exception) -> str:
    if address == "local":
        return f"--cluster local: Ray could not be started here ({first_line(error)})."
    if address == "auto":
        return "--cluster auto: this machine is not part of a Ray cluster; run `ray start`, or use --cluster local."
    return f"--cluster {address}: no Ray cluster was reached there ({first_line(error)}); check the address."


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")[:200]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Hide what native code writes to standard error; errors are still raised as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
