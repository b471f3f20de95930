"""Figures of an attribution run: how similar generations are to their nearest clip, and whose influence is greatest."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from analysis.presentation.figures import BAR, BIN_COLOURS, INK, as_svg, styled
from analysis.retrieval.attribution.run import AttributionRun, EmbedderAttribution
from analysis.retrieval.attribution.tables import gini, influence, top_share


def draw_similarities(outcome: EmbedderAttribution, prefix: str) -> str:
    """Histograms of the similarity with the nearest clip and with the prompt, over the bins."""
    near, prompt = outcome.attributed.scores[:, 0], outcome.attributed.prompt
    near, prompt = near[~np.isnan(near)], prompt[~np.isnan(prompt)]
    low = min(0.0, float(np.floor(10 * min([*near, *prompt])) / 10))
    with styled():
        figure = Figure(figsize=(5.4, 2.9), layout="constrained")
        axes = figure.subplots()
        edges = np.linspace(low, 1, 41).tolist()
        axes.hist(near, edges, color="#0072B2", alpha=0.75, label="nearest clip")
        if len(prompt):
            axes.hist(prompt, edges, histtype="step", color="#D55E00", linewidth=1.8, label="prompt")
        for number, centre in (outcome.bins.centres if outcome.bins else {}).items():
            axes.axvline(centre, color=BIN_COLOURS[number], linewidth=1.6, linestyle=(0, (4, 2)))
            axes.text(centre, axes.get_ylim()[1], str(number), ha="center", va="bottom", fontsize=9)
        axes.set_xlabel("cosine similarity of a generation (dashed: centres of the bins)", fontsize=9)
        axes.set_ylabel("generations", fontsize=9)
        figure.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=2)
        label = f"Similarity of {len(near)} generations with their nearest clip, median {np.median(near):.3f}"
        return as_svg(figure, prefix, label)


def draw_concentration(run: AttributionRun, outcome: EmbedderAttribution, prefix: str) -> str:
    """The share of generations that the most influential tracks account for."""
    counts = influence(outcome.attributed, run.tracks, k=run.k)
    nearest = np.zeros(int(run.tracks.max()) + 1)
    nearest[counts["track"]] = counts["nearest"]
    x, y = top_share(nearest)
    with styled():
        figure = Figure(figsize=(5.4, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot(100 * x, 100 * y, color="#0072B2", linewidth=2)
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xlabel("most influential tracks, % of the corpus (dashed: all alike)", fontsize=9)
        axes.set_ylabel("generations, %", fontsize=9)
        axes.grid(color=BAR, alpha=0.3, linewidth=0.6)
        return as_svg(figure, prefix, f"Concentration of influence, Gini {gini(nearest):.2f}")
