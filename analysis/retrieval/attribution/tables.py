"""Attribution: which clips of a corpus a model's generations resemble (Section 5.2, Tables 2 and 3 of the paper).

A generation is cut into clips; the similarity of a generation and a clip of the corpus is the highest cosine of any of
the generation's clips with it. For a generation of one clip this is the paper's measure.
Table 2 compares the similarity of generations and their prompts (the best pair of clips) with that of generations and
their nearest clip. Table 3 counts the generations whose nearest clip reaches a threshold (k = 1), and how many of the
k nearest clips of all generations reach it (k = 10). Influence counts how often a track is the nearest, or has a clip
among the nearest.
Conventions: cosines in [-1, 1]; standard deviations divide by n - 1; shares in [0, 1]; no threshold is built in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.retrieval.ranking import share
from analysis.statistics.bins import Bins
from embeddings.search.exact import Neighbours
from study.design.bin_pairs import BINS

Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

KS = (1, 10)
STEP = 0.02


@dataclass(frozen=True)
class Attributed:
    """The k nearest clips of every generation for one embedder, best first.

    `rows` `[G, k]` of the corpus; `scores` `[G, k]`; `clips` `[G, k]`: the clip of the generation with that score
    (index into all clips); `prompt` `[G]`: the similarity with the prompt (NaN if there is none).
    If a generation has fewer than k different rows, the rest is -1 and NaN.
    """

    embedder: str
    rows: Rows
    scores: Doubles
    clips: Rows
    prompt: Doubles


@dataclass(frozen=True)
class Description:
    """Mean, median and standard deviation of n similarities."""

    n: int
    mean: float
    median: float
    sd: float


def best_of(generations: Rows, found: Neighbours, count: int, k: int) -> tuple[Rows, Doubles, Rows]:
    """The k nearest rows of each generation, from the nearest rows of its clips.

    Args:
        generations: `[N]` ascending, the generation of each clip.
        found: the nearest rows of each clip, at least k (or all rows, if there are fewer).
        count: the number of generations.

    Returns:
        rows, scores and clips, `[count, k]` as in `Attributed`.
    """
    width = found.rows.shape[1]
    owner = np.repeat(generations, width)
    clip = np.repeat(np.arange(len(generations)), width)
    # Rounding can make float32 products of unit vectors slightly larger than 1.
    rows, scores = found.rows.reshape(-1), np.clip(found.scores.reshape(-1).astype(float), -1, 1)
    # Best first within a generation; ties are in the order of rows, then of clips.
    order = np.lexsort((clip, rows, -scores, owner))
    owner, clip, rows, scores = owner[order], clip[order], rows[order], scores[order]
    # The first occurrence of a row in its generation has its best score.
    pairs = owner * (int(rows.max()) + 1) + rows
    _, first = np.unique(pairs, return_index=True)
    kept = np.sort(first)
    owner, clip, rows, scores = owner[kept], clip[kept], rows[kept], scores[kept]
    begins = np.searchsorted(owner, np.arange(count))
    place = np.arange(len(owner)) - begins[owner]
    top = place < k
    out_rows, out_clips = np.full((count, k), -1, np.int64), np.full((count, k), -1, np.int64)
    out_scores = np.full((count, k), np.nan)
    out_rows[owner[top], place[top]] = rows[top]
    out_clips[owner[top], place[top]] = clip[top]
    out_scores[owner[top], place[top]] = scores[top]
    return out_rows, out_scores, out_clips


def prompt_similarity(
    generations: Rows, vectors: npt.NDArray[Any], prompts: Rows, prompt_vectors: npt.NDArray[Any], count: int
) -> Doubles:
    """The highest cosine between a generation's clips and its prompt's, `[count]`; NaN if either has no clips.

    Args:
        generations: `[N]` ascending, the generation of each row of `vectors`.
        prompts: `[M]` ascending, the generation of each row of `prompt_vectors`.
    """
    result = np.full(count, np.nan)
    own_starts = np.searchsorted(generations, np.arange(count + 1))
    prompt_starts = np.searchsorted(prompts, np.arange(count + 1))
    for one in np.intersect1d(generations, prompts):
        own, prompt = (
            vectors[own_starts[one] : own_starts[one + 1]],
            prompt_vectors[prompt_starts[one] : prompt_starts[one + 1]],
        )
        result[one] = np.clip((own @ prompt.T).max(), -1, 1)
    return result


def describe(similarities: Doubles) -> Description | None:
    """Mean, median and standard deviation (None if there are no similarities; sd is NaN if there is only one)."""
    known = similarities[~np.isnan(similarities)]
    if not len(known):
        return None
    sd = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return Description(len(known), float(known.mean()), float(np.median(known)), sd)


def table2(attributed: Attributed) -> dict[str, Description | None]:
    """Table 2: similarities of generations with their prompts, and with their nearest clip."""
    return {"prompt": describe(attributed.prompt), "nearest": describe(attributed.scores[:, 0])}


def thresholds_of(bins: Bins, count: int = 5) -> list[float]:
    """Thresholds below 1, from the centre of bin 1 up in steps of 0.02 (in the paper 0.875 to 0.955 for CLMR)."""
    start = bins.centres[1]
    return [value for step in range(count) if (value := round(start + step * STEP, 6)) < 1]


def table3(attributed: Attributed, thresholds: Sequence[float], ks: Sequence[int] = KS) -> pd.DataFrame:
    """Table 3: for each threshold and k, how many of the k nearest clips of all generations reach it.

    Columns: threshold, k, count, n, share, low, high (Wilson's 95 % interval for independent generations, given only
    for k = 1).
    """
    rows = []
    for threshold in sorted(thresholds, reverse=True):
        for k in ks:
            near = attributed.scores[:, :k]
            n, count = int((~np.isnan(near)).sum()), int((near >= threshold).sum())
            rate = share(count, n) if n else None
            interval = {"low": rate.low, "high": rate.high} if rate and k == 1 else {"low": np.nan, "high": np.nan}
            rows.append({"threshold": threshold, "k": k, "count": count, "n": n,
                         "share": rate.rate if rate else np.nan, **interval})  # fmt: skip
    return pd.DataFrame(rows)


def influence(attributed: Attributed, tracks: Rows, threshold: float | None = None, k: int = 10) -> pd.DataFrame:
    """How often each track is the nearest to a generation, and how often it has a clip among the k nearest.

    Args:
        tracks: `[N]` the track of each row of the corpus.
        threshold: count only clips that reach this similarity.

    Returns:
        columns track, nearest, among, for every track with a count above 0, most influential first.
    """
    rows, scores = attributed.rows[:, :k], attributed.scores[:, :k]
    counted = (rows >= 0) & (scores >= (-np.inf if threshold is None else threshold))
    track = np.where(counted, tracks[np.maximum(rows, 0)], -1)
    nearest = np.bincount(track[:, 0][counted[:, 0]], minlength=int(tracks.max()) + 1)
    # A track counts once per generation, however many of its clips are near.
    pairs = np.unique(np.stack([np.repeat(np.arange(len(track)), track.shape[1]), track.reshape(-1)]), axis=1)
    among = np.bincount(pairs[1][pairs[1] >= 0], minlength=len(nearest))
    frame = pd.DataFrame({"track": np.arange(len(nearest)), "nearest": nearest, "among": among})
    frame = frame[frame["among"] > 0]
    return frame.sort_values(["nearest", "among", "track"], ascending=[False, False, True], ignore_index=True)


def gini(counts: npt.NDArray[Any]) -> float:
    """Gini's coefficient of counts over all tracks, including zeros: 0 if all are equal, near 1 if one has all.

    Raises:
        ValueError: if there is no count above 0.
    """
    values = np.sort(np.asarray(counts, float))
    if not len(values) or values.sum() <= 0:
        raise ValueError("Gini's coefficient needs a count above 0")
    n = len(values)
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * values.sum()))


def top_share(counts: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
    """The concentration curve: shares of tracks from the top, and their shares of all counts; both from 0 to 1."""
    values = np.sort(np.asarray(counts, float))[::-1]
    return np.linspace(0, 1, len(values) + 1), np.concatenate([[0.0], np.cumsum(values) / values.sum()])


def prompt_places(attributed: Attributed, tracks: Rows, prompt_tracks: Rows, ks: Sequence[int] = KS) -> dict[int, int]:
    """The number of generations whose prompt's track is among the k nearest clips, for each k.

    Args:
        prompt_tracks: `[G]` the track of each prompt, -1 if it is not in the corpus.
    """
    known = prompt_tracks >= 0
    near = np.where(attributed.rows[known] >= 0, tracks[np.maximum(attributed.rows[known], 0)], -1)
    return {k: int((near[:, :k] == prompt_tracks[known, None]).any(axis=1).sum()) for k in ks}


def place_in_bins(similarity: float, bins: Bins) -> str:
    """The position of a similarity among the bins, such as "in bin 1", "above bin 1" or "between bins 2 and 1"."""
    for number in BINS:
        if abs(similarity - bins.centres[number]) <= bins.half_width:
            return f"in bin {number}"
    above = [number for number in BINS if similarity > bins.centres[number]]
    if not above:
        return f"below bin {BINS[-1]}"
    return "above bin 1" if above[0] == BINS[0] else f"between bins {above[0]} and {above[0] - 1}"


def paper_table2() -> pd.DataFrame:
    """The paper's Table 2 (10,000 generations of VampNet): columns embedder, with, mean, median, sd."""
    return _reference("paper_table2.csv")


def paper_table3() -> pd.DataFrame:
    """The paper's Table 3 (CLMR): columns threshold, k, count, n, share."""
    frame = _reference("paper_table3.csv")
    return frame.assign(share=frame["count"] / frame["n"])


def _reference(name: str) -> pd.DataFrame:
    with files("analysis").joinpath(f"reference/{name}").open(encoding="utf-8") as handle:
        return pd.read_csv(handle)


def grouped(attributed: Attributed, values: npt.NDArray[Any], thresholds: Sequence[float]) -> pd.DataFrame:
    """Tables 2 and 3 by a metadata column such as genre: generations by the value of their nearest clip.

    Args:
        values: `[N]` the column's value for each clip of the corpus.

    Returns:
        columns value, n; mean with mean_low and mean_high (95 %, Student's t), median, sd of the similarity with the
        nearest clip; prompt_n, prompt_mean, prompt_mean_low, prompt_mean_high of the similarity with the prompt; for
        each threshold `share_<t>` with `low_<t>` and `high_<t>` (k = 1, Wilson) and `share10_<t>` (k = 10).
    """
    known = np.flatnonzero(attributed.rows[:, 0] >= 0)
    near = values[attributed.rows[known, 0]]
    rows = []
    for value in sorted(set(near)):
        members = known[near == value]
        own = replace(attributed, rows=attributed.rows[members], scores=attributed.scores[members],
                      clips=attributed.clips[members], prompt=attributed.prompt[members])  # fmt: skip
        rows.append({"value": value, **_described(own), **_shares(own, thresholds)})
    return pd.DataFrame(rows).sort_values(["n", "value"], ascending=[False, True], ignore_index=True)


def _described(own: Attributed) -> dict[str, Any]:
    near, prompt = describe(own.scores[:, 0]), describe(own.prompt)
    assert near is not None
    low, high = mean_interval(near)
    prompt_low, prompt_high = mean_interval(prompt) if prompt else (np.nan, np.nan)
    return {
        "n": near.n, "mean": near.mean, "mean_low": low, "mean_high": high, "median": near.median, "sd": near.sd,
        "prompt_n": prompt.n if prompt else 0, "prompt_mean": prompt.mean if prompt else np.nan,
        "prompt_mean_low": prompt_low, "prompt_mean_high": prompt_high,
    }  # fmt: skip


def mean_interval(one: Description) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t; NaN if there is only one value."""
    if one.n < 2:
        return float("nan"), float("nan")
    reach = float(stats.t.ppf(0.975, one.n - 1)) * one.sd / np.sqrt(one.n)
    return one.mean - reach, one.mean + reach


def _shares(own: Attributed, thresholds: Sequence[float]) -> dict[str, float]:
    found: dict[str, float] = {}
    if not thresholds:
        return found
    for row in table3(own, thresholds).to_dict(orient="records"):
        name = f"{row['threshold']:.3f}"
        if row["k"] == 1:
            found |= {f"share_{name}": row["share"], f"low_{name}": row["low"], f"high_{name}": row["high"]}
        else:
            found[f"share{row['k']}_{name}"] = row["share"]
    return found
