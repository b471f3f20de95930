"""The report: every part, from responses with all columns and from responses with almost none."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from analysis.cli import cli
from analysis.responses.simulated import is_simulated
from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import assign_paper
from study.export_manifest import write_manifest


def full(seed: int = 3) -> pd.DataFrame:
    """Two embedders, the paper's schedule, catch and repeat trials, sides, times, and some failed prescreens."""
    rng = np.random.default_rng(seed)
    rows = []
    for embedder, centres in (("CLAP", (0.95, 0.88, 0.81, 0.51)), ("CLMR", (0.87, 0.78, 0.69, 0.15))):
        for number, trials in enumerate(np.array(assign_paper(15, 90, 10, rng))):
            plan = [("scored", *trial) for trial in trials]
            plan += [("catch", *trials[0]), ("repeat", *trials[1])]
            for position, (kind, prompt, pair) in enumerate(plan, start=1):
                high, low = BIN_PAIRS[pair]
                one, two = (centres[number - 1] + rng.uniform(-0.02, 0.02) for number in (high, low))
                agreed = int(rng.random() < 0.5 + 0.48 * (1 - np.exp(-((one - two) / 0.1))))
                side = "AB"[rng.integers(2)]
                rows.append(
                    {
                        "study": "Rehearsed", "embedder": embedder, "assignment": f"{embedder}{number}",
                        "listener": f"{embedder}{number}", "trial": f"{embedder}{number}-{position}",
                        "position": position, "kind": kind, "prompt": f"p{prompt}", "bin_high": high, "bin_low": low,
                        "clip_high": f"{embedder}-{prompt}-{high}", "clip_low": f"{embedder}-{prompt}-{low}",
                        "similarity_high": round(one, 4), "similarity_low": round(two, 4), "high_side": side,
                        "choice": side if agreed else "BA"["AB".index(side)], "agreed": agreed,
                        "response_ms": int(rng.lognormal(9, 0.3)), "passed_prescreen": int(number % 20 > 0),
                        "completed": 1, "answered_at": "2026-11-10T12:00:00Z",
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def run(frame: pd.DataFrame, folder: Path, *options: str) -> Result:
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "responses.csv", index=False)
    return CliRunner().invoke(
        cli, ["report", str(folder / "responses.csv"), "--out", str(folder / "out"), *options], catch_exceptions=True
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    result = run(full(), folder, "--compare", "paper")
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.mark.slow
def test_every_section_is_there_and_the_page_stands_alone(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in (
        "Table 1", "Comparison of embedders", "other listeners and other music", "How far apart must two clips be",
        "listeners’ own scale", "Reliability and bias", "Comparison with other studies", "Participant flow", "Methods",
        "Provenance",
        "Krippendorff’s alpha is", "Side A was chosen", "Consistency of listeners",
        "Primary test: two-way test", "The paper’s analysis", "bin pairs that enclose others", "within listeners",
    ):  # fmt: skip
        assert words in page, words
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "<script" not in page
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_page_leads_with_the_claims_and_the_terminal_says_the_same(tmp_path: Path) -> None:
    result = run(one_embedder(), tmp_path)
    assert result.exit_code == 0, result.output
    page = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    printed = " ".join(result.output.split())
    for text in numbers["claims"]:
        assert text in page
        assert " ".join(text.split()) in printed
    assert "exploratory" in numbers["claims"][-1]
    assert page.index(numbers["claims"][0]) < page.index("Table 1. How often") < page.index("The paper’s analysis")
    found = numbers["primary_test"]["embedders"]["CLAP"]
    table = json.loads((tmp_path / "out" / "table1.json").read_text(encoding="utf-8"))["CLAP"]["pairs"]
    cells = re.findall(r'<td class="cell".*?</td>', page)
    starred = [bool(re.search(r"<sup>\*", cell)) for cell in cells]
    order = ("1-2", "1-3", "1-4", "2-3", "2-4", "3-4")
    assert starred == [found[pair]["p_holm"] < 0.05 for pair in order], "stars are of the primary test"
    assert any((found[pair]["p_holm"] < 0.05) != (table[pair]["p_holm"] < 0.05) for pair in order) or all(starred)
    model = numbers["mixed"]["CLAP"]
    assert set(model["pairs"]) == set(order)
    assert all(pair["error"] > 0 for pair in model["pairs"].values())
    assert model["log_likelihood"] < 0
    assert {"sd_listener", "sd_prompt", "sd_triplet"} <= set(model)
    assert set(numbers["dependence"]["CLAP"]) == {*order, "1, total", "2, total", "all"}


def test_the_methods_have_their_numbers(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    methods = page[page.index("<h2>Methods</h2>") :]
    for words in ("170 listeners", "15 prompts", "90 triplets", "gave 10 scored answers", "seed 2", "statsmodels 0"):
        assert words in methods, words


def test_all_numbers_are_there_as_json_and_csv(out: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in numbers.json")

    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert set(numbers["dependence"]) == {"CLAP", "CLMR"}
    cell = numbers["dependence"]["CLAP"]["1-4"]
    with (out / "dependence.csv").open(encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if (row["embedder"], row["bins"]) == ("CLAP", "1-4"))
    assert float(row["ci_low"]) == pytest.approx(cell["ci_low"])
    assert cell["ci_low"] < numbers["table1"]["CLAP"]["pairs"]["1-4"]["rate"] < cell["ci_high"]
    assert [curve["embedder"] for curve in numbers["psychometric"]] == ["CLAP", "CLMR"]
    assert numbers["beside"][0]["table1"]["CLMR"]["pairs"]["3-4"]["agreed"] == 113
    assert len(numbers["responses_sha256"]) == 64
    assert numbers["seed"] > 0
    assert "scipy" in numbers["versions"]
    names = {path.name for path in out.iterdir()}
    assert {"items.csv", "scale.csv", "curves.csv", "curve_points.csv", "ladder.csv", "beside.csv"} <= names


@pytest.mark.slow
def test_figures_are_svg_and_pdf_and_the_same_twice(out: Path, tmp_path: Path) -> None:
    names = {path.name for path in (out / "figures").iterdir()}
    for name in ("table1", "forest-1-CLAP", "forest-2-CLMR", "curves", "curves-z"):
        assert {f"{name}.svg", f"{name}.pdf"} <= names
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (out / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")
    again = run(full(), tmp_path, "--compare", "paper")
    assert again.exit_code == 0, again.output
    for path in sorted(out.rglob("*.*")):
        assert (tmp_path / "out" / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


def one_embedder() -> pd.DataFrame:
    frame = full()
    return frame[frame["embedder"] == "CLAP"]


NEEDED = ["embedder", "listener", "prompt", "bin_high", "bin_low", "agreed"]
# Three listeners who cannot disagree on bins 1 and 2, since one alone heard them: a singular matrix in the GEE.
LONE = [
    ("m", "a", "p", 1, 3, 0), ("m", "b", "p", 1, 4, 1), ("m", "b", "q", 1, 3, 1), ("m", "b", "r", 1, 3, 1),
    ("m", "c", "p", 1, 2, 1), ("m", "c", "q", 1, 2, 0),
]  # fmt: skip
ODD: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "needed columns only": (lambda: one_embedder().query("kind == 'scored'")[NEEDED], "does not say which to exclude"),
    "perfect agreement": (lambda: one_embedder().assign(agreed=1)[[*NEEDED, "trial", "kind"]], "answers are the same"),
    "one listener": (lambda: one_embedder().query("assignment == 'CLAP1'"), "only one listener"),
    "a bin pair of one listener": (
        lambda: pd.DataFrame(LONE, columns=NEEDED),
        "only one listener answered: bins 1–2",
    ),
    "one prompt": (lambda: one_embedder().query("prompt == 'p1'"), "only one prompt"),
    "empty cells": (lambda: one_embedder().query("bin_low == 2"), "There are no responses for bin pairs"),
    "one answer": (lambda: one_embedder().query("assignment == 'CLAP1'").head(1), "does not generalise to others"),
    "separable": (
        lambda: one_embedder().assign(agreed=lambda f: (f["prompt"] < "p3") * 1)[[*NEEDED, "trial", "kind"]],
        "separate the answers",
    ),
    "unknown columns": (lambda: one_embedder().assign(mood="good"), "does not know were ignored: &#39;mood&#39;"),
    "mixed studies": (
        lambda: one_embedder().assign(study=lambda f: np.where(f["position"] < 5, "one", "two")),
        "2 studies are pooled: one, two",
    ),
    "no similarity": (lambda: one_embedder().assign(similarity_high="", similarity_low=""), "order of the bins"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_unusual_responses_give_a_report(tmp_path: Path, kind: str, recwarn: pytest.WarningsRecorder) -> None:
    make, words = ODD[kind]
    result = run(make(), tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert words in page
    assert "Warning" not in result.output
    assert not [warning for warning in recwarn if "experimental" not in str(warning.message)]
    text = (tmp_path / "out" / "numbers.json").read_text(encoding="utf-8")
    assert not re.search(r"\b(NaN|Infinity)\b", text)
    for cells in json.loads(text)["dependence"].values():
        for cell in cells.values():
            assert 0 <= cell["ci_low"] < cell["ci_high"] <= 1


def test_a_rehearsal_is_marked_in_every_file(out: Path, tmp_path: Path) -> None:
    responses = tmp_path / "responses.csv"
    frame = pd.DataFrame(LONE, columns=NEEDED)
    frame.to_csv(responses, index=False)
    write_manifest(tmp_path, "S", "", "", [responses], {}, rehearsal=True)
    result = run(frame, tmp_path)
    assert result.exit_code == 0, result.output
    text = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.*")}
    assert "the listeners are simulated" in result.output
    assert "Simulated listeners.</strong> These responses come from a rehearsal" in text["report.html"]
    assert "3 simulated listeners heard a prompt" in text["report.html"]
    for name in ("table1.tex", "table1.md"):
        assert "The listeners were simulated" in text[name]
    assert json.loads(text["table1.json"])["m"]["rehearsed"] is True
    assert json.loads(text["numbers.json"])["rehearsed"] is True
    for path in out.glob("*.*"):
        assert "imulated" not in path.read_text(encoding="utf-8"), path
    assert json.loads((out / "numbers.json").read_text(encoding="utf-8"))["rehearsed"] is False


def test_an_export_in_the_rehearsal_folder_counts_as_a_rehearsal(tmp_path: Path) -> None:
    (tmp_path / "rehearsal").mkdir()
    assert not is_simulated(tmp_path / "rehearsal" / "responses.csv")
    (tmp_path / "study.toml").touch()
    assert is_simulated(tmp_path / "rehearsal" / "responses.csv")
    assert not is_simulated(tmp_path / "responses.csv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "does not exist"),
        ("counts.csv", "embedder,bin_high,bin_low,agreed,n\nm,1,2,9,8\n", "row 2"),
        ("counts.csv", "embedder,bin_high,bin_low,agreed,n\nm,1,7,1,8\n", "not a pair of bins"),
        ("counts.csv", "embedder,bin_high,bin_low,agreed,n\nm,1,2,1,8\nm,1,2,1,8\n", "twice"),
        ("counts.csv", "embedder,bin_high,bin_low,agreed,n\n", "no counts"),
        ("other.csv", "a,b\n1,2\n", "lacks the column"),
    ],
)
def test_a_study_that_cannot_be_compared_is_refused(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    result = run(one_embedder(), tmp_path, "--compare", str(tmp_path / name))
    assert result.exit_code == 1
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_reports_own_table_can_be_compared(out: Path, tmp_path: Path) -> None:
    result = run(one_embedder(), tmp_path, "--compare", str(out / "table1.csv"))
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    (beside,) = numbers["beside"]
    assert all(row["difference"] == 0 for row in beside["contrasts"][0]["rows"].values())
