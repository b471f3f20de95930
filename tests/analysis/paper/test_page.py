"""`rootnote analysis beside`: the paper's tables and Figure 1 and your results on one page."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from analysis.paper.reference import claims, compare, table2, table3
from analysis.presentation.tables import to_json
from analysis.retrieval.robustness.registry import PERTURBATIONS
from analysis.statistics.agreement import paper_counts, tabulate
from embeddings.errors import RootnoteError
from tests.analysis.retrieval.corpus import call


def cells() -> list[dict[str, object]]:
    """Two embedders at the paper's levels: "near" is found in every range that the paper gives, "far" never."""
    rows = []
    for one in (one for one in PERTURBATIONS.values() if one.in_paper and one.name != "mashup-outside"):
        ranges = [claim for claim in claims() if claim.perturbation == one.name]
        for level in one.levels:
            for name in ("near", "far_%<b>"):
                inside = name == "near" and any(claim.low <= level <= claim.high for claim in ranges)
                rates = {
                    "hit1": 0.9 if inside else 0.1,
                    "hit5": 0.95 if inside else 0.2,
                    "hit10": 1.0 if inside else 0.3,
                }
                ends = {f"hit{k}_{end}": rates[f"hit{k}"] for k in (1, 5, 10) for end in ("low", "high")}
                rows.append(
                    {"embedder": name, "perturbation": one.name, "level": level, "targets": 40, **rates, **ends}
                )
    rows.append({**rows[-1], "perturbation": "gain", "level": 6.0})
    return rows


def found() -> dict[str, object]:
    spread = {"n": 3, "mean": 0.71, "median": 0.7, "sd": None}
    rows = [
        {"threshold": round(0.8 + step / 50, 2), "k": k, "share": share, "low": share / 2 if k == 1 else None,
         "high": (1 + share) / 2 if k == 1 else None}
        for step, share in ((1, 0.2), (0, 0.4)) for k in (1, 10)
    ]  # fmt: skip
    return {"near": {"table2": {"prompt": None, "nearest": spread}, "table3": rows},
            "bare": {"table2": {"prompt": spread, "nearest": spread}, "table3": []}}  # fmt: skip


@pytest.fixture
def given(tmp_path: Path) -> Path:
    counts = paper_counts().query("embedder == 'CLAP'").assign(embedder="near", agreed=lambda rows: rows["n"] // 2)
    texts = {
        "report/table1.json": to_json(tabulate(counts), rehearsed=True),
        "robustness/robustness.json": json.dumps({"cells": cells()}),
        "attribution/attribution.json": json.dumps({"embedders": found()}),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def beside(folder: Path, *names: str) -> Result:
    options = [part for name in names for part in (f"--{name}", folder / name)]
    return call("analysis", "beside", *options, "--out", folder / "paper.html")


def test_all_results_on_one_page(given: Path) -> None:
    done = beside(given, "report", "robustness", "attribution")
    assert done.exit_code == 0, (done.output, done.exception)
    page = (given / "paper.html").read_text(encoding="utf-8")
    for words in (
        "the listeners are simulated", "96.2 [91.8 to 98.6]", "50.0 [41.9 to 58.1]", "the vast majority of the time",
        "far_%&lt;b&gt;", "90 to 90", "Not tested in this study: Mash-up with other music", "0.846", "0.710", "32.01",
        "≥ 0.800", "40.00 [20.0, 70.0]", "bare: no thresholds were given",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert "Gain" not in page


@pytest.mark.parametrize("name", ["report", "robustness", "attribution"])
def test_each_result_alone(given: Path, name: str) -> None:
    assert beside(given, name).exit_code == 0
    page = (given / "paper.html").read_text(encoding="utf-8")
    heads = {"report": ["Table 1"], "robustness": ["Figure 1"], "attribution": ["Table 2", "Table 3"]}
    for other, titles in heads.items():
        assert all((f"<h2>{title}:" in page) == (other == name) for title in titles)


def test_every_claim_is_compared_with_rates_inside_and_outside_its_range() -> None:
    frame = pd.DataFrame(cells()).query("perturbation != 'gain'")
    rows = {(row.claim.perturbation, row.claim.embedder, row.embedder): row for row in compare(frame)}
    assert len(rows) == 2 * (len(claims()) - 2)
    pitch = rows["pitch", "CLAP and CLMR", "near"]
    assert (pitch.within["hit1"], pitch.beyond["hit1"]) == ((0.9, 0.9), (0.1, 0.1))
    assert rows["mashup", "CLAP", "near"].beyond["hit10"] == (0.3, 1.0)
    assert rows["noise", "CLAP and CLMR", "far_%<b>"].within["hit5"] == (0.2, 0.2)


def test_tables_2_and_3_start_with_the_papers_rows() -> None:
    assert [(row.name, row.paper) for row in table2(found())] == [
        ("CLAP", True), ("CLMR", True), ("near", False), ("bare", False),
    ]  # fmt: skip
    paper, own = table3(found())
    assert paper.thresholds == [0.875, 0.895, 0.915, 0.935, 0.955]
    assert [round(100 * share, 2) for share in paper.shares[1]] == [32.01, 19.29, 9.24, 3.17, 0.89]
    assert (own.thresholds, own.shares[1], own.intervals[0]) == ([0.8, 0.82], [0.4, 0.2], (0.2, 0.7))


def test_files_that_cannot_be_compared_are_refused(given: Path) -> None:
    assert beside(given).exit_code == 2
    (given / "robustness" / "robustness.json").write_text('{"cells": []}')
    assert isinstance(beside(given, "robustness").exception, RootnoteError)
    (given / "robustness" / "robustness.json").write_text(json.dumps({"cells": cells()[-1:]}))
    assert "run robustness with --paper" in str(beside(given, "robustness").exception)
    for text in ("{", "[]", '{"embedders": {"m": {}}}'):
        (given / "attribution" / "attribution.json").write_text(text)
        assert isinstance(beside(given, "attribution").exception, RootnoteError)
    assert not (given / "paper.html").exists()
