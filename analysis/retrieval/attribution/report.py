"""The output of an attribution run: tables, every resemblance as a row, and a page with audio excerpts.

`attribution.csv` has a row for each generation and rank; `influence.csv` one for each track that was found;
`attribution.json` has the tables; `attribution.html` shows all of it; `audio/` has the excerpts of the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.presentation.audio_excerpts import write_excerpt
from analysis.presentation.formatting import count
from analysis.presentation.html import render
from analysis.presentation.versions import versions
from analysis.retrieval import listener_evidence
from analysis.retrieval.attribution.figures import draw_concentration, draw_similarities
from analysis.retrieval.attribution.run import AttributionRun, EmbedderAttribution
from analysis.retrieval.attribution.tables import (
    KS,
    Description,
    gini,
    grouped,
    influence,
    paper_table2,
    paper_table3,
    place_in_bins,
    prompt_places,
    table2,
    table3,
    top_share,
)
from analysis.retrieval.listener_evidence import Evidence
from analysis.retrieval.metadata import Values
from embeddings.audio.corpus import audio_dir_of
from embeddings.provenance import replacing


@dataclass(frozen=True)
class GroupBy:
    """A metadata column to make tables by: its name, and its value for each clip of the corpus."""

    column: str
    values: Values


_MOST_SHOWN = 20  # tracks in the page's list of influence
_PLACES = 3  # resemblances shown per generation on the page
_TOPS = (0.01, 0.05, 0.1)


def write(run: AttributionRun, folder: Path, *, examples: int = 20, by: GroupBy | None = None) -> dict[str, Path]:
    """Write all files of a run; the audio of `examples` generations, those most like something in the corpus."""
    data = as_data(run, by)
    texts = {
        "attribution.csv": resemblances(run).to_csv(index=False, float_format="%.6g"),
        "influence.csv": influences(run).to_csv(index=False, float_format="%.6g"),
        "attribution.json": json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "attribution.html": to_html(run, data, _examples(run, folder, examples), by),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def resemblances(run: AttributionRun) -> pd.DataFrame:
    """A row for each embedder, generation and rank among its k nearest clips."""
    table = run.table
    names = {name: np.array(table[name].to_pylist(), dtype=object) for name in ("path", "artist", "title")}
    starts = table["start_s"].to_numpy()
    frames = []
    for outcome in run.outcomes:
        generation, place = np.nonzero(outcome.attributed.rows >= 0)
        rows = outcome.attributed.rows[generation, place]
        begins = outcome.embedded.starts[outcome.attributed.clips[generation, place]]
        scores = outcome.attributed.scores[generation, place]
        evidence = run.evidence.get(outcome.name)
        frames.append(
            pd.DataFrame(
                {
                    "embedder": outcome.name,
                    "generation_id": np.array([one.id for one in run.generations], dtype=object)[generation],
                    "place": place + 1,
                    "start_s": begins,
                    "end_s": begins + run.cutting.seconds,
                    "clip": rows,
                    **{name: values[rows] for name, values in names.items()},
                    "track_start_s": starts[rows],
                    "track_end_s": starts[rows] + run.cutting.seconds,
                    "similarity": scores,
                    "bin": [place_in_bins(score, outcome.bins) for score in scores] if outcome.bins else "",
                    "listeners": [listener_evidence.describe(score, outcome.bins, evidence) or "" for score in scores],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def influences(run: AttributionRun) -> pd.DataFrame:
    """A row for each embedder and track that is found once or more, most influential first."""
    first = _first_rows(run)
    frames = []
    for outcome in run.outcomes:
        found = influence(outcome.attributed, run.tracks, k=run.k)
        rows = first[found["track"].to_numpy()]
        named = {name: run.table[name].take(rows).to_pylist() for name in ("path", "artist", "title", "genre")}
        frames.append(pd.DataFrame({"embedder": outcome.name, **named, **found[["nearest", "among"]]}))
    return pd.concat(frames, ignore_index=True)


def as_data(run: AttributionRun, by: GroupBy | None = None) -> dict[str, Any]:
    """The tables as JSON-able data."""
    return {
        "generations": len(run.generations),
        "clips_of_corpus": run.table.num_rows,
        "k": run.k,
        "embedders": {outcome.name: _outcome_data(run, outcome, by) for outcome in run.outcomes},
        "versions": versions(),
    }


def to_html(run: AttributionRun, data: Mapping[str, Any], examples: Mapping[str, Any], by: GroupBy | None) -> str:
    """The page."""
    sections = []
    influential = influences(run)
    for outcome in run.outcomes:
        own = data["embedders"][outcome.name]
        rows = influential[influential["embedder"] == outcome.name]
        sections.append(
            {
                "name": outcome.name,
                "data": own,
                "bins": outcome.bins,
                "histogram": Markup(draw_similarities(outcome, f"similar-{outcome.name}")),
                "curve": Markup(draw_concentration(run, outcome, f"share-{outcome.name}")),
                "tracks": rows.head(_MOST_SHOWN).to_dict(orient="records"),
                "artists": _artists(rows),
                "examples": examples.get(outcome.name, []),
                "by": own["by"],
            }
        )
    return render(
        "attribution.html.j2",
        {
            "title": "What the generations resemble",
            "run": run,
            "sections": sections,
            "by": by.column if by else None,
            "ks": KS,
            "paper2": _records(paper_table2()),
            "paper3": _records(paper_table3()),
            "versions": versions(),
            "settings": {"k": run.k, "clip": f"{run.cutting.seconds:g} s, one every {run.cutting.hop_seconds:g} s"},
        },
    )


def _outcome_data(run: AttributionRun, outcome: EmbedderAttribution, by: GroupBy | None) -> dict[str, Any]:
    attributed, evidence = outcome.attributed, run.evidence.get(outcome.name)
    counts = influence(attributed, run.tracks, k=run.k)
    tracks = int(run.tracks.max()) + 1
    nearest = np.zeros(tracks)
    nearest[counts["track"]] = counts["nearest"]
    known = int((run.prompt_tracks >= 0).sum())
    _, shares = top_share(nearest)
    return {
        "table2": {name: _description(one) for name, one in table2(attributed).items()},
        "table3": _table3(outcome, evidence),
        "evidence": listener_evidence.in_words(evidence),
        "heard": listener_evidence.as_data(evidence),
        "gini": gini(nearest),
        "top_share": {f"{top:g}": float(shares[max(1, round(top * tracks))]) for top in _TOPS},
        "tracks_found": int((nearest > 0).sum()),
        "tracks": tracks,
        "prompt_in_corpus": known,
        "prompt_among": {
            str(k): count for k, count in prompt_places(attributed, run.tracks, run.prompt_tracks).items()
        },
        "left_out": {run.generations[index].id: why for index, why in outcome.embedded.left_out.items()},
        "by": _records(grouped(attributed, by.values, outcome.thresholds)) if by else [],
    }


def _table3(outcome: EmbedderAttribution, evidence: Evidence | None) -> list[dict[str, Any]]:
    """Table 3, with the listeners' judgements on each threshold."""
    if not outcome.thresholds:
        return []
    rows = _records(table3(outcome.attributed, outcome.thresholds))
    return [row | {"listeners": listener_evidence.describe(row["threshold"], outcome.bins, evidence)} for row in rows]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, with None for unknown values."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def _description(one: Description | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"n": one.n, "mean": one.mean, "median": one.median, "sd": None if math.isnan(one.sd) else one.sd}


def _artists(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The most influential artists; tracks without an artist are left out."""
    named = rows[rows["artist"].notna()]
    found = named.groupby("artist", sort=False)[["nearest", "among"]].sum().reset_index()
    found = found.sort_values(["nearest", "among", "artist"], ascending=[False, False, True]).head(_MOST_SHOWN // 2)
    return _records(found)


def _first_rows(run: AttributionRun) -> Any:
    return np.flatnonzero(np.diff(run.tracks, prepend=-1))


def _examples(run: AttributionRun, folder: Path, number: int) -> dict[str, list[dict[str, Any]]]:
    """The generations most similar to a corpus clip, with their nearest clips and the audio that can be read."""
    audio = audio_dir_of(run.table)
    shown = {}
    for outcome in run.outcomes:
        best = np.where(np.isnan(outcome.attributed.scores[:, 0]), -np.inf, outcome.attributed.scores[:, 0])
        chosen = np.argsort(-best, kind="stable")[:number]
        shown[outcome.name] = [
            {"generation": run.generations[index], "places": _places(run, outcome, int(index), folder, audio)}
            for index in chosen
            if np.isfinite(best[index])
        ]
    return shown


def _places(
    run: AttributionRun, outcome: EmbedderAttribution, index: int, folder: Path, audio: Path
) -> list[dict[str, Any]]:
    places = []
    seconds = run.cutting.seconds
    for place in range(min(_PLACES, run.k)):
        row = int(outcome.attributed.rows[index, place])
        if row < 0:
            break
        start = float(outcome.embedded.starts[outcome.attributed.clips[index, place]])
        names = {name: run.table[name][row].as_py() for name in ("path", "artist", "title", "start_s")}
        similarity = float(outcome.attributed.scores[index, place])
        own_file, track_file = f"generation-{index}-{start:g}.flac", f"clip-{row}.flac"
        places.append(
            {
                **names, "start": start, "end": start + seconds, "track_end": names["start_s"] + seconds,
                "similarity": similarity, "where": place_in_bins(similarity, outcome.bins) if outcome.bins else None,
                "listeners": listener_evidence.describe(similarity, outcome.bins, run.evidence.get(outcome.name)),
                "own_audio": write_excerpt(run.generations[index].path, start, seconds, folder, own_file),
                "track_audio": write_excerpt(audio / names["path"], names["start_s"], seconds, folder, track_file),
            }
        )  # fmt: skip
    return places


def sentences(data: Mapping[str, Any], thresholds: Sequence[float]) -> list[str]:
    """The tables in words, for a terminal."""
    lines = []
    near = data["table2"]["nearest"]
    if near:
        lines.append(
            f"nearest clip: mean {near['mean']:.3f}, median {near['median']:.3f} over {count(near['n'], 'generation')}"
        )
    if data["table3"]:
        row = next(one for one in data["table3"] if one["threshold"] == min(thresholds) and one["k"] == 1)
        lines.append(f"{100 * row['share']:.1f} % have a clip at {row['threshold']:.3f} or above")
    return lines
