"""A replication run: pieces compared with a training corpus, every score with every embedder, a verdict on each piece.

**Near-identical**: the deciding score is above its τ. **Similar**: it is not, but the piece's nearest clip reaches
bin 1 of an embedder whose bins are known. **None**: neither.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from analysis.retrieval.audio_files import Embedded, Piece, PieceCutting, embed_pieces
from analysis.retrieval.generations import Generation
from analysis.retrieval.replication.scores import (
    SCORES,
    Parameters,
    Roc,
    Scored,
    look_up,
    of_pieces,
    pair_scores,
    roc,
    threshold_of_null,
)
from analysis.retrieval.robustness.run import EmbeddedCorpus
from analysis.statistics.bins import Bins
from embeddings.audio.corpus import audio_dir_of
from embeddings.errors import RootnoteError
from embeddings.search.near_pairs import Likeness, join_near

Rows = npt.NDArray[np.int64]
Showing = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
Verdict = Literal["near-identical", "similar", "none", "not tried"]

_QUERIES_AT_ONCE = 4096


@dataclass(frozen=True)
class ReplicationSettings:
    """How τ is set: the share of false alarms, the number of corpus excerpts used for it, and their seed."""

    parameters: Parameters
    false_alarms: float = 0.01
    null_pieces: int = 200
    seed: int = 0
    names: Sequence[str] = tuple(SCORES)


@dataclass(frozen=True)
class DecisionThreshold:
    """One score of one embedder: for each piece, for the null pieces, and τ with the ROC it was set by (None: null)."""

    embedder: str
    name: str
    scored: Scored
    clips: Rows
    null: npt.NDArray[np.float64]
    threshold: float
    roc: Roc | None = None

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """`[G]`: whether each piece's score exceeds τ."""
        return np.nan_to_num(self.scored.score, nan=-np.inf) > self.threshold


@dataclass(frozen=True)
class Replication:
    """The result of a run: `lines` by (embedder, score), `decides` the deciding key, `embedded` by embedder."""

    generations: Sequence[Generation]
    table: pa.Table
    cutting: PieceCutting
    lines: Mapping[tuple[str, str], DecisionThreshold]
    embedded: Mapping[str, Embedded]
    decides: tuple[str, str]
    verdicts: Sequence[Verdict]
    settings: ReplicationSettings


def replicate(
    generations: Sequence[Generation],
    table: pa.Table,
    subjects: Sequence[EmbeddedCorpus],
    cutting: PieceCutting,
    settings: ReplicationSettings,
    showing: Showing,
    *,
    bins: Mapping[str, Bins] | None = None,
    pairs: Sequence[tuple[Path, Path, bool]] = (),
    decides: tuple[str, str] | None = None,
) -> Replication:
    """Score every piece and give verdicts.

    Args:
        pairs: labelled pairs (piece, reference, whether the piece copies the reference); if given, τ is set by
            them instead of the null.
        decides: (embedder, score); default: bias of logmel, which found most forced copies (docs/evaluation.md),
            or else of melspec, or of the first embedder.

    Raises:
        RootnoteError: if `decides` names vectors or a score that are not there, or no piece gives a clip.
    """
    names = [one.name for one in subjects]
    decides = decides or (next((name for name in ("logmel", "melspec") if name in names), names[0]), "bias")
    if decides[0] not in names or decides[1] not in settings.names:
        raise RootnoteError(
            f"{decides[0]}:{decides[1]} cannot decide: there are no vectors of {decides[0]}, or no score {decides[1]}."
        )
    lines: dict[tuple[str, str], DecisionThreshold] = {}
    embedded: dict[str, Embedded] = {}
    for subject in subjects:
        embedded[subject.name], thresholds = _score_embedder(
            generations, table, subject, cutting, settings, showing, pairs
        )
        lines |= {(subject.name, line.name): line for line in thresholds}
    verdicts = _verdicts(len(generations), lines, lines[decides], bins or {}, embedded)
    return Replication(generations, table, cutting, lines, embedded, decides, verdicts, settings)


def scores_of(result: Replication) -> pd.DataFrame:
    """One row per piece, embedder and score: the score, the clips behind it, τ, and whether the piece is flagged."""
    starts = result.table["start_s"].to_numpy()
    paths = np.array(result.table["path"].to_pylist(), dtype=object)
    frames = []
    for (embedder, name), line in result.lines.items():
        known = line.clips >= 0
        rows = line.scored.row[known]
        frames.append(
            pd.DataFrame(
                {
                    "generation_id": [one.id for one, there in zip(result.generations, known, strict=True) if there],
                    "embedder": embedder,
                    "score_name": name,
                    "score": line.scored.score[known],
                    "threshold": line.threshold,
                    "flagged": line.flagged[known].astype(int),
                    "start_s": result.embedded[embedder].starts[line.clips[known]],
                    "clip": rows,
                    "path": paths[rows],
                    "track_start_s": starts[rows],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def duplicate_share(subject: EmbeddedCorpus, threshold: float, showing: Showing) -> tuple[int, int]:
    """How many clips of the corpus are in groups of near-identical clips, and how many groups there are.

    Args:
        threshold: cosine from which two clips count as near-identical.
    """
    rows = np.arange(len(subject.vectors))
    with showing("Comparing the clips of the corpus", "") as progress:
        first = join_near(rows, [Likeness(subject.vectors, threshold, subject.name)], progress=progress)
    sizes = np.bincount(first)
    return int(sizes[sizes > 1].sum()), int((sizes > 1).sum())


def read_pairs(path: Path) -> list[tuple[Path, Path, bool]]:
    """Read labelled pairs: a CSV with the columns `piece, reference, copy` (0 or 1), paths relative to it.

    Raises:
        RootnoteError: naming the row and the problem.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"piece", "reference", "copy"} <= set(reader.fieldnames or ()):
                raise RootnoteError(f"{path} needs the columns piece, reference and copy.")
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise RootnoteError(f"{path} cannot be read as CSV in UTF-8.") from error
    found = []
    for number, row in enumerate(rows, start=2):
        if row["copy"] not in ("0", "1"):
            raise RootnoteError(f"{path}, row {number}: copy must be 0 or 1, not '{row['copy']}'.")
        one, other = path.parent / (row["piece"] or ""), path.parent / (row["reference"] or "")
        for file_ in (one, other):
            if not file_.is_file():
                raise RootnoteError(f"{path}, row {number}: the file {file_} does not exist.")
        found.append((one, other, row["copy"] == "1"))
    if len({copy for _, _, copy in found}) < 2:
        raise RootnoteError(f"{path} needs both pairs that are copies (copy = 1) and pairs that are not (copy = 0).")
    return found


def _score_embedder(
    generations: Sequence[Generation],
    table: pa.Table,
    subject: EmbeddedCorpus,
    cutting: PieceCutting,
    settings: ReplicationSettings,
    showing: Showing,
    pairs: Sequence[tuple[Path, Path, bool]],
) -> tuple[Embedded, list[DecisionThreshold]]:
    pieces = [Piece(one.path, one.prefix_s, None, one.suffix_s) for one in generations]
    with showing(f"Embedding pieces with {subject.name}", "pieces") as progress:
        embedded = embed_pieces(pieces, subject, cutting, progress)
    found = _score(subject, embedded, len(generations), settings, None)
    labelled = _labelled(pairs, subject, cutting, settings, showing) if pairs else {}
    null = {} if pairs else _null(table, embedded, subject, cutting, settings, showing)
    lines = []
    for name, (scored, clips) in found.items():
        curve = labelled.get(name)
        of_null = null.get(name, np.zeros(0))
        threshold = curve.threshold if curve else threshold_of_null(of_null, settings.false_alarms)
        lines.append(DecisionThreshold(subject.name, name, scored, clips, of_null, threshold, curve))
    return embedded, lines


def _score(
    subject: EmbeddedCorpus, embedded: Embedded, count: int, settings: ReplicationSettings, left_out: Rows | None
) -> dict[str, tuple[Scored, Rows]]:
    """Every score of every piece, computed in blocks of queries to limit memory."""
    parts: dict[str, list[Scored]] = {name: [] for name in settings.names}
    for begin in range(0, len(embedded.vectors), _QUERIES_AT_ONCE):
        block = slice(begin, begin + _QUERIES_AT_ONCE)
        own = None if left_out is None else left_out[block]
        near = look_up(subject.vectors, embedded.vectors[block], settings.parameters.depth, own)
        for name in settings.names:
            parts[name].append(SCORES[name](subject.vectors, near, settings.parameters, own))
    joined = {
        name: Scored(np.concatenate([one.score for one in each]), np.concatenate([one.row for one in each]))
        for name, each in parts.items()
    }
    return {name: of_pieces(one, embedded.piece, count) for name, one in joined.items()}


def _null(
    table: pa.Table,
    embedded: Embedded,
    subject: EmbeddedCorpus,
    cutting: PieceCutting,
    settings: ReplicationSettings,
    showing: Showing,
) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of corpus excerpts as long as the median piece, with their own track excluded from the search."""
    track, start = table["track"].to_numpy(), table["start_s"].to_numpy()
    paths = table["path"]
    begins = np.flatnonzero(np.diff(track, prepend=-1))
    ends = np.append(begins[1:], len(track))
    if len(begins) < 2:
        raise RootnoteError(
            "the corpus has only one track; setting τ from other tracks needs several (or give --pairs)."
        )
    clips = int(np.median(np.bincount(embedded.piece)[np.unique(embedded.piece)]))
    length = cutting.seconds + (clips - 1) * cutting.hop_seconds
    rng = np.random.default_rng(settings.seed)
    chosen = track[rng.integers(0, len(track), settings.null_pieces)]
    audio = audio_dir_of(table)
    pieces = []
    for number in chosen:
        last = float(start[ends[number] - 1]) + cutting.seconds
        at = round(float(rng.uniform(0, max(0.0, last - length))), 3)
        pieces.append(Piece(audio / paths[int(begins[number])].as_py(), at, at + length))
    with showing(f"Embedding other tracks' pieces with {subject.name}", "pieces") as progress:
        null = embed_pieces(pieces, subject, cutting, progress)
    own = np.stack([begins[chosen], ends[chosen]], axis=1)[null.piece]
    return {name: scored.score for name, (scored, _) in _score(subject, null, len(pieces), settings, own).items()}


def _labelled(
    pairs: Sequence[tuple[Path, Path, bool]],
    subject: EmbeddedCorpus,
    cutting: PieceCutting,
    settings: ReplicationSettings,
    showing: Showing,
) -> dict[str, Roc]:
    """The ROC curve of every score over labelled pairs; references are cut like the corpus."""
    as_corpus = PieceCutting(cutting.seconds, cutting.seconds, cutting.silence_dbfs)
    with showing(f"Embedding labelled pairs with {subject.name}", "pieces") as progress:
        copied = embed_pieces([Piece(one) for one, _, _ in pairs], subject, cutting, progress)
        references = embed_pieces([Piece(other) for _, other, _ in pairs], subject, as_corpus)
    rows = []
    for index in range(len(pairs)):
        piece, reference = copied.vectors[copied.piece == index], references.vectors[references.piece == index]
        if not len(piece) or not len(reference):
            bad = pairs[index][0 if not len(piece) else 1]
            raise RootnoteError(f"{bad}, in the labelled pairs, gives no clip; it is too short or silent.")
        rows.append(pair_scores(piece, reference, subject.vectors, settings.parameters, settings.names))
    copies = np.array([copy for _, _, copy in pairs])
    return {name: roc(np.array([row[name] for row in rows]), copies, settings.false_alarms) for name in settings.names}


def _verdicts(
    count: int,
    lines: Mapping[tuple[str, str], DecisionThreshold],
    decides: DecisionThreshold,
    bins: Mapping[str, Bins],
    embedded: Mapping[str, Embedded],
) -> list[Verdict]:
    similar = np.zeros(count, bool)
    for name, own in bins.items():
        line = lines.get((name, "cosine"))
        if line is not None:
            similar |= np.nan_to_num(line.scored.score, nan=-np.inf) >= own.centres[1]
    copied, tried = decides.flagged, decides.clips >= 0
    return [
        "near-identical" if copied[index] else "similar" if similar[index] else "none" if tried[index] else "not tried"
        for index in range(count)
    ]
