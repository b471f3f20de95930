"""The robustness figure: one panel per perturbation, hits over its levels, as in the paper's Figure 1.

Embedders differ by colour and marker, hits at 1, 5 and 10 by the line: solid, dashed, dotted.
Conventions: rates in per cent; whiskers are Wilson's 95 % intervals of hits at 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.presentation.figures import BAR, INK, as_svg, styled
from analysis.retrieval.ranking import KS
from analysis.retrieval.robustness.perturbations import Perturbation
from analysis.retrieval.robustness.registry import PERTURBATIONS

# Okabe and Ito's colours; the markers differ too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES: dict[int, Any] = {1: "-", 5: (0, (5, 2)), 10: (0, (1, 1.5))}
_ACROSS = 3


Span = tuple[float, float, str]  # lowest level, highest level, label


def draw(
    summary: pd.DataFrame,
    *,
    track: bool = False,
    prefix: str = "robustness",
    spans: Mapping[str, Sequence[Span]] | None = None,
) -> str:
    """The panels of `robustness.summarise`'s table as SVG; with `track`, hits of the target's track.

    Args:
        spans: ranges of levels to shade, by perturbation; a second range is bounded by dotted lines.
    """
    names = list(summary["perturbation"].unique())
    embedders = list(summary["embedder"].unique())
    down = math.ceil(len(names) / _ACROSS)
    with styled():
        figure = Figure(figsize=(10.5, 2.75 * down + 0.5), layout="constrained")
        grid = figure.subplots(down, _ACROSS, squeeze=False).flatten()
        for axes, name in zip(grid, names, strict=False):
            _panel(axes, summary[summary["perturbation"] == name], PERTURBATIONS[name], embedders, track)
            _shade(axes, (spans or {}).get(name, ()))
        for axes in grid[len(names) :]:
            axes.set_axis_off()
        figure.legend(handles=_legend(embedders), loc="outside upper center", ncols=6, frameon=False, fontsize=10)
        return as_svg(figure, prefix, _in_words(summary, embedders, track))


def _panel(axes: Axes, cells: pd.DataFrame, one: Perturbation, embedders: Sequence[str], track: bool) -> None:
    hit = "track_hit" if track else "hit"
    for number, embedder in enumerate(embedders):
        rows = cells[cells["embedder"] == embedder].sort_values("level")
        colour = _COLOURS[number % len(_COLOURS)]
        x = rows["level"].to_numpy(float)
        for k in KS:
            axes.plot(x, 100 * rows[f"{hit}{k}"], color=colour, linestyle=_LINES[k], linewidth=1.5 if k == 1 else 1.1)
        rates = [100 * rows[f"{hit}1{part}"].to_numpy(float) for part in ("", "_low", "_high")]
        axes.errorbar(
            x, rates[0], yerr=np.clip([rates[0] - rates[1], rates[2] - rates[0]], 0, None), color=colour, linestyle="",
            marker=_MARKERS[number % len(_MARKERS)], markersize=4, elinewidth=0.8,
        )  # fmt: skip
    axes.set_title(one.title, fontsize=10.5, loc="left")
    axes.set_xlabel(one.unit, fontsize=9)
    axes.set_ylim(-3, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color=BAR, alpha=0.3, linewidth=0.6)
    _ticks(axes, one)


def _shade(axes: Axes, spans: Sequence[Span]) -> None:
    for number, (low, high, whose) in enumerate(spans):
        if not number:
            axes.axvspan(low, high, color=BAR, alpha=0.25, linewidth=0, zorder=0)
        else:
            axes.axvline(low, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.text(low, 2 + 11 * number, f" {whose}", fontsize=8, ha="left", va="bottom")


def _ticks(axes: Axes, one: Perturbation) -> None:
    levels = sorted(one.levels)
    if one.log_scale:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    elif len(levels) > 9:
        return
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if len(levels) > 6:
        axes.tick_params(axis="x", labelrotation=45, labelsize=8)


def _legend(embedders: Sequence[str]) -> list[Line2D]:
    of_embedders = [
        Line2D([], [], color=_COLOURS[number % len(_COLOURS)], marker=_MARKERS[number % len(_MARKERS)], label=name)
        for number, name in enumerate(embedders)
    ]
    return of_embedders + [Line2D([], [], color=INK, linestyle=_LINES[k], label=f"among the first {k}") for k in KS]


def _in_words(summary: pd.DataFrame, embedders: Sequence[str], track: bool) -> str:
    column = "track_hit1" if track else "hit1"
    lines = []
    for name in summary["perturbation"].unique():
        rows = summary[summary["perturbation"] == name]
        spans = [
            f"{embedder} {100 * part[column].min():.0f} to {100 * part[column].max():.0f} %"
            for embedder in embedders
            if len(part := rows[rows["embedder"] == embedder])
        ]
        lines.append(f"{PERTURBATIONS[name].title}: {', '.join(spans)}")
    return f"Hits at 1 of the target{chr(39) + 's track' if track else ''} by perturbation. " + "; ".join(lines)
