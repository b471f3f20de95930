"""Psychometric curves: agreement by the difference in similarity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.presentation.figures import draw_curves, plot_curves
from analysis.report.plain_data import plain
from analysis.report.section import Plot, Report, ReportInputs, ReportSection
from analysis.report.sections.dependence import resamples_for
from analysis.statistics.psychometric import Curve, psychometric


class CurvesSection(ReportSection):
    """A curve for each embedder whose responses have similarities."""

    template = "curves.html.j2"

    def compute(self, inputs: ReportInputs) -> Sequence[Curve]:
        spreads = {name: bins.sigma for name, bins in inputs.bins.items()}
        frame = inputs.responses.frame
        return psychometric(frame, spreads, resamples_for(frame) // 4, inputs.seed)

    def values(self, result: Sequence[Curve], report: Report) -> Mapping[str, Any]:
        return {
            "figure_cosine": Markup(draw_curves(result)),  # noqa: S704 – our own drawing
            "figure_z": Markup(draw_curves(result, as_z=True, prefix="curvesz")),  # noqa: S704 – our own drawing
        }

    def data(self, result: Sequence[Curve]) -> Mapping[str, Any]:
        return {"psychometric": plain([dataclasses.asdict(curve) for curve in result])}

    def frames(self, result: Sequence[Curve]) -> Mapping[str, pd.DataFrame]:
        if not result:
            return {}
        lines = [
            pd.DataFrame(
                {"embedder": c.embedder, "difference": c.at, "z": np.array(c.at) / c.spread, "rate": c.rate,
                 "low": c.low, "high": c.high}
            )
            for c in result
        ]  # fmt: skip
        points = [
            {"embedder": c.embedder, "z": point.difference / c.spread} | dataclasses.asdict(point)
            for c in result
            for point in c.points
        ]
        return {"curves.csv": pd.concat(lines), "curve_points.csv": pd.DataFrame(points)}

    def plots(self, result: Sequence[Curve], report: Report) -> Mapping[str, Plot]:
        if not result:
            return {}
        return {
            "curves": Plot("Psychometric curves", partial(plot_curves, result)),
            "curves-z": Plot("Psychometric curves, standardised", partial(plot_curves, result, as_z=True)),
        }
