"""Run `rootnote` in this process, with the streams and exit status that a process of its own would have."""

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
    """Run `rootnote` with these words.

    Args:
        environment: variables to set in addition to this process's own.
    """
    args = [str(word) for word in words]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status: object = 0
    with (
        mock.patch.dict(os.environ, environment or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            rootnote.main(args)
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    stdout, stderr = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(["rootnote", *args], status, stdout, stderr)


def refusal(*words: str | Path) -> str:
    """Run a command that must exit 1 with one sentence; the sentence."""
    done = run(*words)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rootnote: ")
    return lines[0]
