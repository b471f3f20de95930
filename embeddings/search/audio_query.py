"""Search: which tracks of a corpus resemble a piece of audio, and where.

The audio is cut into clips of the corpus's length and embedded in the same way. For each clip of the audio, every
track has one match: the track's clip with the highest cosine. Each clip of the audio keeps its best tracks. Tracks are
ranked by their best match anywhere in the audio, then by the number of clips that kept them, then by their order.
The result is the exact top of the whole corpus: a track among the best `top` is among the best `top` for the clip of
its best match, so that clip keeps it.
Conventions: times are seconds from the first sample; whole clips only; clips below the corpus's silence threshold
are left out, as in the corpus.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from embeddings.audio.decode import Samples, Track, rms_dbfs, windows
from embeddings.checkpoints.fetch import cached
from embeddings.errors import DataError, StaleArtefactError
from embeddings.models.base import Embedder, ModelOptions, Projection, Vectors, embed_clips
from embeddings.models.registry import load_embedder
from embeddings.provenance import Provenance, require_fresh
from embeddings.search.exact import Neighbours
from embeddings.search.exact import nearest as exact_nearest
from embeddings.vectors import MADE_BY, vectors_provenance

# The k nearest rows of each query: `exact.nearest` with the vectors given, or an equivalent.
Nearest = Callable[[Vectors, int], Neighbours]

_FIRST_DEPTH = 8  # times `top`: the number of clips searched first for `top` different tracks
_HELD = 1 << 24  # neighbours in memory at a time
_SHOWN = 3  # matches of a track that the table shows


@dataclass(frozen=True)
class Query:
    """The clips of a piece of audio: where they begin, and their unit vectors `[clips, dim]`."""

    starts: list[float]
    seconds: float
    vectors: Vectors
    silent: int


@dataclass(frozen=True)
class Match:
    """A clip of the audio and the clip of a track that it resembles most."""

    query_start_s: float
    query_end_s: float
    clip: int
    track_start_s: float
    track_end_s: float
    similarity: float


@dataclass(frozen=True)
class FoundTrack:
    """A track with its matches, the most similar first; `similarity` is that of the first."""

    track: int
    path: str
    artist: str | None
    title: str | None
    similarity: float
    matches: list[Match]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def embedder_of(
    path: Path, found: Provenance, corpus: Provenance, options: ModelOptions, *, ignore_unused_backend: bool = False
) -> Embedder:
    """The embedder that the vectors at `path` were made with.

    Args:
        found: the provenance of the vectors.
        options: if there is no checkpoint, it is taken from the cache; if there are no windows, from the provenance.
        ignore_unused_backend: as for `load_embedder`.

    Raises:
        StaleArtefactError: if the vectors are of another corpus, or were made with other settings or weights.
    """
    require_fresh(path, found, Provenance("vectors", found.settings, {"corpus": corpus.fingerprint}), MADE_BY)
    name, digest = str(found.settings.get("embedder")), found.settings.get("checkpoint")
    if options.windows is None:
        options = replace(options, windows=found.settings.get("windows"))
    if options.checkpoint is None and digest and (file := cached(str(digest))):
        options = replace(options, checkpoint=str(file))
    embedder = load_embedder(name, options, ignore_unused_backend=ignore_unused_backend)
    now = vectors_provenance(embedder, corpus).settings
    differing = sorted(key for key in {**found.settings, **now} if found.settings.get(key) != now.get(key))
    if "checkpoint" in differing:
        raise StaleArtefactError(
            f"{path} was made with another checkpoint of {name} (SHA-256 {str(digest)[:16]}…); give that "
            "one with --checkpoint."
        )
    if differing:
        raise StaleArtefactError(
            f"{path} was made with other settings of {name} ({', '.join(differing)}); use the same, or run "
            f"`{MADE_BY}` again."
        )
    return embedder


def searcher(
    path: Path,
    vectors: npt.NDArray[Any],
    provenance: Provenance,
    *,
    approximate: bool = False,
    store: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Nearest, dict[str, Any]]:
    """A function that finds the nearest rows of `vectors` (read from `path`), and facts: `exact`, or else its recall.

    Raises:
        RootnoteError: if an index cannot be built or a store cannot be reached.
    """
    if approximate:
        from embeddings.search.faiss_index import open_index

        index = open_index(path, vectors, provenance, progress=progress)
        facts = {"exact": False, "index": index.kind, "built_now": index.built_now, "recall": index.recall}
        return index.nearest, facts
    if store:
        from embeddings.search.milvus import LARGEST_K, nearest_in

        def in_store(queries: Vectors, k: int) -> Neighbours:
            if k > LARGEST_K:
                return exact_nearest(vectors, queries, k)
            return nearest_in(store, provenance, vectors, queries, k, progress=progress)

        return in_store, {"exact": True, "store": store}
    return lambda queries, k: exact_nearest(vectors, queries, k), {"exact": True}


def read_query(
    path: Path,
    embedder: Embedder,
    projection: Projection | None,
    *,
    seconds: float,
    hop_seconds: float,
    silence_dbfs: float,
) -> Query:
    """Cut a piece of audio into clips of `seconds`, one every `hop_seconds`, and embed them in bounded memory.

    Raises:
        RootnoteError: if it cannot be decoded, is shorter than a clip, or is silent.
    """
    starts: list[float] = []
    vectors: list[Vectors] = []
    silent = 0
    clips = _clips(path, seconds, hop_seconds, embedder.sample_rate)
    while batch := list(itertools.islice(clips, embedder.batch_size)):
        heard = [(start, clip) for start, clip in batch if rms_dbfs(clip) >= silence_dbfs]
        silent += len(batch) - len(heard)
        starts += [start for start, _ in heard]
        if heard:
            vectors.append(embed_clips(embedder, projection, np.stack([clip for _, clip in heard])))
    if not starts and not silent:
        raise DataError(f"{path} is shorter than a clip of the corpus ({seconds:g} s); give a longer piece.")
    if not starts:
        raise DataError(f"{path} is silent (below {silence_dbfs:g} dBFS); there is nothing to search for.")
    return Query(starts, seconds, np.concatenate(vectors), silent)


def find_tracks(table: pa.Table, query: Query, nearest: Nearest, top: int) -> list[FoundTrack]:
    """The `top` tracks of the corpus that resemble the audio most (all tracks, if there are fewer).

    Args:
        nearest: gives the k nearest rows of `table` to each vector.
    """
    tracks = table["track"].to_numpy()
    starts = table["start_s"].to_numpy()
    matches: dict[int, list[Match]] = defaultdict(list)
    for number, row, score in _kept(tracks, query.vectors, nearest, top):
        begin, there = query.starts[number], float(starts[row])
        similarity = round(min(1.0, score), 6)
        found = Match(begin, begin + query.seconds, row, there, there + query.seconds, similarity)
        matches[int(tracks[row])].append(found)
    found_tracks = [_found(table, track, found) for track, found in matches.items()]
    found_tracks.sort(key=lambda one: (-one.similarity, -len(one.matches), one.track))
    return found_tracks[:top]


def _clips(path: Path, seconds: float, hop_seconds: float, rate: int) -> Iterator[tuple[float, Samples]]:
    positions = (round(index * hop_seconds * rate) for index in itertools.count())
    with Track(path) as track:
        # Resampling may end a few samples before the last whole clip: up to 5 ms of silence fill the gap.
        blocks = itertools.chain(track.blocks(rate), [np.zeros(rate // 200, np.float32)])
        for index, clip in enumerate(windows(blocks, positions, round(seconds * rate))):
            yield index * hop_seconds, clip


def _kept(
    tracks: npt.NDArray[np.int64], queries: Vectors, nearest: Nearest, top: int
) -> Iterator[tuple[int, int, float]]:
    """(query, row, score) of each query's best clip in each of its `top` best tracks."""
    top = min(top, len(np.unique(tracks)))
    depth = min(len(tracks), _FIRST_DEPTH * top)
    todo = np.arange(len(queries))
    while len(todo):
        again: list[int] = []
        at_once = max(1, _HELD // depth)
        for part in (todo[begin : begin + at_once] for begin in range(0, len(todo), at_once)):
            found = nearest(queries[part], depth)
            for number, scores, rows in zip(part.tolist(), found.scores, found.rows, strict=True):
                _, places = np.unique(tracks[rows], return_index=True)
                if len(places) < top:
                    again.append(number)
                    continue
                for place in np.sort(places)[:top].tolist():
                    yield number, int(rows[place]), float(scores[place])
        # All of the nearest clips may be from one track: search deeper for these queries only.
        todo, depth = np.array(again, np.int64), min(len(tracks), 4 * depth)


def _found(table: pa.Table, track: int, matches: list[Match]) -> FoundTrack:
    matches = sorted(matches, key=lambda match: (-match.similarity, match.query_start_s))
    row = matches[0].clip
    path, artist, title = (table[column][row].as_py() for column in ("path", "artist", "title"))
    return FoundTrack(track, path, artist, title, matches[0].similarity, matches)


def as_table(tracks: Sequence[FoundTrack]) -> RenderableType:
    """The tracks with their best matches, as a table for the terminal."""
    table = RichTable("", "track", "similarity", "in the audio", "in the track", box=SIMPLE_HEAD)
    for rank, track in enumerate(tracks, start=1):
        by = " – ".join(part for part in (track.artist, track.title) if part)
        # Text, because names may contain what rich would interpret as markup.
        name = Text(f"{track.path}\n{by}" if by else track.path)
        shown = track.matches[:_SHOWN]
        more = len(track.matches) - len(shown)
        table.add_row(
            str(rank),
            name,
            "\n".join(f"{match.similarity:.4f}" for match in shown) + (f"\n… {more} more" if more else ""),
            "\n".join(f"{_clock(match.query_start_s)}–{_clock(match.query_end_s)}" for match in shown),
            "\n".join(f"{_clock(match.track_start_s)}–{_clock(match.track_end_s)}" for match in shown),
        )
    return table


def _clock(seconds: float) -> str:
    """Minutes and seconds, with a decimal if it is not zero: 1:12, 1:12.5."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}:{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
