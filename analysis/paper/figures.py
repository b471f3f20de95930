"""Figures that compare results with the paper's: rates of Table 1, spreads of Table 2, shares of Table 3.

Conventions: the paper's results are hollow and in the text's colour, your results filled and coloured; rates in %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.paper.reference import OwnValue, PublishedDistribution
from analysis.presentation.figures import BAR, INK, SERIES, as_svg, styled
from analysis.presentation.tables import one_line, percent
from analysis.statistics.agreement import Table1
from study.design.bin_pairs import BIN_PAIRS

_PAPERS = ("D", "o", "s", "^")


def draw_rates(own: Table1, paper: Table1, prefix: str) -> str:
    """Agreement per bin pair with exact 95 % intervals, own and the paper's."""
    all_of_them = [*((name, table, True) for name, table in paper.items()),
                   *((name, table, False) for name, table in own.items())]  # fmt: skip
    step = 0.7 / len(all_of_them)
    with styled():
        figure = Figure(figsize=(6.4, 1.2 + 0.24 * 6 * max(2, len(all_of_them))), layout="constrained")
        axes = figure.subplots()
        for number, (name, table, published) in enumerate(all_of_them):
            colour, marker, face = _style(number, len(paper), published)
            for row, pair in enumerate(BIN_PAIRS):
                test, y = table.pairs[pair].test, -row + 0.35 - step * (number + 0.5)
                if test is None:
                    continue
                axes.plot([100 * test.ci_low, 100 * test.ci_high], [y, y], color=colour, linewidth=1.6)
                label = _name(name, published) if row == 0 else None
                axes.plot([100 * test.rate], [y], marker, color=colour, markerfacecolor=face, label=label)
        axes.axvline(50, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks([-row for row in range(len(BIN_PAIRS))], [f"{high} – {low}" for high, low in BIN_PAIRS])
        axes.set_xlabel("agreement, % (dashed: chance)")
        axes.set_ylabel("bins")
        axes.grid(axis="x", color=BAR, alpha=0.3, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        label = "; ".join(f"{_name(n, p)} {percent(t.totals[1])} % for bin 1" for n, t, p in all_of_them)
        return as_svg(figure, prefix, f"Agreement, compared with the paper: {label}")


def draw_spreads(rows: Sequence[PublishedDistribution], prefix: str) -> str:
    """Mean and standard deviation of the similarity with the prompt and with the nearest clip."""
    with styled():
        figure = Figure(figsize=(6.4, 0.9 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for number, row in enumerate(rows):
            for one, marker, shift, what in (
                (row.prompt, "s", 0.14, "prompt"), (row.nearest, "o", -0.14, "nearest clip"),
            ):  # fmt: skip
                if one is None:
                    continue
                colour = "#D55E00" if what == "prompt" else "#0072B2"
                label = f"with its {what}, mean ± standard deviation" if number == 0 else None
                axes.errorbar(
                    [one["mean"]], [-number + shift], xerr=one["sd"] or 0, color=colour, marker=marker, capsize=3,
                    linestyle="", markerfacecolor="none" if row.paper else colour, label=label,
                )  # fmt: skip
        axes.set_yticks([-number for number in range(len(rows))], [_name(row.name, row.paper) for row in rows])
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.set_xlabel("cosine similarity of a generation")
        axes.grid(axis="x", color=BAR, alpha=0.3, linewidth=0.6)
        figure.legend(loc="outside upper left", frameon=False, fontsize=9)
        label = "; ".join(f"{_name(r.name, r.paper)} {r.nearest['mean']:.3f}" for r in rows if r.nearest)
        return as_svg(figure, prefix, f"Mean similarity with the nearest clip: {label}")


def draw_shares(rows: Sequence[OwnValue], prefix: str) -> str:
    """Table 3 as curves: shares over steps above the centre of bin 1."""
    with styled():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, row in enumerate(rows):
            colour, marker, face = _style(number, 1, row.paper)
            for k, line in ((1, "-"), (10, (0, (4, 2)))):
                x = np.arange(len(row.shares[k]))
                label = f"{_name(row.name, row.paper)}, k = {k}"
                axes.plot(x, 100 * np.array(row.shares[k]), color=colour, linestyle=line, marker=marker,
                          markerfacecolor=face, label=label)  # fmt: skip
        most = max(len(row.thresholds) for row in rows)
        axes.set_xticks(range(most), ["lowest", *(f"+{0.02 * step:.2f}" for step in range(1, most))])
        axes.set_xlabel("threshold (lowest: the centre of bin 1)")
        axes.set_ylabel("at or above it, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=BAR, alpha=0.3, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
        label = "; ".join(f"{_name(row.name, row.paper)} {100 * row.shares[1][0]:.1f} %" for row in rows)
        return as_svg(figure, prefix, f"Generations whose nearest clip reaches the lowest threshold: {label}")


def _style(number: int, papers: int, published: bool) -> tuple[str, str, str]:
    """Colour, marker and face of a series."""
    if published:
        return INK, _PAPERS[number % len(_PAPERS)], "none"
    colour, _, marker = SERIES[(number - papers) % len(SERIES)]
    return colour, marker, colour


def _name(name: str, published: bool) -> str:
    return f"{one_line(name)} ({'the paper' if published else 'this study'})"
