"""The check: the report made again from a bundle alone, and its Table 1 held against that of the study's own data.

The server never imports the analysis; both reports are made by `rootnote analysis report` in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from embeddings.errors import RootnoteError

TABLES = ("table1.csv", "table1.md")
INSTEAD = "or give --unchecked and make the report where rootnote[analysis] is installed"


def require_same_table(bundle: Path, own: Path, study: Path, scratch: Path) -> Path:
    """Make the report of the bundle and that of the study's own export in `own`; the folder of the bundle's report.

    Raises:
        RootnoteError: where one cannot be made, Table 1 differs anywhere, or the file is not as export.json has it.
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
            "Table 1 of the bundle is not that of the study's own data, so nothing was published; compare the rules of "
            "exclusion in study.toml with those of the frozen plan."
        )
    if not (published["plan"] or {}).get("as_exported"):
        raise RootnoteError("the bundle's responses.csv is not as its export.json says, so nothing was published.")
    return out


def _begin(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rootnote", "analysis", "report", *map(str, words), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, problem = process.communicate()
    if process.returncode:
        lines = problem.strip().splitlines() or ["it said nothing"]
        reason = lines[-1].removeprefix("rootnote: ").removeprefix("Error: ").rstrip(".")
        raise RootnoteError(f"the report could not be made again ({reason}); mend that, {INSTEAD}.")
    found: dict[str, Any] = json.loads(said)
    return found
