"""The paper's findings and your own: Table 1, the shapes of Figure 1, Tables 2 and 3.

Your results are read from the output of the commands: `table1.json` of `report`, `robustness.json`, `attribution.json`.
The paper prints Figure 1 without numbers; `reference/paper_figure1.csv` has what its text says about each curve: the
levels at which an embedder consistently returned the target.
Conventions: rates in [0, 1]; steps of Table 3 count from the centre of bin 1, 0.02 each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.retrieval.attribution.tables import paper_table2, paper_table3
from analysis.retrieval.robustness.registry import PERTURBATIONS
from analysis.statistics.agreement import Table1, paper_counts, tabulate
from embeddings.errors import RootnoteError

RATES = ("hit1", "hit5", "hit10")


@dataclass(frozen=True)
class OwnResults:
    """Own results to compare with the paper; None for those that were not given."""

    table1: Table1 | None
    rehearsed: bool
    robustness: pd.DataFrame | None
    attribution: Mapping[str, Any] | None


@dataclass(frozen=True)
class Claim:
    """What the paper says about one curve of Figure 1: target consistently returned from `low` to `high`; the quote."""

    perturbation: str
    embedder: str
    low: float
    high: float
    words: str


def claims() -> list[Claim]:
    """All statements about Figure 1 in Section 5.1 of the paper."""
    with files("analysis").joinpath("reference/paper_figure1.csv").open(encoding="utf-8") as handle:
        rows = pd.read_csv(handle).itertuples(index=False, name=None)
        return [Claim(str(name), str(by), float(low), float(high), str(words)) for name, by, low, high, words in rows]


def read_own_results(report: Path | None, robustness: Path | None, attribution: Path | None) -> OwnResults:
    """Read own results; each is a folder that a command wrote, or the JSON file in it.

    Raises:
        RootnoteError: if a file is missing or was not written by the command.
    """
    table1 = _read(report, "table1.json", "report")
    cells = _read(robustness, "robustness.json", "robustness")
    found = _read(attribution, "attribution.json", "attribution")
    try:
        own = OwnResults(
            _table1(table1) if table1 else None,
            bool(table1) and any(own.get("rehearsed", False) for own in table1.values()),
            _cells(cells) if cells else None,
            found["embedders"] if found else None,
        )
        # Find missing fields now, not in the middle of the page.
        if own.attribution:
            table2(own.attribution), table3(own.attribution)
        if own.robustness is not None:
            compare(own.robustness)
        return own
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RootnoteError(
            f"a file to compare lacks a field or has a wrong value ({error}); run the command that wrote it again."
        ) from error


def _read(path: Path | None, name: str, command: str) -> dict[str, Any]:
    if path is None:
        return {}
    file = path / name if path.is_dir() else path
    wrong = f"{file} is not a {name} that `rootnote analysis {command}` wrote."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RootnoteError(wrong) from error
    if not isinstance(content, dict) or not content:
        raise RootnoteError(wrong)
    return content


def _table1(content: Mapping[str, Any]) -> Table1:
    rows = [
        (name, *pair.split("-"), cell["agreed"], cell["n"])
        for name, own in content.items()
        for pair, cell in own["pairs"].items()
    ]
    return tabulate(pd.DataFrame(rows, columns=["embedder", "bin_high", "bin_low", "agreed", "n"]))


def _cells(content: Mapping[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(content["cells"])
    paper = {name for name, one in PERTURBATIONS.items() if one.in_paper}
    frame = frame[frame["perturbation"].isin(paper)]
    if frame.empty:
        raise RootnoteError("robustness.json has none of the paper's perturbations; run robustness with --paper.")
    return frame.reset_index(drop=True)


def paper_table1() -> Table1:
    """The paper's Table 1."""
    return tabulate(paper_counts())


@dataclass(frozen=True)
class ClaimComparison:
    """A claim, and an own embedder's lowest and highest hit rates within the claimed levels and at other levels."""

    claim: Claim
    embedder: str
    within: Mapping[str, tuple[float, float]] | None
    beyond: Mapping[str, tuple[float, float]] | None


def compare(cells: pd.DataFrame) -> list[ClaimComparison]:
    """Every claim of the paper with each of your embedders."""
    found = []
    for claim in claims():
        for embedder in cells["embedder"].unique():
            own = cells[(cells["perturbation"] == claim.perturbation) & (cells["embedder"] == embedder)]
            inside = own["level"].between(claim.low - 1e-9, claim.high + 1e-9)
            if len(own):
                found.append(ClaimComparison(claim, str(embedder), _span(own[inside]), _span(own[~inside])))
    return found


def _span(rows: pd.DataFrame) -> dict[str, tuple[float, float]] | None:
    if rows.empty:
        return None
    return {name: (float(rows[name].min()), float(rows[name].max())) for name in RATES}


@dataclass(frozen=True)
class PublishedDistribution:
    """A row of Table 2: embedder, source, and mean, median and standard deviation for prompt and nearest clip."""

    name: str
    paper: bool
    prompt: Mapping[str, float] | None
    nearest: Mapping[str, float] | None


def table2(attribution: Mapping[str, Any]) -> list[PublishedDistribution]:
    """Table 2, the paper's rows first."""
    paper = paper_table2()
    rows = []
    for name in paper["embedder"].unique():
        own = {row["with"]: row for row in paper[paper["embedder"] == name].to_dict(orient="records")}
        rows.append(PublishedDistribution(str(name), True, own["prompt"], own["nearest"]))
    return rows + [PublishedDistribution(name, False, **own["table2"]) for name, own in attribution.items()]


@dataclass(frozen=True)
class OwnValue:
    """Table 3 of one embedder: thresholds from the lowest up, and shares for k = 1 and 10 with k = 1's interval."""

    name: str
    paper: bool
    thresholds: Sequence[float]
    shares: Mapping[int, Sequence[float]]
    intervals: Sequence[tuple[float, float]] | None


def table3(attribution: Mapping[str, Any]) -> list[OwnValue]:
    """Table 3, the paper's rows first; embedders without thresholds are left out."""
    paper = paper_table3().sort_values("threshold")
    rows = [_reached("CLMR", True, paper.to_dict(orient="records"))]
    return rows + [_reached(name, False, own["table3"]) for name, own in attribution.items() if own["table3"]]


def _reached(name: str, paper: bool, rows: Sequence[Mapping[Any, Any]]) -> OwnValue:
    ordered = sorted(rows, key=lambda row: row["threshold"])
    one = [row for row in ordered if row["k"] == 1]
    return OwnValue(
        name,
        paper,
        [float(row["threshold"]) for row in one],
        {k: [float(row["share"]) for row in ordered if row["k"] == k] for k in (1, 10)},
        None if paper else [(float(row["low"]), float(row["high"])) for row in one],
    )
