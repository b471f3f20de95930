"""The command line as a whole: instant help, suggestions, completion, exit codes, one sentence for an error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import rootnote as entry
from embeddings.version import VERSION
from tests.commands import run

ROOT = Path(__file__).parent.parent
# Libraries that take a tenth of a second or more to import, or import others that do. NumPy (a tenth) is allowed.
HEAVY = {
    "alembic", "boto3", "cryptography", "faiss", "flask", "httpx", "jinja2", "librosa", "matplotlib", "numba", "pandas",
    "pyarrow", "pydantic", "ray", "rich", "scipy", "sklearn", "soundfile", "sqlalchemy", "statsmodels", "torch",
}  # fmt: skip
GROUPS = ("demo", "embeddings", "study", "server", "analysis")
HELP_CPU_SECONDS = 0.4
# Runs each command of a group with --help and reports which heavy libraries were imported so far.
WALK = """
import contextlib, io, json, sys
import click, rootnote
def walk(command, words, parent):
    context = click.Context(command, parent=parent, info_name=words[-1] if words else "rootnote")
    yield words
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), [*words, name], context)
group, heavy = sys.argv[1], set(json.loads(sys.argv[2]))
root = click.Context(rootnote.cli, info_name="rootnote")
for words in walk(rootnote.cli.get_command(root, group), [group], root):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            rootnote.main([*words, "--help"])
        except SystemExit as end:
            status = end.code
    print(json.dumps([words, status, shown.getvalue(), sorted(heavy & set(sys.modules))]))
"""


def rootnote(*args: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootnote", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=60,
    )


def commands(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """All commands as words, groups included."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None
            yield from commands(member, *words, name)


def test_the_version_is_the_package_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project.get("version", VERSION) == VERSION
    assert run("--version").stdout.split()[-1] == VERSION


def test_help_imports_no_group() -> None:
    heavy = HEAVY | {"study", "server", "analysis", "demo", "numpy"}
    code = (
        "import sys, rootnote\n"
        "try: rootnote.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    for group in GROUPS:
        assert f"\n  {group} " in done.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_no_help_imports_a_heavy_library(group: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WALK, group, json.dumps(sorted(HEAVY))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        words, status, shown, imported = json.loads(line)
        assert status == 0, words
        assert shown.startswith(f"Usage: rootnote {' '.join(words)}"), words
        assert len(shown.splitlines()) > 5, words
        assert imported == [], f"{' '.join(words)} --help imports {imported}"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("embeddings", "search", "--help"),
        ("study", "check", "--frobnicate"),
        ("server", "pay", "--help"),
        ("server", "exprot"),
        ("analysis", "report", "--help"),
        ("analysis", "power", "--help"),
        ("analysis", "replication", "--help"),
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_come_at_once(words: tuple[str, ...]) -> None:
    assert cpu_seconds("-m", "rootnote", *words) - cpu_seconds("-c", "pass") <= HELP_CPU_SECONDS


def cpu_seconds(*args: str) -> float:
    """CPU time of a Python process, user and system: the least of three, since caches and neighbours add to it."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", code, *args]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["studdy"], "study"),
        (["study", "bild"], "build"),
        (["server", "exprot"], "export"),
        (["server", "user", "ad"], "add"),
        (["analysis", "robustnes"], "robustness"),
        (["embeddings", "serch"], "search"),
        (["study", "check", "--jsn"], "--json"),
        (["server", "export", "--rehersal"], "--rehearsal"),
        (["--debg"], "--debug"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(words: list[str], meant: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert re.search(rf"Did you mean (one of: .*)?'?{meant}\b", done.stderr), done.stderr


def test_a_word_that_resembles_none_gets_no_suggestion() -> None:
    done = run("server", "zzzzzz")
    assert done.returncode == 2
    assert "No such command 'zzzzzz'." in done.stderr
    assert "Did you mean" not in done.stderr


def test_wrong_usage_exits_2() -> None:
    assert rootnote("studdy").returncode == 2
    assert rootnote("study", "build", "--frobnicate").returncode == 2


def test_commands_of_the_server_stand_under_headings() -> None:
    shown = run("server", "--help").stdout
    headings = re.findall(r"^(\w+):$", shown, flags=re.MULTILINE)
    assert headings == ["Options", "Launch", "Money", "Data", "Privacy", "Maintenance"]
    assert shown.index("Money:") < shown.index("\n  pay ") < shown.index("Data:") < shown.index("\n  export ")


def complete(shell: str, typed: str) -> list[str]:
    """What the shell is offered for the last word of `typed`, as `_ROOTNOTE_COMPLETE` prints it."""
    words = typed.split(" ")
    last = words[-1] if shell == "fish" else str(len(words) - 1)
    done = rootnote(_ROOTNOTE_COMPLETE=f"{shell}_complete", COMP_WORDS=typed, COMP_CWORD=last)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if shell == "zsh":
        return lines[1::3]  # kind, word, help
    return [line.split("\t")[0].partition(",")[2] for line in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert complete(shell, "rootnote s") == ["study", "server"]
    assert complete(shell, "rootnote server re") == ["rehearse", "restore"]
    assert complete(shell, "rootnote server user re") == ["remove", "reset-factor"]
    assert complete(shell, "rootnote study ir") == ["irb"]
    assert "--rehearsal" in complete(shell, "rootnote server export --")


def test_completing_commands_imports_none_of_them() -> None:
    code = (
        "import sys, rootnote\n"
        "try: rootnote.main([])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('server.')), file=sys.stderr)"
    )
    environment = {"_ROOTNOTE_COMPLETE": "bash_complete", "COMP_WORDS": "rootnote server ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.stderr.strip() == "['server.cli']"
    assert "plain,export" in done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed_as_documented(shell: str) -> None:
    assert f"_ROOTNOTE_COMPLETE={shell}_source" in (ROOT / "docs/completion.md").read_text(encoding="utf-8")
    done = rootnote(_ROOTNOTE_COMPLETE=f"{shell}_source")
    assert done.returncode == 0, done.stderr
    assert f"_ROOTNOTE_COMPLETE={shell}_complete" in done.stdout


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['numpy'] = None; import rootnote; rootnote.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "embeddings", "cut", str(tmp_path), "--out", "x"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "'numpy'" in done.stderr
    assert "pip install 'rootnote[embeddings]'" in done.stderr


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


def test_every_command_is_listed_once() -> None:
    found = [words for words in commands(entry.cli) if words]
    assert len(found) == len(set(found))
    assert {("study", "irb"), ("server", "open"), ("analysis", "power"), ("server", "vault", "rotate")} <= set(found)
