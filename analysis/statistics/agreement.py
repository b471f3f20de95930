"""Agreement between listeners and a similarity measure.

A response agrees when the listener chose the clip of the more similar bin.
Conventions: counts are integers, rates are in [0, 1], chance is 0.5; a bin pair is written "1-2" with the more similar
bin first; a cell without responses has no rate, interval or p (None) and does not count as a test. This module treats
answers as independent; `analysis.statistics.glmm` does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import pandas as pd
from scipy.stats import binomtest

from analysis.statistics.multiple_testing import benjamini_hochberg, holm
from study.design.bin_pairs import BIN_PAIRS, BINS

CHANCE = 0.5
Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True)
class BinomialTest:
    """Agreement of one cell: rate, exact and Wilson 95 % intervals, and exact p against chance.

    `ci_low` and `ci_high` are Clopper and Pearson's; both intervals are two-sided whatever `alternative` is.
    """

    agreed: int
    n: int
    rate: float
    ci_low: float
    ci_high: float
    p: float
    wilson_low: float
    wilson_high: float
    alternative: Alternative = "two-sided"


@dataclass(frozen=True)
class Cell:
    """Counts; if there are responses, the exact test; for a bin pair also its corrected p-values.

    `p_primary` is the corrected p-value of the primary test, None if that is the exact test of these counts.
    """

    agreed: int
    n: int
    test: BinomialTest | None = None
    p_holm: float | None = None
    p_bh: float | None = None
    p_primary: float | None = None

    @property
    def p_decisive(self) -> float | None:
        """The corrected p-value that decides what is significant."""
        return self.p_holm if self.p_primary is None else self.p_primary

    @property
    def rate(self) -> float | None:
        return self.agreed / self.n if self.n else None


@dataclass(frozen=True)
class EmbedderTable:
    """Table 1 for one embedder: a cell per bin pair, a total per row (bins 1, 2 and 3) and a total of all trials."""

    embedder: str
    pairs: Mapping[tuple[int, int], Cell]
    totals: Mapping[int, Cell]
    overall: Cell
    primary: str = "exact_holm"


Table1 = dict[str, EmbedderTable]


# The sensitivity analysis tests the same counts many times.
@lru_cache(maxsize=4096)
def exact_binomial(agreed: int, n: int, chance: float = CHANCE, alternative: Alternative = "two-sided") -> BinomialTest:
    """Test agreement against chance exactly, with Clopper and Pearson's and Wilson's 95 % intervals.

    The two-sided p-value sums the probabilities of all outcomes that are at most as likely as the observed one;
    "greater" tests only for more agreement than chance. Clopper and Pearson's interval (Biometrika 26, 1934) covers at
    least 95 % and reaches 0 or 1 if none or all agreed; Wilson's (JASA 22, 1927) covers 95 % on average and is shorter.

    Raises:
        ValueError: unless 0 <= agreed <= n and n > 0.
    """
    if not (n > 0 and 0 <= agreed <= n):
        raise ValueError(f"0 <= agreed <= n and n > 0 are required, not agreed={agreed}, n={n}")
    result = binomtest(int(agreed), int(n), chance, alternative=alternative)
    two_sided = result if alternative == "two-sided" else binomtest(int(agreed), int(n), chance)
    exact, wilson = (two_sided.proportion_ci(0.95, method=method) for method in ("exact", "wilson"))
    return BinomialTest(
        agreed=int(agreed),
        n=int(n),
        rate=agreed / n,
        ci_low=float(exact.low),
        ci_high=float(exact.high),
        p=float(result.pvalue),
        wilson_low=float(wilson.low),
        wilson_high=float(wilson.high),
        alternative=alternative,
    )


def count_responses(frame: pd.DataFrame) -> pd.DataFrame:
    """Count responses per embedder and bin pair: columns embedder, bin_high, bin_low, agreed, n."""
    grouped = frame.groupby(["embedder", "bin_high", "bin_low"], observed=True)["agreed"]
    return grouped.agg(agreed="sum", n="count").reset_index()


def table1(frame: pd.DataFrame, alternative: Alternative = "two-sided") -> Table1:
    """Table 1 of the responses in `frame` (columns embedder, bin_high, bin_low, agreed), by embedder.

    Corrections are over the bin pairs of one embedder that have responses: six in a complete study.
    """
    return tabulate(count_responses(frame), alternative)


def tabulate(counts: pd.DataFrame, alternative: Alternative = "two-sided") -> Table1:
    """Table 1 of counts (columns embedder, bin_high, bin_low, agreed, n; one row per bin pair)."""
    found: dict[str, dict[tuple[int, int], Cell]] = {}
    for embedder, high, low, agreed, n in counts[["embedder", "bin_high", "bin_low", "agreed", "n"]].itertuples(
        index=False, name=None
    ):
        found.setdefault(str(embedder), {})[int(high), int(low)] = Cell(int(agreed), int(n))
    names = sorted(found, key=lambda name: (name.casefold(), name))
    return {name: _tabulate_one(name, found[name], alternative) for name in names}


def _tabulate_one(embedder: str, counts: Mapping[tuple[int, int], Cell], alternative: Alternative) -> EmbedderTable:
    cells = {pair: counts.get(pair, Cell(0, 0)) for pair in BIN_PAIRS}
    tests = {
        pair: exact_binomial(cell.agreed, cell.n, alternative=alternative) for pair, cell in cells.items() if cell.n
    }
    found = [test.p for test in tests.values()]
    by_holm = dict(zip(tests, holm(found), strict=True))
    by_bh = dict(zip(tests, benjamini_hochberg(found), strict=True))
    pairs = {
        pair: Cell(c.agreed, c.n, tests.get(pair), by_holm.get(pair), by_bh.get(pair)) for pair, c in cells.items()
    }
    rows = {high: [cell for pair, cell in pairs.items() if pair[0] == high] for high in BINS[:-1]}
    totals = {high: _pool(cells, alternative) for high, cells in rows.items()}
    return EmbedderTable(embedder, pairs, totals, _pool(list(pairs.values()), alternative))


def _pool(cells: Sequence[Cell], alternative: Alternative) -> Cell:
    """Sum the counts and test them without correction: a total is not in a family of tests."""
    agreed, n = sum(cell.agreed for cell in cells), sum(cell.n for cell in cells)
    return Cell(agreed, n, exact_binomial(agreed, n, alternative=alternative) if n else None)


def paper_counts() -> pd.DataFrame:
    """Table 1 of *Exploring Musical Roots* as counts: columns embedder, bin_high, bin_low, agreed, n.

    The paper prints percentages and n, which determine each count.
    """
    with files("analysis").joinpath("reference/paper_table1.csv").open(encoding="utf-8") as handle:
        return pd.read_csv(handle)
