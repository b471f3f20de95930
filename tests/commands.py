"""`rootnote` in this process: the entry point, streams and exit status of a process of its own, without its start."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import rootnote


def run(*words: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What a process of `rootnote` with these words would have come to.

    Args:
        environment: beside this process's own.
    """
    args = [str(word) for word in words]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status: object = 0
    around = mock.patch.dict(os.environ, environment or {})
    with around, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            rootnote.main(args)
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(["rootnote", *args], status, said, complained)


def refusal(*words: str | Path) -> str:
    """The one sentence with which a command exits 1."""
    done = run(*words)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rootnote: ")
    return lines[0]
