"""Agreement between listeners and a similarity measure.

A response agrees when the listener chose the clip of the more similar bin.
Conventions: counts are integers, rates lie in [0, 1], chance is 0.5; a bin pair is written "1-2" with the
more similar bin first; a cell without responses has no rate, interval or p (None), and is no test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations

import pandas as pd
from scipy.stats import binomtest

from analysis.responses import BINS

CHANCE = 0.5
BIN_PAIRS: tuple[tuple[int, int], ...] = tuple(combinations(BINS, 2))


@dataclass(frozen=True)
class BinomialTest:
    """Agreement of one cell: rate, exact 95 % interval and exact two-sided p against chance."""

    agreed: int
    n: int
    rate: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True)
class Cell:
    """One bin pair: the counts, and the test with its Holm-corrected p where there is anything to test."""

    agreed: int
    n: int
    test: BinomialTest | None = None
    p_holm: float | None = None

    @property
    def rate(self) -> float | None:
        return self.agreed / self.n if self.n else None


@dataclass(frozen=True)
class EmbedderTable:
    """Table 1 for one embedder: a cell per bin pair and a total per row (bins 1, 2 and 3)."""

    embedder: str
    pairs: Mapping[tuple[int, int], Cell]
    totals: Mapping[int, Cell]

    @property
    def overall(self) -> Cell:
        return _pool(list(self.pairs.values()))


Table1 = dict[str, EmbedderTable]


def exact_binomial(agreed: int, n: int, chance: float = CHANCE) -> BinomialTest:
    """Test agreement against chance exactly (two-sided; Clopper-Pearson 95 % interval).

    The p-value sums the probabilities of all outcomes no likelier than the one observed. The interval is
    that of Clopper and Pearson (Biometrika 26, 1934): it reaches 0 or 1 where none or all agreed.

    Raises:
        ValueError: unless 0 <= agreed <= n and n > 0.
    """
    if not (n > 0 and 0 <= agreed <= n):
        raise ValueError(f"0 <= agreed <= n and n > 0 are needed, not agreed={agreed}, n={n}")
    result = binomtest(int(agreed), int(n), chance)
    interval = result.proportion_ci(0.95, method="exact")
    return BinomialTest(
        int(agreed), int(n), agreed / n, float(interval.low), float(interval.high), float(result.pvalue)
    )


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in the order given.

    The i-th smallest of m p-values is multiplied by m - i + 1, kept monotone and capped at 1.
    """
    corrected = [0.0] * len(pvalues)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        highest = max(highest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        corrected[index] = highest
    return corrected


def count_responses(frame: pd.DataFrame) -> pd.DataFrame:
    """Count responses per embedder and bin pair: columns embedder, bin_high, bin_low, agreed, n."""
    grouped = frame.groupby(["embedder", "bin_high", "bin_low"], observed=True)["agreed"]
    return grouped.agg(agreed="sum", n="count").reset_index()


def table1(frame: pd.DataFrame) -> Table1:
    """Table 1 of the responses in `frame` (columns embedder, bin_high, bin_low, agreed), by embedder.

    Holm's correction is over the bin pairs of one embedder that have responses: six in a whole study.
    """
    return tabulate(count_responses(frame))


def tabulate(counts: pd.DataFrame) -> Table1:
    """Table 1 of counts (columns embedder, bin_high, bin_low, agreed, n; one row per bin pair)."""
    found: dict[str, dict[tuple[int, int], Cell]] = {}
    for embedder, high, low, agreed, n in counts[["embedder", "bin_high", "bin_low", "agreed", "n"]].itertuples(
        index=False, name=None
    ):
        found.setdefault(str(embedder), {})[int(high), int(low)] = Cell(int(agreed), int(n))
    names = sorted(found, key=lambda name: (name.casefold(), name))
    return {name: _tabulate_one(name, found[name]) for name in names}


def _tabulate_one(embedder: str, counts: Mapping[tuple[int, int], Cell]) -> EmbedderTable:
    cells = {pair: counts.get(pair, Cell(0, 0)) for pair in BIN_PAIRS}
    tests = {pair: exact_binomial(cell.agreed, cell.n) for pair, cell in cells.items() if cell.n}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    pairs = {pair: Cell(c.agreed, c.n, tests.get(pair), corrected.get(pair)) for pair, c in cells.items()}
    totals = {high: _pool([cell for pair, cell in pairs.items() if pair[0] == high]) for high in BINS[:-1]}
    return EmbedderTable(embedder, pairs, totals)


def _pool(cells: Sequence[Cell]) -> Cell:
    return Cell(sum(cell.agreed for cell in cells), sum(cell.n for cell in cells))


def paper_counts() -> pd.DataFrame:
    """Table 1 of *Exploring Musical Roots* as counts: columns embedder, bin_high, bin_low, agreed, n.

    The paper prints percentages and n; each has exactly one whole count.
    """
    with files("analysis").joinpath("reference/paper_table1.csv").open(encoding="utf-8") as handle:
        return pd.read_csv(handle)
