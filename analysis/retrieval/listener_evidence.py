"""Listener evidence: how often clips of each bin were judged more similar than clips of less similar bins.

It comes from the `table1.json` of the study's report, and is shown with similarities that fall into those bins.
Conventions: rates lie in [0, 1] and are shares of trials, with Clopper and Pearson's 95 % interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.presentation.formatting import count
from analysis.statistics.agreement import exact_binomial
from analysis.statistics.bins import Bins
from embeddings.errors import RootnoteError
from study.design.bin_pairs import BINS


@dataclass(frozen=True)
class BinEvidence:
    """How often clips of bin `number` were chosen over those of bin `other` (None: of all less similar bins)."""

    number: int
    other: int | None
    agreed: int
    n: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """The judgements of a study's listeners on one embedder's bins; `rehearsed`: the listeners were simulated."""

    embedder: str
    judgements: tuple[BinEvidence, ...]
    rehearsed: bool = False

    def of(self, number: int) -> tuple[BinEvidence, ...]:
        """The judgements on one bin: against each less similar bin, then against all of them."""
        return tuple(one for one in self.judgements if one.number == number)


def read_evidence(path: Path) -> dict[str, Evidence]:
    """Read `table1.json`, which `analysis report` wrote, by embedder.

    Raises:
        RootnoteError: if it cannot be read or has no Table 1.
    """
    wrong = RootnoteError(f"{path} is not a table1.json that `rootnote analysis report` wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise wrong from error
    if not isinstance(content, dict) or not all(isinstance(one, dict) and "totals" in one for one in content.values()):
        raise wrong
    try:
        return {name: _evidence(name, own) for name, own in content.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wrong from error


def _evidence(name: str, own: Mapping[str, Any]) -> Evidence:
    found = []
    for number in BINS[:-1]:
        cells = [(other, own.get("pairs", {}).get(f"{number}-{other}")) for other in BINS if other > number]
        for other, cell in (*cells, (None, own["totals"].get(str(number)))):
            if cell and cell["n"]:
                test = exact_binomial(int(cell["agreed"]), int(cell["n"]))
                found.append(BinEvidence(number, other, test.agreed, test.n, test.rate, test.ci_low, test.ci_high))
    return Evidence(name, tuple(found), bool(own.get("rehearsed", False)))


def in_words(evidence: Evidence | None, number: int = 1) -> str | None:
    """The judgements on a bin as a clause; None if there are none."""
    judgements = evidence.of(number) if evidence else ()
    total = next((one for one in judgements if one.other is None), None)
    if evidence is None or total is None:
        return None
    each = [f"than bin {one.other} in {100 * one.rate:.0f} %" for one in judgements if one.other is not None]
    who = "simulated listeners" if evidence.rehearsed else "listeners"
    return (
        f"{who} judged clips of bin {number} more similar to the prompt than clips of less similar bins in "
        f"{100 * total.rate:.1f} % of {count(total.n, 'trial')}" + (f" ({', '.join(each)})" if len(each) > 1 else "")
    )


def describe(similarity: float, bins: Bins | None, evidence: Evidence | None) -> str | None:
    """The judgements on the most similar bin that a similarity reaches, as a clause; None if there are none.

    A similarity reaches a bin if it is not below the bin. No listener heard clips above bin 1; there, the judgements
    on bin 1 are a lower bound only if agreement keeps rising with similarity.
    """
    if bins is None or evidence is None:
        return None
    reached = next((number for number in BINS if similarity >= bins.centres[number] - bins.half_width), None)
    judgements = [one for one in evidence.of(reached) if one.other is not None] if reached else []
    if reached is None or not judgements:
        return None
    listed = ", ".join(f"bin {one.other} in {100 * one.rate:.0f} %" for one in judgements)
    inside = similarity <= bins.centres[reached] + bins.half_width
    who = "by simulated listeners " if evidence.rehearsed else ""
    place = f"bin {reached}, judged" if inside else f"above bin {reached}, which was judged"
    return f"{place} {who}more similar than {listed} of trials"


def as_data(evidence: Evidence | None) -> Sequence[Mapping[str, Any]]:
    """Rows of plain data."""
    return [
        {"bin": one.number, "than_bin": one.other, "agreed": one.agreed, "n": one.n, "rate": one.rate, "low": one.low,
         "high": one.high}
        for one in (evidence.judgements if evidence else ())
    ]  # fmt: skip
