"""What a program can check of docs/style.md, over every tracked text file."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AVOIDED = (
    "is no folder", "anew", "to be mended", "whom we", "nobody is let in", "takes a break", "have it no more",
    "not yet through", "paid to you apart", "hand in your work", "to mend", "Mend:", "Telling of a hole",
    "What stays with people", "are no one's", "Answers lie in", "seems to say nothing", "beside approvals",
    "listeners stand where", "did not work out", "until there", "says anything of people",
)  # fmt: skip
PLURAL_AFTER_ONE = r"(?<![\d.,–-])1 (people|tracks|listeners|answers|places|responses|generations)"
EXEMPT = ("CHANGELOG.md", "docs/style.md", "tests/test_style.py")
TEXT = {
    ".py",
    ".md",
    ".html",
    ".j2",
    ".js",
    ".css",
    ".toml",
    ".po",
    ".yaml",
    ".yml",
    ".txt",
    ".sh",
    ".service",
    ".conf",
}


def text_files() -> list[str]:
    """The tracked text files, relative to the root; none where the code is not in a git checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = [name for name in listed.splitlines() if (ROOT / name).is_file() and not name.startswith("tests/fixtures/")]
    return [name for name in found if Path(name).suffix in TEXT or "." not in Path(name).name]


@functools.cache
def texts() -> dict[str, str]:
    """The text files that the rules apply to, by name."""
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in text_files() if name not in EXEMPT}


def lines_with(pattern: str) -> list[str]:
    """Every line that matches, as file:line: text."""
    found = []
    for name, text in texts().items():
        for match in re.finditer(pattern, text):
            number = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{number}: {text.splitlines()[number - 1].strip()[:100]}")
    return found


def test_the_files_are_found() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert len(text_files()) > 300


@pytest.mark.parametrize("phrase", AVOIDED)
def test_no_archaic_phrase(phrase: str) -> None:
    assert lines_with(rf"(?<!\w){re.escape(phrase)}(?!\w)") == []


def test_no_plural_after_one() -> None:
    assert lines_with(PLURAL_AFTER_ONE + r"\b") == []


@pytest.mark.parametrize("text", ["There is 1 people.", "1 tracks, 3 clips", "(1 listeners)"])
def test_a_plural_after_one_is_recognised(text: str) -> None:
    assert re.search(PLURAL_AFTER_ONE, text)


@pytest.mark.parametrize("text", ["11 people", "bins 1–1 answers", "0.1 places", "1 track"])
def test_other_numbers_are_not(text: str) -> None:
    assert not re.search(PLURAL_AFTER_ONE, text)
