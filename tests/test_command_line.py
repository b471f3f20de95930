"""The command line as a whole: help at once, exit codes, one sentence for an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run


def rootnote(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootnote", *args], capture_output=True, text=True, cwd=cwd, timeout=60
    )


def test_help_imports_no_group() -> None:
    heavy = "{'embeddings','study','server','analysis','demo','numpy','flask','faiss','pandas'}"
    code = (
        "import sys, rootnote\n"
        "try: rootnote.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    for group in ("demo", "embeddings", "study", "server", "analysis"):
        assert f"\n  {group} " in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "demo", "embeddings", "embeddings cut", "embeddings embed", "embeddings fetch",
        "embeddings duplicates", "embeddings search", "study", "study init", "study build",
        "study check", "study irb", "server", "server migrate", "server run", "server rehearse", "server export",
        "server anonymize", "server status", "analysis", "analysis report",
    ],
)  # fmt: skip
def test_every_command_explains_itself(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: rootnote")
    assert len(done.stdout.splitlines()) > 5


def test_wrong_usage_exits_2() -> None:
    assert rootnote("studdy").returncode == 2
    assert rootnote("study", "build", "--frobnicate").returncode == 2


def test_impossible_work_exits_1_with_one_sentence(tmp_path: Path) -> None:
    done = rootnote("study", "build", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith("rootnote: ")
    assert "study.toml" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = rootnote("--debug", "study", "build", str(tmp_path / "nowhere"))
    assert done.returncode != 0
    assert "Traceback" in done.stderr
