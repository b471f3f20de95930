"""Invalid responses are refused in one sentence, and nothing is written."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.responses.load import read_responses
from tests.commands import run

ROOT = Path(__file__).parents[3]
HEADER = ["embedder", "listener", "prompt", "bin_high", "bin_low", "agreed"]
GOOD = [["logmel", f"l{i}", "7", "1", "2", str(i % 2)] for i in range(20)]


def write(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def report(responses: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return run("analysis", "report", responses, "--out", out)


def without(name: str) -> tuple[list[str], list[list[str]]]:
    at = HEADER.index(name)
    return HEADER[:at] + HEADER[at + 1 :], [row[:at] + row[at + 1 :] for row in GOOD]


def changed(column: str, value: str) -> tuple[list[str], list[list[str]]]:
    rows = [list(row) for row in GOOD]
    rows[4][HEADER.index(column)] = value
    return HEADER, rows


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        (*without("agreed"), "agreed"),
        (*without("bin_low"), "bin_low"),
        (*changed("bin_low", "5"), "row 6"),
        (*changed("bin_high", "2"), "row 6"),
        (*changed("agreed", "yes"), "row 6"),
        (*changed("agreed", ""), "row 6"),
        (*changed("listener", "NA"), "row 6: listener is 'NA'; it must be given"),
        (*changed("prompt", " nan "), "row 6: prompt is 'nan'; it must be given"),
        (HEADER, [*GOOD, GOOD[3]], "rows 5 and 22"),
        (HEADER, [], "no "),
        ([*HEADER, "high_side", "choice"], [[*row, "A", "B"] for row in GOOD], "agreed"),
    ],
)
def test_wrong_responses_are_refused(tmp_path: Path, header: list[str], rows: list[list[str]], words: str) -> None:
    done = report(write(tmp_path / "responses.csv", header, rows), tmp_path / "out")
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "responses.csv" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00bad", b"PAR1" + bytes(30), b"a,b\n1,2,3\n"])
def test_files_that_are_not_tables_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "responses.csv"
    if content is not None:
        path.write_bytes(content)
    done = report(path, tmp_path / "out")
    assert done.returncode == 1
    assert re.fullmatch(r"rootnote: [^\n]+\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    rows = [["<script>alert(1)</script>", *row[1:]] for row in GOOD]
    done = report(write(tmp_path / "responses.csv", HEADER, rows), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "<script>alert" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_only_scored_answers_of_passing_finished_listeners_count(tmp_path: Path) -> None:
    header = [*HEADER, "kind", "passed_prescreen", "completed"]
    rows = [[*row, "scored", "1", "1"] for row in GOOD]
    rows += [["logmel", "x", "8", "1", "2", "1", *flags] for flags in (("catch", "1", "1"), ("scored", "0", "1"))]
    rows += [["logmel", "y", "9", "1", "2", "1", "scored", "1", "0"]]
    done = report(write(tmp_path / "responses.csv", header, rows), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "table1.csv").read_text().splitlines()
    (line,) = (row for row in csv.DictReader(table) if (row["bin_high"], row["bin_low"]) == ("1", "2"))
    assert (line["agreed"], line["n"]) == ("10", "20")


@pytest.mark.slow
def test_the_ten_lines_of_the_documentation(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "CLAP 1 2 96.2 % n = 156" in done.stdout
    assert "CLMR 3 4 80.7 % n = 140" in done.stdout


@pytest.mark.parametrize("column", ["trial", "clip_high", "assignment", "answered_at"])
def test_every_spelling_of_a_missing_text_is_read(tmp_path: Path, column: str) -> None:
    frames = []
    for number, blank in enumerate(["", "NA", "NaN", "null"]):
        rows = [[*row, f"x{index}" if index < 10 else blank] for index, row in enumerate(GOOD)]
        read = read_responses(write(tmp_path / f"{number}.csv", [*HEADER, column], rows))
        frames.append(read.everything.astype(str))
    assert all(frame.equals(frames[0]) for frame in frames)
    assert set(frames[0][column]) == {"", *(f"x{index}" for index in range(10))}
