"""The similarity bins and their pairs, which are the unit of analysis.

Conventions: bins are numbered 1 (most similar) to 4 (random); a pair names the more similar bin first, "1-2".
"""

from __future__ import annotations

from itertools import combinations

BINS = (1, 2, 3, 4)
BIN_PAIRS: tuple[tuple[int, int], ...] = tuple(combinations(BINS, 2))


def pair_name(high: int, low: int) -> str:
    """A pair as text: "1-2"."""
    return f"{high}-{low}"
