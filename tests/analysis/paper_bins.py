"""The bins that the paper prints, for tests."""

from __future__ import annotations

from analysis.statistics.bins import Bins

# Centres of bins 1 to 4, and the half-width.
PRINTED = {"CLAP": (0.955, 0.885, 0.815, 0.513, 0.02), "CLMR": (0.875, 0.784, 0.693, 0.151, 0.02)}


def paper_bins() -> dict[str, Bins]:
    """By embedder; the paper gives no histogram as numbers."""
    return {
        name: Bins(name, three, two - three, half_width, {1: one, 2: two, 3: three, 4: four})
        for name, (one, two, three, four, half_width) in PRINTED.items()
    }
