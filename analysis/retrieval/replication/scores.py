"""Replication: scores that indicate whether a generated clip is copied from a training corpus, and their threshold τ.

There are five scores; a higher one means more like a copy. q is the clip, r a clip of the corpus; vectors have unit
norm:

- `cosine`: max_r s(q, r) with s the cosine.
- `bias`: max_r s(q, r) - β·bias(q), with bias(q) the mean of s over the K nearest (Bralios et al., ICASSP 2024): it
  penalises clips that are similar to everything.
- `ratio`: 1 - d₁ / (α·mean of the n nearest d), with d the Euclidean distance (Carlini et al., 2023): the source of a
  copy is much nearer than the next nearest clips.
- `split`: the highest inner product of one of C parts of the vectors (Somepalli et al., 2023).
- `cross`: the same over all pairs of parts.

A piece's score is the highest score of its clips. A piece is flagged if its score exceeds τ. τ comes from n pieces that
are not copies: flagging above the ⌈(n + 1)(1 - f)⌉-th smallest score flags on average at most a share f of such pieces,
whatever the distribution of scores (if they are exchangeable). Alternatively, τ comes from the ROC of labelled pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from embeddings.models.base import Vectors
from embeddings.search.exact import nearest

Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Parameters:
    """β and K of `bias`, α and n of `ratio`, C of `split` and `cross`."""

    beta: float = 0.5
    bias_k: int = 50
    alpha: float = 0.5
    ratio_n: int = 50
    parts: int = 4

    @property
    def depth(self) -> int:
        """The number of nearest clips that the scores need."""
        return max(self.bias_k, self.ratio_n)


@dataclass(frozen=True)
class Near:
    """The nearest rows of each clip, best first, and the clips' vectors.

    `scores` `[Q, n]` cosines and `rows` `[Q, n]`; missing entries (rows that are left out) are NaN and -1, at the end.
    """

    scores: Doubles
    rows: Rows
    queries: Vectors


@dataclass(frozen=True)
class Scored:
    """A score for each clip `[Q]` and the row of the corpus that gives it `[Q]`."""

    score: Doubles
    row: Rows


Score = Callable[[npt.NDArray[Any], Near, Parameters, Rows | None], Scored]


def look_up(vectors: npt.NDArray[Any], queries: Vectors, depth: int, left_out: Rows | None = None) -> Near:
    """The `depth` nearest rows of each query (fewer if the corpus has fewer), without those of one track.

    Args:
        left_out: `[Q, 2]` for each query, the range of rows (end exclusive) to leave out; None: nothing.
    """
    widest = 0 if left_out is None else int((left_out[:, 1] - left_out[:, 0]).max())
    found = nearest(vectors, queries, min(len(vectors), depth + widest))
    scores, rows = found.scores.astype(float), found.rows
    if left_out is not None:
        own = (rows >= left_out[:, :1]) & (rows < left_out[:, 1:])
        order = np.argsort(own, axis=1, kind="stable")
        scores = np.where(np.take_along_axis(own, order, 1), np.nan, np.take_along_axis(scores, order, 1))
        rows = np.where(np.isnan(scores), -1, np.take_along_axis(rows, order, 1))
    return Near(scores[:, :depth], rows[:, :depth], queries)


def cosine(vectors: npt.NDArray[Any], near: Near, parameters: Parameters, left_out: Rows | None) -> Scored:
    """The highest cosine."""
    return Scored(near.scores[:, 0], near.rows[:, 0])


def bias(vectors: npt.NDArray[Any], near: Near, parameters: Parameters, left_out: Rows | None) -> Scored:
    """The highest cosine minus β times the mean of the K highest."""
    mean = np.nanmean(near.scores[:, : parameters.bias_k], axis=1)
    return Scored(near.scores[:, 0] - parameters.beta * mean, near.rows[:, 0])


def ratio(vectors: npt.NDArray[Any], near: Near, parameters: Parameters, left_out: Rows | None) -> Scored:
    """1 minus the ratio of the nearest distance to α times the mean of the n nearest."""
    distances = np.sqrt(np.maximum(2 - 2 * near.scores[:, : parameters.ratio_n], 0))
    mean = np.maximum(np.nanmean(distances, axis=1), 1e-12)
    return Scored(1 - distances[:, 0] / (parameters.alpha * mean), near.rows[:, 0])


def split(vectors: npt.NDArray[Any], near: Near, parameters: Parameters, left_out: Rows | None) -> Scored:
    """The highest inner product of corresponding parts."""
    return _by_parts(vectors, near.queries, parameters.parts, left_out, across=False)


def cross(vectors: npt.NDArray[Any], near: Near, parameters: Parameters, left_out: Rows | None) -> Scored:
    """The highest inner product of any two parts."""
    return _by_parts(vectors, near.queries, parameters.parts, left_out, across=True)


SCORES: dict[str, Score] = {"cosine": cosine, "bias": bias, "ratio": ratio, "split": split, "cross": cross}


def of_pieces(scored: Scored, pieces: Rows, count: int) -> tuple[Scored, Rows]:
    """The best clip of each piece: score and row `[count]` (NaN and -1 for a piece without clips), and its index.

    Args:
        pieces: `[Q]` the piece of each clip.
    """
    score, row, clip = np.full(count, np.nan), np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    # In ascending order, the last write for a piece is its best score.
    for index in np.argsort(scored.score, kind="stable"):
        piece = pieces[index]
        score[piece], row[piece], clip[piece] = scored.score[index], scored.row[index], index
    return Scored(score, row), clip


def threshold_of_null(null: Doubles, false_alarms: float) -> float:
    """The τ that flags at most this share of pieces without copies; infinite if there are too few pieces.

    Raises:
        ValueError: unless 0 < false_alarms < 1.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms must be between 0 and 1, not {false_alarms}")
    ordered = np.sort(null[~np.isnan(null)])
    place = math.ceil((len(ordered) + 1) * (1 - false_alarms))
    return float(ordered[place - 1]) if place <= len(ordered) else math.inf


@dataclass(frozen=True)
class Roc:
    """The ROC curve of labelled pairs and the chosen point on it."""

    false_alarms: Doubles
    found: Doubles
    auc: float
    threshold: float
    at: tuple[float, float]


def roc(scores: Doubles, copies: npt.NDArray[np.bool_], false_alarms: float) -> Roc:
    """The ROC of labelled pairs; the chosen point finds most copies with at most this share of false alarms.

    Raises:
        ValueError: unless there are both copies and other pairs.
    """
    if copies.all() or not copies.any():
        raise ValueError("labelled pairs must include both copies and others")
    false, found, thresholds = roc_curve(copies, scores, drop_intermediate=False)
    allowed = np.flatnonzero(false <= false_alarms)
    best = int(allowed[np.argmax(found[allowed])])
    # A score is flagged above τ, whereas scikit-learn also flags scores equal to its threshold.
    threshold = float(np.nextafter(thresholds[best], -np.inf)) if np.isfinite(thresholds[best]) else math.inf
    return Roc(false, found, float(roc_auc_score(copies, scores)), threshold, (float(false[best]), float(found[best])))


def pair_scores(
    queries: Vectors, references: Vectors, vectors: npt.NDArray[Any], parameters: Parameters, names: Sequence[str]
) -> Mapping[str, float]:
    """The scores of one pair of pieces: nearest clips come from the reference, the bias from the corpus."""
    near = look_up(vectors, queries, parameters.depth)
    best = (queries @ references.T).max(axis=1).astype(float)
    one = Near(np.concatenate([best[:, None], near.scores[:, 1:]], axis=1), near.rows, queries)
    return {name: float(np.nanmax(SCORES[name](references, one, parameters, None).score)) for name in names}


def _by_parts(
    vectors: npt.NDArray[Any], queries: Vectors, parts: int, left_out: Rows | None, across: bool
) -> Scored:  # fmt: skip
    width = vectors.shape[1] // parts
    if not width:
        raise ValueError(f"vectors of {vectors.shape[1]} numbers cannot be split into {parts} parts")
    best, row = np.full(len(queries), -np.inf), np.full(len(queries), -1, np.int64)
    query_parts = queries[:, : parts * width].reshape(len(queries), parts, width)
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[begin : begin + _BLOCK_ROWS], np.float32)[:, : parts * width]
        row_parts = block.reshape(len(block), parts, width)
        scores = _parts_product(query_parts, row_parts, across)
        if left_out is not None:
            rows = np.arange(begin, begin + len(block))
            scores[(rows >= left_out[:, :1]) & (rows < left_out[:, 1:])] = -np.inf
        place = scores.argmax(axis=1)
        top = scores[np.arange(len(queries)), place]
        better = top > best
        best[better], row[better] = top[better], begin + place[better]
    return Scored(best, row)


def _parts_product(query_parts: Vectors, row_parts: Vectors, across: bool) -> npt.NDArray[np.float32]:
    """The highest inner product of parts, `[Q, rows]`."""
    parts = query_parts.shape[1]
    pairs = [(one, other) for one in range(parts) for other in range(parts) if across or one == other]
    highest = query_parts[:, pairs[0][0]] @ row_parts[:, pairs[0][1]].T
    for one, other in pairs[1:]:
        np.maximum(highest, query_parts[:, one] @ row_parts[:, other].T, out=highest)
    return highest
