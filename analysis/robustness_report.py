"""What a robustness run leaves: ranks by target, the table, the figure and a page that explains them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from analysis.pages import render
from analysis.perturbations import PERTURBATIONS
from analysis.retrieval import KS
from analysis.robustness import Result, summarise
from analysis.robustness_figure import draw
from analysis.versions import versions
from embeddings.artefacts import replacing

FILES = ("robustness.csv", "robustness.json", "robustness.parquet", "robustness.svg", "robustness.html")


def write(result: Result, settings: Mapping[str, Any], folder: Path, by: str | None = None) -> dict[str, Path]:
    """Write all files of a run, with `by` also the table by that column; they are computed before they are written."""
    summary = summarise(result)
    texts = {
        "robustness.csv": summary.to_csv(index=False, float_format="%.6g"),
        "robustness.json": json.dumps(as_data(result, summary, settings), indent=2, ensure_ascii=False) + "\n",
        "robustness.svg": draw(summary).replace("currentColor", "#1f2328"),
        "robustness.html": to_html(result, summary, settings),
    }
    if by:
        texts[f"robustness_by_{by}.csv"] = summarise(result, by).to_csv(index=False, float_format="%.6g")
    with replacing(folder / "robustness.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(result.ranks, preserve_index=False), temporary, compression="zstd")
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {name: folder / name for name in (*FILES, *(name for name in texts if name not in FILES))}


def as_data(result: Result, summary: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The run as JSON-able data."""
    return {
        "clips": result.clips,
        "tracks": result.tracks,
        "clip_seconds": result.seconds,
        "hop_seconds": result.hop_seconds,
        "cells": summary.to_dict(orient="records"),
        "left_out": dict(result.left_out),
        "settings": dict(settings),
        "versions": versions("librosa", "pedalboard", "soxr", "av"),
    }


def to_html(result: Result, summary: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """The page: what was done, the figure by clip and by track, all numbers, what was left out."""
    panels = [
        {
            "name": name,
            "title": PERTURBATIONS[name].title,
            "unit": PERTURBATIONS[name].unit,
            "rows": summary[summary["perturbation"] == name].to_dict(orient="records"),
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
            "ks": KS,
            "embedders": list(summary["embedder"].unique()),
            "by_clip": Markup(draw(summary, prefix="by-clip")),
            "by_track": Markup(draw(summary, track=True, prefix="by-track")),
            "left_out": {PERTURBATIONS[name].title: why for name, why in result.left_out.items()},
            "settings": {name: value for name, value in settings.items() if name in ("seed", "corpus", "vectors")},
            "versions": versions("librosa", "pedalboard", "soxr", "av"),
        },
    )
