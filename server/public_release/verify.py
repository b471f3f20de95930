"""The check of a release: Table 1 from the bundle alone must equal Table 1 from the study's own data.

The server never imports the analysis, so `rootnote analysis report` makes both reports in separate processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from embeddings.errors import RootnoteError

TABLES = ("table1.csv", "table1.md")
UNCHECKED = "or skip the comparison with --unchecked"


def require_same_table(bundle: Path, own: Path, study: Path, scratch: Path) -> Path:
    """Make the reports of the bundle and of the study's own export in `own`; return the folder of the first.

    Raises:
        RootnoteError: if a report cannot be made, Table 1 differs, or the data don't match their export.json.
    """
    out = scratch / "report"
    running = [
        _begin(bundle / "responses.csv", "--out", out),
        _begin(own / "responses.csv", "--out", scratch / "own-report", "--study", study),
    ]
    try:
        published, true = [_read(process) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    if published["table1"] != true["table1"]:
        raise RootnoteError(
            "Table 1 of the bundle differs from Table 1 of the study's own data, so nothing was published; compare "
            "the exclusion rules in study.toml with those of the frozen plan."
        )
    if not (published["plan"] or {}).get("as_exported"):
        raise RootnoteError(
            "the bundle's responses.csv doesn't match its export.json, so nothing was published; run the command again."
        )
    return out


def _begin(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rootnote", "analysis", "report", *map(str, words), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, problem = process.communicate()
    if process.returncode:
        lines = problem.strip().splitlines() or ["it gave no reason"]
        reason = lines[-1].removeprefix("rootnote: ").removeprefix("Error: ").rstrip(".")
        raise RootnoteError(f"the report cannot be made from the bundle ({reason}); fix this, {UNCHECKED}.")
    found: dict[str, Any] = json.loads(output)
    return found
