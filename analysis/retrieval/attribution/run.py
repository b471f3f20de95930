"""An attribution run: generations against a corpus, for each embedder, ready to be reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.retrieval.attribution.tables import Attributed, best_of, prompt_similarity, thresholds_of
from analysis.retrieval.audio_files import Embedded, Piece, PieceCutting, embed_pieces
from analysis.retrieval.generations import Generation
from analysis.retrieval.listener_evidence import Evidence
from analysis.retrieval.robustness.run import EmbeddedCorpus
from analysis.retrieval.targets import prompt_row
from analysis.statistics.bins import Bins
from embeddings.audio.corpus import audio_dir_of
from embeddings.errors import RootnoteError
from embeddings.search.exact import nearest

Rows = npt.NDArray[np.int64]
# Takes a title and a unit, and yields a function of (done, total) that shows the progress.
Showing = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class EmbedderAttribution:
    """The result of one embedder: `attributed` of all generations, their clips, bins and thresholds."""

    attributed: Attributed
    embedded: Embedded
    bins: Bins | None
    thresholds: Sequence[float]

    @property
    def name(self) -> str:
        return self.attributed.embedder


@dataclass(frozen=True)
class AttributionRun:
    """The results of all embedders, and their inputs."""

    generations: Sequence[Generation]
    table: pa.Table
    cutting: PieceCutting
    outcomes: Sequence[EmbedderAttribution]
    prompt_tracks: Rows
    evidence: Mapping[str, Evidence]
    k: int

    @property
    def tracks(self) -> Rows:
        """The track of each row of the corpus."""
        tracks: Rows = self.table["track"].to_numpy()
        return tracks


def attribute(
    generations: Sequence[Generation],
    table: pa.Table,
    subjects: Sequence[EmbeddedCorpus],
    cutting: PieceCutting,
    bins: Mapping[str, Bins],
    showing: Showing,
    *,
    thresholds: Sequence[float] = (),
    evidence: Mapping[str, Evidence] | None = None,
    k: int = 10,
) -> AttributionRun:
    """Attribute every generation with every embedder.

    Args:
        thresholds: for Table 3; if empty, they come from each embedder's bins.

    Raises:
        RootnoteError: if no generation gives a clip, or the corpus has fewer than k clips.
    """
    outcomes = []
    for subject in subjects:
        own = bins.get(subject.name)
        chosen = thresholds or (thresholds_of(own) if own else ())
        outcomes.append(_attribute(generations, subject, cutting, own, chosen, k, showing))
    audio = audio_dir_of(table)
    rows = [prompt_row(table, audio, one) for one in generations]
    tracks = table["track"].to_numpy()
    prompts = np.array([-1 if row is None else int(tracks[row]) for row in rows], np.int64)
    return AttributionRun(generations, table, cutting, outcomes, prompts, evidence or {}, k)


def _attribute(
    generations: Sequence[Generation],
    subject: EmbeddedCorpus,
    cutting: PieceCutting,
    bins: Bins | None,
    thresholds: Sequence[float],
    k: int,
    showing: Showing,
) -> EmbedderAttribution:
    pieces = [Piece(one.path, one.prefix_s, None, one.suffix_s) for one in generations]
    with showing(f"Embedding generations with {subject.name}", "pieces") as progress:
        embedded = embed_pieces(pieces, subject, cutting, progress)
    found = nearest(subject.vectors, embedded.vectors, min(k, len(subject.vectors)))
    rows, scores, clips = best_of(embedded.piece, found, len(generations), k)
    prompt = _with_prompts(generations, subject, cutting, embedded, showing)
    return EmbedderAttribution(Attributed(subject.name, rows, scores, clips, prompt), embedded, bins, thresholds)


def _with_prompts(
    generations: Sequence[Generation],
    subject: EmbeddedCorpus,
    cutting: PieceCutting,
    embedded: Embedded,
    showing: Showing,
) -> npt.NDArray[np.float64]:
    """Add the similarities with the prompts; each prompt is embedded once, however many generations it has."""
    keys = [_prompt_piece(one) for one in generations]
    pieces = list(dict.fromkeys(piece for piece in keys if piece))
    if not pieces:
        return np.full(len(generations), np.nan)
    with showing(f"Embedding prompts with {subject.name}", "pieces") as progress:
        prompts = embed_pieces(pieces, subject, cutting, progress)
    number = {piece: index for index, piece in enumerate(pieces)}
    begins = np.searchsorted(prompts.piece, np.arange(len(pieces) + 1))
    result = np.full(len(generations), np.nan)
    starts = np.searchsorted(embedded.piece, np.arange(len(generations) + 1))
    for index, piece in enumerate(keys):
        if piece is None:
            continue
        own_clips = embedded.vectors[starts[index] : starts[index + 1]]
        prompt_clips = prompts.vectors[begins[number[piece]] : begins[number[piece] + 1]]
        one = np.zeros(len(own_clips), np.int64), np.zeros(len(prompt_clips), np.int64)
        result[index] = prompt_similarity(one[0], own_clips, one[1], prompt_clips, 1)[0]
    return result


def _prompt_piece(one: Generation) -> Piece | None:
    if one.prompt_path is None:
        return None
    if not one.prompt_path.is_file():
        raise RootnoteError(f"the prompt {one.prompt_path} of generation '{one.id}' does not exist.")
    end = None if one.prompt_duration_s is None else one.prompt_offset_s + one.prompt_duration_s
    return Piece(Path(one.prompt_path), one.prompt_offset_s, end)
