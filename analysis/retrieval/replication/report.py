"""The output of a replication run: verdicts, every score, and a page with audio excerpts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.presentation.audio_excerpts import write_excerpt
from analysis.presentation.figures import BAR, INK, as_svg, styled
from analysis.presentation.formatting import count
from analysis.presentation.html import render
from analysis.presentation.versions import versions
from analysis.retrieval.ranking import share
from analysis.retrieval.replication.run import DecisionThreshold, Replication, scores_of
from embeddings.audio.corpus import audio_dir_of
from embeddings.errors import RootnoteError
from embeddings.provenance import replacing

VERDICTS = ("near-identical", "similar", "none", "not tried")


def write(
    result: Replication,
    folder: Path,
    *,
    examples: int = 20,
    duplicates: Mapping[str, Any] | None = None,
    compare: Sequence[Path] = (),
) -> dict[str, Path]:
    """Write all files of a run."""
    sizes = [_size_of(path) for path in compare]
    data = as_data(result, duplicates)
    if sizes:
        sizes = sorted([*sizes, _size(data)], key=lambda one: one["clips"])
        data["by_size"] = sizes
    texts = {
        "replication.csv": verdicts_of(result).to_csv(index=False, float_format="%.6g"),
        "replication_scores.csv": scores_of(result).to_csv(index=False, float_format="%.6g"),
        "replication.json": json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "replication.html": _html(result, data, _examples(result, folder, examples)),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def verdicts_of(result: Replication) -> pd.DataFrame:
    """One row per piece: its verdict, the deciding score, τ, and the corpus clip behind the score."""
    embedder, name = result.decides
    frame = scores_of(result)
    decided = frame[(frame["embedder"] == embedder) & (frame["score_name"] == name)].set_index("generation_id")
    rows = pd.DataFrame({"generation_id": [one.id for one in result.generations], "verdict": list(result.verdicts)})
    return rows.join(decided[["score", "threshold", "start_s", "path", "track_start_s"]], on="generation_id")


def as_data(result: Replication, duplicates: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The run as JSON-able data."""
    counts: Counter[str] = Counter(result.verdicts)
    tried = len(result.verdicts) - counts["not tried"]
    rate = share(counts["near-identical"], tried)
    return {
        "pieces": len(result.generations),
        "clips_of_corpus": result.table.num_rows,
        "tracks_of_corpus": int(result.table["track"][-1].as_py()) + 1,
        "verdicts": {name: counts[name] for name in VERDICTS},
        "near_identical": asdict(rate),
        "decides": ":".join(result.decides),
        "scores": [_line_data(line) for line in result.lines.values()],
        "left_out": {
            name: {result.generations[index].id: why for index, why in one.left_out.items()}
            for name, one in result.embedded.items()
        },
        "duplicates": dict(duplicates) if duplicates else None,
        "parameters": asdict(result.settings.parameters),
        "false_alarms": result.settings.false_alarms,
        "seed": result.settings.seed,
        "versions": versions("scikit-learn"),
    }


def _line_data(line: DecisionThreshold) -> dict[str, Any]:
    flagged, tried = int(line.flagged.sum()), int((line.clips >= 0).sum())
    return {
        "embedder": line.embedder,
        "score": line.name,
        "threshold": line.threshold if math.isfinite(line.threshold) else None,
        "from": "labelled pairs" if line.roc else f"{count(len(line.null), 'piece')} of other tracks",
        "flagged": flagged,
        "tried": tried,
        "share": flagged / tried,
        "roc": {"auc": line.roc.auc, "false_alarms": line.roc.at[0], "found": line.roc.at[1]} if line.roc else None,
    }


def _size(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"clips": data["clips_of_corpus"], **data["near_identical"]}


def _size_of(path: Path) -> dict[str, Any]:
    """The size of the corpus and the share of copies of an earlier run."""
    try:
        return _size(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RootnoteError(f"{path} is not a replication.json of an earlier run.") from error


def _html(result: Replication, data: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    line = result.lines[result.decides]
    return render(
        "replication.html.j2",
        {
            "title": "Replication of training music",
            "result": result,
            "data": data,
            "verdicts": VERDICTS,
            "histogram": Markup(_draw(line)),
            "by_size": Markup(_draw_sizes(data["by_size"])) if data.get("by_size") else None,
            "examples": examples,
            "versions": data["versions"],
            "settings": data["parameters"] | {"seed": data["seed"]},
        },
    )


def _examples(result: Replication, folder: Path, number: int) -> list[dict[str, Any]]:
    """The pieces with the highest deciding scores, with the audio excerpts that can be read."""
    line, embedded = result.lines[result.decides], result.embedded[result.decides[0]]
    audio, seconds = audio_dir_of(result.table), result.cutting.seconds
    scores = np.nan_to_num(line.scored.score, nan=-np.inf)
    shown = []
    for index in np.argsort(-scores, kind="stable")[:number]:
        if line.clips[index] < 0:
            continue
        row, start = int(line.scored.row[index]), float(embedded.starts[line.clips[index]])
        names = {name: result.table[name][row].as_py() for name in ("path", "artist", "title", "start_s")}
        one = result.generations[index]
        shown.append(
            {
                **names, "id": one.id, "verdict": result.verdicts[index], "score": scores[index], "start": start,
                "end": start + seconds, "track_end": names["start_s"] + seconds,
                "own_audio": write_excerpt(one.path, start, seconds, folder, f"piece-{index}-{start:g}.flac"),
                "track_audio": write_excerpt(
                    audio / names["path"], names["start_s"], seconds, folder, f"clip-{row}.flac"
                ),
            }
        )  # fmt: skip
    return shown


def _draw(line: DecisionThreshold) -> str:
    scores = line.scored.score[~np.isnan(line.scored.score)]
    null = line.null[~np.isnan(line.null)]
    both = np.concatenate([scores, null])
    edges = np.linspace(both.min() - 1e-3, both.max() + 1e-3, 41).tolist()
    with styled():
        figure = Figure(figsize=(5.6, 3), layout="constrained")
        axes = figure.subplots()
        axes.hist(
            scores,
            edges,
            weights=np.full(len(scores), 100 / len(scores)),
            color="#0072B2",
            alpha=0.75,
            label="these pieces",
        )
        if len(null):
            weights = np.full(len(null), 100 / len(null))
            axes.hist(
                null,
                edges,
                weights=weights,
                histtype="step",
                color="#D55E00",
                linewidth=1.8,
                label="pieces without copies",
            )
        if math.isfinite(line.threshold):
            axes.axvline(line.threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel(f"{line.name}, {line.embedder} (dashed line: τ)", fontsize=9)
        axes.set_ylabel("% of pieces", fontsize=9)
        axes.legend(frameon=False, fontsize=9)
        return as_svg(
            figure,
            "scores",
            f"Scores of {count(len(scores), 'piece')} and of {count(len(null), 'piece')} without copies",
        )


def _draw_sizes(sizes: Sequence[Mapping[str, Any]]) -> str:
    x = [one["clips"] for one in sizes]
    rates = np.array([[100 * one[name] for one in sizes] for name in ("rate", "low", "high")])
    with styled():
        figure = Figure(figsize=(5.6, 3), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(x, rates[0], yerr=np.clip([rates[0] - rates[1], rates[2] - rates[0]], 0, None), marker="o",
                      color="#0072B2", capsize=3)  # fmt: skip
        axes.set_xscale("log")
        axes.set_ylim(0, None)
        axes.set_xlabel("clips in the training corpus", fontsize=9)
        axes.set_ylabel("near-identical, % of pieces", fontsize=9)
        axes.grid(color=BAR, alpha=0.3, linewidth=0.6)
        return as_svg(figure, "sizes", "Share of near-identical pieces by the size of the training corpus")
