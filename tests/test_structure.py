"""The structure that ARCHITECTURE.md promises, as far as import-linter does not check it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("embeddings", "study", "server", "analysis", "demo", "migrations")
MAX_LINES = 450
CLICK_HOMES = re.compile(r"^server/(commands/\w+|\w+/cli|cli)\.py$")


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_no_public_class_name_exists_twice() -> None:
    homes = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_server_has_few_flat_modules() -> None:
    assert len(list((ROOT / "server").glob("*.py"))) <= 8


def test_commands_of_the_server_are_where_commands_belong() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "server").rglob("*.py")
        if re.search(r"^@(click|\w+)\.(command|group)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert [name for name in found if not CLICK_HOMES.match(name)] == []


def test_every_file_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)+[\w.]*)`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / name).exists() and not name.startswith("build/")]
    assert [name for name in missing if name not in ("report/",)] == []
