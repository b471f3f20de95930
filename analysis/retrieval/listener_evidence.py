"""What listeners heard: for each bin how often its clips were called more similar than those of less similar bins.

It comes from the `table1.json` of the study's report, and stands beside similarities that fall into those bins.
Conventions: rates lie in [0, 1] and are shares of trials, with Clopper and Pearson's 95 % interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.statistics.agreement import exact_binomial
from analysis.statistics.bins import Bins
from embeddings.errors import RootnoteError
from study.design.bin_pairs import BINS


@dataclass(frozen=True)
class Heard:
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
    """All that a study's listeners said of one embedder's bins; `rehearsed`: the listeners were simulated."""

    embedder: str
    heard: tuple[Heard, ...]
    rehearsed: bool = False

    def of(self, number: int) -> tuple[Heard, ...]:
        """What was heard of one bin, against each less similar bin and then against all."""
        return tuple(one for one in self.heard if one.number == number)


def read_evidence(path: Path) -> dict[str, Evidence]:
    """Read `table1.json`, which `analysis report` wrote, by embedder.

    Raises:
        RootnoteError: where it cannot be read or holds no Table 1.
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
                found.append(Heard(number, other, test.agreed, test.n, test.rate, test.ci_low, test.ci_high))
    return Evidence(name, tuple(found), bool(own.get("rehearsed", False)))


def in_words(evidence: Evidence | None, number: int = 1) -> str | None:
    """What was heard of a bin in a phrase, None where nothing was."""
    heard = evidence.of(number) if evidence else ()
    total = next((one for one in heard if one.other is None), None)
    if evidence is None or total is None:
        return None
    each = [f"than bin {one.other} in {100 * one.rate:.0f} %" for one in heard if one.other is not None]
    who = "simulated listeners heard clips" if evidence.rehearsed else "listeners heard clips"
    return (
        f"{who} of bin {number} as more similar to the prompt than clips of less similar bins in "
        f"{100 * total.rate:.1f} % of {total.n:,} trials" + (f" ({', '.join(each)})" if len(each) > 1 else "")
    )


def beside(similarity: float, bins: Bins | None, evidence: Evidence | None) -> str | None:
    """What listeners say of a similarity: of the most similar bin that it reaches; None where nothing is known.

    A similarity reaches a bin where it is not below it; above bin 1 no listener was asked, so that of bin 1 holds "at
    least" only if agreement goes on rising.
    """
    if bins is None or evidence is None:
        return None
    reached = next((number for number in BINS if similarity >= bins.centres[number] - bins.half_width), None)
    heard = [one for one in evidence.of(reached) if one.other is not None] if reached else []
    if reached is None or not heard:
        return None
    listed = ", ".join(f"bin {one.other} in {100 * one.rate:.0f} %" for one in heard)
    inside = similarity <= bins.centres[reached] + bins.half_width
    who = "by simulated listeners " if evidence.rehearsed else ""
    start = f"bin {reached}" if inside else f"beyond bin {reached}, which was"
    return f"{start}{',' if inside else ''} heard {who}as more similar than {listed} of trials"


def as_data(evidence: Evidence | None) -> Sequence[Mapping[str, Any]]:
    """Rows of plain data."""
    return [
        {"bin": one.number, "than_bin": one.other, "agreed": one.agreed, "n": one.n, "rate": one.rate, "low": one.low,
         "high": one.high}
        for one in (evidence.heard if evidence else ())
    ]  # fmt: skip
