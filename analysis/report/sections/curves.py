"""Psychometric curves: agreement by the difference in similarity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from analysis.statistics.psychometric_listeners import ListenerCurve, listener_curves


@dataclass(frozen=True)
class CurvesResult:
    """The curve of all answers together and the hierarchical one, by embedder in alphabetical order."""

    pooled: Sequence[Curve]
    listeners: Sequence[ListenerCurve]


class CurvesSection(ReportSection):
    """A curve for each embedder whose responses have similarities."""

    template = "curves.html.j2"

    def compute(self, inputs: ReportInputs) -> CurvesResult:
        spreads = {name: bins.sigma for name, bins in inputs.bins.items()}
        frame = inputs.responses.frame
        pooled = psychometric(frame, spreads, resamples_for(frame) // 4, inputs.seed)
        return CurvesResult(pooled, listener_curves(frame, pooled, inputs.seed))

    def is_shown(self, result: CurvesResult) -> bool:
        return bool(result.pooled)

    def values(self, result: CurvesResult, report: Report) -> Mapping[str, Any]:
        cosine = draw_curves(result.pooled, result.listeners)
        as_z = draw_curves(result.pooled, result.listeners, as_z=True, prefix="curvesz")
        return {
            "figure_cosine": Markup(cosine),  # noqa: S704 – our own drawing
            "figure_z": Markup(as_z),  # noqa: S704 – our own drawing
            "pooled": {curve.embedder: curve for curve in result.pooled},
        }

    def data(self, result: CurvesResult) -> Mapping[str, Any]:
        return {
            "psychometric": plain([dataclasses.asdict(curve) for curve in result.pooled]),
            "psychometric_listeners": plain([dataclasses.asdict(curve) for curve in result.listeners]),
        }

    def frames(self, result: CurvesResult) -> Mapping[str, pd.DataFrame]:
        if not result.pooled:
            return {}
        lines = [
            pd.DataFrame(
                {"embedder": c.embedder, "difference": c.at, "z": np.array(c.at) / c.spread, "rate": c.rate,
                 "low": c.low, "high": c.high}
            )
            for c in result.pooled
        ]  # fmt: skip
        typical = {one.embedder: one for one in result.listeners}
        for line, curve in zip(lines, result.pooled, strict=True):
            one = typical.get(curve.embedder)
            line["typical"], line["typical_low"], line["typical_high"] = (
                (one.rate, one.low, one.high) if one else (np.nan, np.nan, np.nan)
            )
        points = [
            {"embedder": c.embedder, "z": point.difference / c.spread} | dataclasses.asdict(point)
            for c in result.pooled
            for point in c.points
        ]
        return {"curves.csv": pd.concat(lines), "curve_points.csv": pd.DataFrame(points)}

    def plots(self, result: CurvesResult, report: Report) -> Mapping[str, Plot]:
        if not result.pooled:
            return {}
        draw = partial(plot_curves, result.pooled, result.listeners)
        return {
            "curves": Plot("Psychometric curves", draw),
            "curves-z": Plot("Psychometric curves, standardised", partial(draw, as_z=True)),
        }
