"""Figures: drawings of bins and agreement, as SVG text that is the same for the same input.

Conventions: colours are distinguishable for colour-blind readers and never the only distinction; lines and text are
drawn in `currentColor`, so that a figure inlined in a page takes the page's light or dark text colour; there is no date
and no external reference; ids have a prefix, so that several figures can share a page.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from analysis.presentation.tables import COLUMNS, ROWS, one_line, percent
from analysis.statistics.agreement import CHANCE, Cell, EmbedderTable, Table1
from analysis.statistics.bins import Bins
from analysis.statistics.psychometric import Curve
from analysis.statistics.psychometric_listeners import ListenerCurve
from study.design.bin_pairs import BIN_PAIRS, BINS

# Otherwise matplotlib prints a message about its font cache on the first run on a machine.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Okabe and Ito's colours, bin 1 to bin 4; each has enough contrast on white and on near-black.
BIN_COLOURS = {1: "#0072B2", 2: "#009E73", 3: "#E69F00", 4: "#CC79A7"}
# A placeholder that is replaced by currentColor.
INK = "#010203"
BAR = "#8a94a6"


@contextmanager
def styled(text_as: str = "none") -> Iterator[None]:
    """The settings of all figures; text as "none" (the page's font) or "path"."""
    settings: dict[Any, Any] = {
        "svg.hashsalt": "rootnote", "svg.fonttype": text_as, "font.family": "DejaVu Sans", "font.size": 10,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
        "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def as_svg(figure: Figure, prefix: str, label: str, ink: str = "currentColor") -> str:
    """A figure as SVG to be inlined in a page; `label` is its text alternative."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, ink)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg).replace("url(#", f"url(#{prefix}-")
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)


def draw_histogram(bins: Bins, prefix: str = "histogram") -> str:
    """The scores of the nearest clips, the Gaussian fitted to them and the four bins, as SVG."""
    label = (
        f"Histogram of the cosine similarity of the nearest clips, mean {bins.mu:.3f}, standard deviation "
        f"{bins.sigma:.3f}; " + ", ".join(f"bin {number} at {bins.label(number)}" for number in BINS)
    )
    with styled("none"):
        return as_svg(plot_histogram(bins), prefix, label, "currentColor")


def plot_histogram(bins: Bins) -> Figure:
    """The same as a figure; call it, and save it, within `styled`."""
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    _fill_histogram(figure.subplots(), bins)
    return figure


def _fill_histogram(axes: Axes, bins: Bins, font: float = 10) -> None:
    low, high = _range(bins)
    grid = np.linspace(low, high, 400)
    density = np.exp(-0.5 * ((grid - bins.mu) / bins.sigma) ** 2) / (bins.sigma * np.sqrt(2 * np.pi))
    top = float(density.max())
    if bins.counts and sum(bins.counts):
        edges, counts = np.array(bins.edges), np.array(bins.counts, float)
        heights = counts / counts.sum() / np.diff(edges)
        top = max(top, float(heights.max()))
        axes.stairs(heights, edges, fill=True, color=BAR, alpha=0.55, linewidth=0)
    axes.plot(grid, density, color=INK, linewidth=1.3)
    for number in BINS:
        centre = bins.centres[number]
        axes.axvspan(
            centre - bins.half_width, centre + bins.half_width, color=BIN_COLOURS[number], alpha=0.45, linewidth=0
        )
        axes.text(
            centre, top * 1.09, str(number), ha="center", va="center", fontsize=font, fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "none", "edgecolor": BIN_COLOURS[number], "linewidth": 2},
        )  # fmt: skip
    axes.set_ylim(0, top * 1.2)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=font)
    axes.set_xlabel("cosine similarity to the prompt", fontsize=font)


def _range(bins: Bins) -> tuple[float, float]:
    """The range of the axis: the histogram's bars and the bins."""
    ends = [bins.mu - 3.5 * bins.sigma, bins.mu + 3.5 * bins.sigma]
    for number in BINS:
        ends += [bins.centres[number] - 2 * bins.half_width, bins.centres[number] + 2 * bins.half_width]
    if bins.counts and sum(bins.counts):
        share = np.cumsum(bins.counts) / sum(bins.counts)
        ends.append(bins.edges[int(np.searchsorted(share, 0.001))])
    return max(-1.02, min(ends)), min(1.02, max(ends))


Intervals = Mapping[tuple[int, int], tuple[float, float]]


def draw_forest(table: EmbedderTable, prefix: str = "forest", intervals: Intervals | None = None) -> str:
    """The six rates with the primary test's 95 % intervals, and chance, as SVG."""
    with styled("none"):
        return as_svg(plot_forest(table, intervals), prefix, _describe_forest(table), "currentColor")


def plot_forest(table: EmbedderTable, intervals: Intervals | None = None) -> Figure:
    """The same as a figure; call it, and save it, within `styled`.

    Args:
        intervals: by bin pair; None: the exact ones of the counts.
    """
    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axes = figure.subplots()
    if intervals is None:
        intervals = {pair: (cell.test.ci_low, cell.test.ci_high) for pair, cell in table.pairs.items() if cell.test}
    for row, pair in enumerate(BIN_PAIRS):
        _draw_rate(axes, -row, table.pairs[pair], intervals.get(pair))
    axes.axvline(100 * CHANCE, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks([-row for row in range(len(BIN_PAIRS))])
    axes.set_yticklabels([f"{high} – {low}" for high, low in BIN_PAIRS])
    axes.set_ylim(-len(BIN_PAIRS) + 0.4, 0.5)
    lowest = min([low for low, _ in intervals.values()] + [0.4])
    axes.set_xlim(100 * np.floor(lowest * 10) / 10 - 1, 101)
    axes.set_ylabel("bins")
    axes.set_xlabel("agreement, % (dashed: chance)")
    axes.grid(axis="x", color=BAR, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _draw_rate(axes: Axes, y: float, cell: Cell, interval: tuple[float, float] | None) -> None:
    if cell.test is None or interval is None:
        axes.text(100 * CHANCE + 1, y, "no responses", va="center", fontsize=9)
        return
    colour = BIN_COLOURS[1]
    axes.plot([100 * end for end in interval], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    # A filled point is one that differs from chance in the primary test after correction.
    certain = cell.p_decisive is not None and cell.p_decisive < 0.05
    face = colour if certain else "none"
    axes.plot(
        [100 * cell.test.rate], [y], "o", markersize=7, markerfacecolor=face, markeredgecolor=colour,
        markeredgewidth=1.6,
    )  # fmt: skip


def _describe_forest(table: EmbedderTable) -> str:
    rates = [
        f"bins {high} and {low}: {percent(table.pairs[high, low])} %"
        for high, low in BIN_PAIRS
        if table.pairs[high, low].n
    ]
    return "Agreement with 95 % intervals; " + ", ".join(rates)


def plot_table1(tables: Table1, bins: Mapping[str, Bins]) -> Figure:
    """Table 1 as a picture: per embedder the bins on the similarity scale, and the table next to it.

    It is drawn on a white card. Call it, and save it, within `styled("path")`, so that it looks the same everywhere.
    """
    rows = len(tables)
    figure = Figure(figsize=(11, 0.35 + 2.75 * rows))
    card = FancyBboxPatch(
        (0.006, 0.012), 0.988, 0.976, boxstyle="round,pad=0,rounding_size=0.015", mutation_aspect=11 / 6,
        transform=figure.transFigure, facecolor="white", edgecolor="#c9ced6", linewidth=1,
    )  # fmt: skip
    figure.patches.append(card)
    height = 0.94 / rows
    for index, (name, table) in enumerate(tables.items()):
        bottom = 0.97 - (index + 1) * height
        if name in bins:
            _fill_histogram(figure.add_axes((0.035, bottom + 0.26 * height, 0.3, 0.52 * height)), bins[name], 8.5)
        figure.text(0.03, bottom + 0.87 * height, one_line(name), fontsize=15, fontweight="bold", va="center")
        _draw_layout(figure, table, bins.get(name), bottom, height)
    return figure


def _draw_layout(figure: Figure, table: EmbedderTable, bins: Bins | None, bottom: float, height: float) -> None:
    xs = {0: 0.43, 2: 0.545, 3: 0.665, 4: 0.785, 5: 0.91}
    ys = {0: 0.85, 1: 0.615, 2: 0.37, 3: 0.125}
    y = {row: bottom + share * height for row, share in ys.items()}
    step = 0.085 * height
    for number in COLUMNS:
        _two_lines(figure, xs[number], y[0], step, f"Bin {number}", bins.label(number) if bins else "", bold=True)
    _two_lines(figure, xs[5], y[0], step, "Total", "all trials", bold=True)
    for high in ROWS:
        _two_lines(figure, xs[0], y[high], step, f"Bin {high}", bins.label(high) if bins else "", bold=True)
        for low in COLUMNS:
            if low > high:
                _shaded_cell(figure, xs[low], y[high], height, table.pairs[high, low])
        _two_lines(
            figure, xs[5], y[high], step, _percent_sign(table.totals[high]), f"n = {table.totals[high].n}", bold=True
        )


def _shaded_cell(figure: Figure, x: float, y: float, height: float, cell: Cell) -> None:
    """Rate over n, on blue that deepens from chance to full agreement."""
    strength = max(0.0, (cell.rate or CHANCE) - CHANCE) / (1 - CHANCE)
    box = FancyBboxPatch(
        (x - 0.052, y - 0.105 * height), 0.104, 0.21 * height, boxstyle="round,pad=0,rounding_size=0.006",
        transform=figure.transFigure, facecolor=BIN_COLOURS[1], alpha=0.06 + 0.3 * strength**2, linewidth=0,
    )  # fmt: skip
    figure.patches.append(box)
    _two_lines(figure, x, y, 0.085 * height, _percent_sign(cell), f"n = {cell.n}")


def _percent_sign(cell: Cell) -> str:
    return f"{percent(cell)}%" if cell.n else percent(cell)


def _two_lines(figure: Figure, x: float, y: float, step: float, first: str, second: str, bold: bool = False) -> None:
    shift = step / 2 if second else 0.0
    weight = "bold" if bold else "normal"
    figure.text(x, y + shift, first, ha="center", va="center", fontsize=12, fontweight=weight)
    if second:
        figure.text(x, y - shift, second, ha="center", va="center", fontsize=8.5, alpha=0.75)


# One embedder after another: colour, line and marker differ together.
SERIES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"))


def draw_curves(
    curves: Sequence[Curve], listeners: Sequence[ListenerCurve] = (), as_z: bool = False, prefix: str = "curves"
) -> str:
    """The psychometric curves on one axis, with bands, points of answers and thresholds, as SVG.

    Thin lines: the typical listener's, for the embedders that have a hierarchical curve.
    """
    with styled("none"):
        return as_svg(plot_curves(curves, listeners, as_z), prefix, _describe_curves(curves, as_z), "currentColor")


def plot_curves(curves: Sequence[Curve], listeners: Sequence[ListenerCurve] = (), as_z: bool = False) -> Figure:
    """The same as a figure, to be saved in any format."""
    typical = {one.embedder: 100 * np.array(one.rate) for one in listeners}
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        colour, line, marker = SERIES[number % len(SERIES)]
        unit = curve.spread if as_z else 1.0
        at = np.array(curve.at) / unit
        axes.fill_between(
            at, 100 * np.array(curve.low), 100 * np.array(curve.high), color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(at, 100 * np.array(curve.rate), line, color=colour, linewidth=2, label=one_line(curve.embedder))
        if curve.embedder in typical:
            axes.plot(at, typical[curve.embedder], line, color=colour, linewidth=0.9)
        for point in curve.points:
            x = point.difference / unit
            axes.plot([x, x], [100 * point.low, 100 * point.high], color=colour, linewidth=1, alpha=0.7)
            axes.plot([x], [100 * point.agreed / point.n], marker, color=colour, markersize=4.5)
        if curve.threshold is not None and curve.threshold <= max(curve.at):
            axes.plot([curve.threshold / unit] * 2, [0, 75], line, color=colour, linewidth=1)
    axes.axhline(75, color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
    axes.axhline(50, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    lowest = min([100 * value for curve in curves for value in (*curve.low, *(p.low for p in curve.points))] + [45])
    axes.set_ylim(10 * np.floor(lowest / 10), 101)
    axes.set_xlabel("difference in similarity, in standard deviations" if as_z else "difference in cosine similarity")
    axes.set_ylabel("agreement, %")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _describe_curves(curves: Sequence[Curve], as_z: bool) -> str:
    def threshold(curve: Curve) -> str:
        if curve.threshold is None:
            return "never reaches 75 %"
        return f"75 % at {curve.threshold / (curve.spread if as_z else 1):.3g}"

    return "Agreement by difference in similarity; " + "; ".join(
        f"{one_line(c.embedder)}: {threshold(c)}" for c in curves
    )
