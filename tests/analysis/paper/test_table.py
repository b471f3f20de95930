"""The paper's Table 1 from its published counts, through the command, to the printed digit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tests.commands import run

# Table 1 as printed: rate in % and n, pairs 1-2 1-3 1-4 2-3 2-4 3-4, then the totals of rows 1, 2 and 3.
PAIRS = ("1-2", "1-3", "1-4", "2-3", "2-4", "3-4")
PRINTED = {
    "CLAP": "96.2 156 98.0 150 98.1 162 73.3 135 93.6 141 81.5 178 97.4 468 83.7 276 81.5 178",
    "CLMR": "90.7 150 91.0 156 98.5 135 71.6 155 93.6 157 80.7 140 93.2 441 82.7 312 80.7 140",
}
COUNTS = {
    "CLAP": [(150, 156), (147, 150), (159, 162), (99, 135), (132, 141), (145, 178)],
    "CLMR": [(136, 150), (142, 156), (133, 135), (111, 155), (147, 157), (113, 140)],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on responses with the paper's counts and only the required columns."""
    folder = tmp_path_factory.mktemp("paper")
    with (folder / "responses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["embedder", "listener", "prompt", "bin_high", "bin_low", "agreed"])
        for embedder, counts in COUNTS.items():
            for pair, (agreed, n) in zip(PAIRS, counts, strict=True):
                for i in range(n):
                    writer.writerow([embedder, f"{embedder}{i % 90}", i // 12, *pair.split("-"), int(i < agreed)])
    done = run("analysis", "report", folder / "responses.csv", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.parametrize("embedder", ["CLAP", "CLMR"])
def test_every_printed_cell_and_total(report: Path, embedder: str) -> None:
    found = json.loads((report / "table1.json").read_text())[embedder]
    cells = [found["pairs"][pair] for pair in PAIRS] + [found["totals"][row] for row in ("1", "2", "3")]
    shown = " ".join(f"{100 * cell['rate']:.1f} {cell['n']}" for cell in cells)
    assert shown == PRINTED[embedder]
    for name in ("table1.md", "table1.tex", "report.html"):
        text = (report / name).read_text(encoding="utf-8")
        for rate in PRINTED[embedder].split()[::2]:
            assert rate in text, f"{rate} is not in {name}"


@pytest.mark.parametrize("embedder", ["CLAP", "CLMR"])
def test_tests_and_intervals_equal_scipy_and_statsmodels(report: Path, embedder: str) -> None:
    pairs = json.loads((report / "table1.json").read_text())[embedder]["pairs"]
    expected = [binomtest(agreed, n, 0.5) for agreed, n in COUNTS[embedder]]
    holm = multipletests([test.pvalue for test in expected], method="holm")[1]
    for pair, (agreed, n), test, corrected in zip(PAIRS, COUNTS[embedder], expected, holm, strict=True):
        low, high = proportion_confint(agreed, n, method="beta")
        cell = pairs[pair]
        assert (cell["agreed"], cell["n"]) == (agreed, n)
        assert cell["p"] == test.pvalue
        assert cell["p_holm"] == pytest.approx(corrected, rel=1e-12)
        assert (cell["ci_low"], cell["ci_high"]) == pytest.approx((low, high), abs=1e-12)
