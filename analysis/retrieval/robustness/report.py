"""The output of a robustness run: ranks by target, the table, the figure and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from analysis.presentation.html import render
from analysis.presentation.versions import versions
from analysis.retrieval.ranking import KS
from analysis.retrieval.robustness.figure import draw
from analysis.retrieval.robustness.registry import PERTURBATIONS
from analysis.retrieval.robustness.run import RobustnessResult, summarise
from embeddings.provenance import replacing

_MOST_COLUMNS = 8
FILES = ("robustness.csv", "robustness.json", "robustness.parquet", "robustness.svg", "robustness.html")


def write(
    result: RobustnessResult, settings: Mapping[str, Any], folder: Path, by: str | None = None
) -> dict[str, Path]:
    """Write all files of a run, with `by` also the table by that column; all are computed before any is written."""
    summary = summarise(result)
    texts = {
        "robustness.csv": summary.to_csv(index=False, float_format="%.6g"),
        "robustness.json": json.dumps(as_data(result, summary, settings, by), indent=2, ensure_ascii=False) + "\n",
        "robustness.svg": draw(summary).replace("currentColor", "#1f2328"),
        "robustness.html": to_html(result, summary, settings, by),
    }
    if by:
        texts[f"robustness_by_{by}.csv"] = summarise(result, by).to_csv(index=False, float_format="%.6g")
    with replacing(folder / "robustness.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(result.ranks, preserve_index=False), temporary, compression="zstd")
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {name: folder / name for name in (*FILES, *(name for name in texts if name not in FILES))}


def as_data(
    result: RobustnessResult, summary: pd.DataFrame, settings: Mapping[str, Any], by: str | None = None
) -> dict[str, Any]:
    """The run as JSON-able data."""
    return {
        "clips": result.clips,
        "tracks": result.tracks,
        "clip_seconds": result.seconds,
        "hop_seconds": result.hop_seconds,
        "cells": summary.to_dict(orient="records"),
        "by": {"column": by, "cells": summarise(result, by).to_dict(orient="records")} if by else None,
        "left_out": dict(result.left_out),
        "settings": dict(settings),
        "versions": versions("librosa", "pedalboard", "soxr", "av"),
    }


def to_html(result: RobustnessResult, summary: pd.DataFrame, settings: Mapping[str, Any], by: str | None = None) -> str:
    """The page: the figure by clip and by track, all numbers, the methods, and what was skipped."""
    groups = summarise(result, by) if by else pd.DataFrame()
    panels = [
        {
            "name": name,
            "title": PERTURBATIONS[name].title,
            "unit": PERTURBATIONS[name].unit,
            "rows": summary[summary["perturbation"] == name].to_dict(orient="records"),
            "by": _by_value(groups[groups["perturbation"] == name], by) if by else {},
        }
        for name in summary["perturbation"].unique()
    ]
    return render(
        "robustness.html.j2",
        {
            "title": "Robustness of similarity measures",
            "result": result,
            "targets": int(summary["targets"].max()),
            "panels": panels,
            "by": by,
            "values": _most_frequent(result, by) if by else [],
            "more": by is not None and result.ranks[by].nunique() > _MOST_COLUMNS,
            "ks": KS,
            "embedders": list(summary["embedder"].unique()),
            "by_clip": Markup(draw(summary, prefix="by-clip")),
            "by_track": Markup(draw(summary, track=True, prefix="by-track")),
            "left_out": {PERTURBATIONS[name].title: why for name, why in result.left_out.items()},
            "settings": {name: value for name, value in settings.items() if name in ("seed", "corpus", "vectors")},
            "versions": versions("librosa", "pedalboard", "soxr", "av"),
        },
    )


def _most_frequent(result: RobustnessResult, by: str) -> list[str]:
    """The values that most targets have, as many as a page is wide."""
    counts = result.ranks.drop_duplicates(["embedder", "perturbation", "target"])[by].value_counts()
    return [str(value) for value in counts.index[:_MOST_COLUMNS]]


def _by_value(groups: pd.DataFrame, by: str) -> dict[tuple[float, str], dict[str, dict[str, Any]]]:
    """Rows by level and embedder, then by value."""
    found: dict[tuple[float, str], dict[str, dict[str, Any]]] = {}
    for row in groups.to_dict(orient="records"):
        found.setdefault((row["level"], row["embedder"]), {})[str(row[by])] = {str(key): row[key] for key in row}
    return found
