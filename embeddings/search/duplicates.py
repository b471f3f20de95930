"""Duplicates: clips that occur more than once in a corpus, in groups.

Exact duplicates have the same samples (`embeddings.audio.content_hash`). Near-identical clips have vectors whose
cosine reaches a threshold, in all of the vectors given or, with `match_any`, in one of them. Chains of such pairs form
a group. Of clips with the same samples only the first is compared further, so many copies cost no more than one clip.
Conventions: groups are in the order of their first clips, clips in the order of their rows. A clip's similarity is
its cosine with the group's first clip: the lowest over the vectors given, with `match_any` the highest; 1 for the
same samples. In a chain it may be below the threshold.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from embeddings.audio.content_hash import Hashes
from embeddings.audio.corpus import Progress
from embeddings.errors import ArtefactError, ConfigError, StaleArtefactError
from embeddings.provenance import Provenance, read_json, replacing, require_fresh, write_json
from embeddings.search.near_pairs import Likeness, join_near
from embeddings.search.union_find import Rows
from embeddings.vectors import MADE_BY as EMBED
from embeddings.vectors import read_vectors
from embeddings.wording import counted

MADE_BY = "rootnote embeddings duplicates"
COLUMNS = ("group", "kind", "clip", "track", "path", "start_s", "similarity", "artist", "title")
Kind = Literal["first", "exact", "near"]
_ROWS_AT_ONCE = 100_000
_NAMED = 10  # groups that the text summary lists


@dataclass(frozen=True)
class Member:
    """A clip of a group: `kind` and `similarity` say how it relates to the group's first clip."""

    clip: int
    kind: Kind
    similarity: float


@dataclass(frozen=True)
class Group:
    """Clips that are duplicates of one another, two or more, in row order."""

    members: tuple[Member, ...]

    @property
    def clips(self) -> list[int]:
        """Their rows in the corpus."""
        return [member.clip for member in self.members]


def find_duplicates(
    table: pa.Table,
    hashes: Hashes,
    likenesses: Sequence[Likeness] = (),
    *,
    match_any: bool = False,
    across_tracks: bool = False,
    progress: Progress | None = None,
) -> list[Group]:
    """Group the duplicates of a corpus.

    Args:
        hashes: the content hashes of its clips, from `content_hashes`.
        likenesses: vectors to find near-identical clips by; none: exact duplicates only.
        match_any: agreement of one of the likenesses is enough; by default all must agree.
        across_tracks: leave out groups whose clips are all of one track (a loop that repeats).
        progress: called with the thousandths of all pairs of clips that are compared, and their total.

    Raises:
        ArtefactError: if vectors do not belong to the corpus.
        DataError: if they contain a value that is not finite.
    """
    for one in likenesses:
        if len(one.vectors) != table.num_rows:
            rows, clips = counted(len(one.vectors), "row"), counted(table.num_rows, "clip")
            raise ArtefactError(f"{one.name} has {rows}, but the corpus has {clips}; embed the corpus again.")
    first_copy = _first_equal(hashes)
    distinct = np.unique(first_copy)
    firsts = np.arange(table.num_rows)
    firsts[distinct] = join_near(distinct, likenesses, match_any=match_any, progress=progress)
    firsts = firsts[first_copy]
    tracks = table["track"].to_numpy()
    return [
        _group(members, first_copy, likenesses, match_any)
        for members in _gathered(firsts)
        if not across_tracks or tracks[members[0]] != tracks[members[-1]]
    ]


def rows_of(groups: Sequence[Group], table: pa.Table) -> Iterator[dict[str, Any]]:
    """A row of `COLUMNS` for each clip of each group; groups are numbered from 1."""
    numbered = [(number, member) for number, group in enumerate(groups, start=1) for member in group.members]
    described = table.select(["track", "path", "start_s", "artist", "title"])
    for begin in range(0, len(numbered), _ROWS_AT_ONCE):
        part = numbered[begin : begin + _ROWS_AT_ONCE]
        clips = described.take(np.array([member.clip for _, member in part])).to_pylist()
        for (number, member), clip in zip(part, clips, strict=True):
            facts = {"group": number, "kind": member.kind, "clip": member.clip, "similarity": member.similarity, **clip}
            yield {column: facts[column] for column in COLUMNS}


def write_duplicates(path: Path, groups: Sequence[Group], table: pa.Table, provenance: Provenance) -> None:
    """Write the groups as CSV or, by the suffix .json, as JSON with their provenance.

    Raises:
        RootnoteError: if it has another suffix.
    """
    check_suffix(path)
    if path.suffix == ".json":
        write_json(path, {"duplicates": list(rows_of(groups, table))}, provenance)
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows_of(groups, table))


def check_suffix(path: Path) -> None:
    """Refuse a file of duplicates that is neither .csv nor .json."""
    if path.suffix not in (".csv", ".json"):
        raise ConfigError(f"{path} must end in .csv or .json.")


def read_left_out(path: Path, table: pa.Table | None = None) -> set[int]:
    """The clips to leave out so that one of each group remains: all but the first clip of each.

    Args:
        table: the corpus; duplicates found in another corpus are refused.

    Raises:
        RootnoteError: if the file is missing, damaged, or of another corpus.
    """
    check_suffix(path)
    try:
        rows = [(str(row["kind"]), int(row["clip"]), str(row["path"]), float(row["start_s"])) for row in _read(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is not a file of duplicates ({error}); run `{MADE_BY}`.") from error
    if table is not None:
        _check_corpus(path, rows, table)
    return {clip for kind, clip, _, _ in rows if kind != "first"}


def duplicates_provenance(
    corpus: Provenance,
    vectors: Sequence[tuple[Provenance, float]],
    *,
    match_any: bool,
    across_tracks: bool,
) -> Provenance:
    """The provenance of duplicates found with these vectors and thresholds."""
    settings = {
        "thresholds": [threshold for _, threshold in vectors],
        "match": "any" if match_any else "all",
        "across_tracks": across_tracks,
    }
    made_from = {f"vectors_{number}": one.fingerprint for number, (one, _) in enumerate(vectors, start=1)}
    return Provenance("duplicates", settings, {"corpus": corpus.fingerprint, **made_from})


def read_likenesses(
    paths: Sequence[Path], thresholds: Sequence[float], corpus: Provenance
) -> list[tuple[Likeness, Provenance]]:
    """Open vectors of this corpus, each with its threshold (one for all, or one for each) and its provenance.

    Raises:
        RootnoteError: if a file is missing, damaged, or of another corpus.
    """
    each = list(thresholds) * len(paths) if len(thresholds) == 1 else list(thresholds)
    read = []
    for path, threshold in zip(paths, each, strict=True):
        vectors, found = read_vectors(path)
        require_fresh(path, found, Provenance("vectors", found.settings, {"corpus": corpus.fingerprint}), EMBED)
        read.append((Likeness(vectors, threshold, str(path)), found))
    return read


def counts(groups: Sequence[Group]) -> dict[str, int]:
    """The numbers of groups, of clips in them, and of copies of each kind."""
    kinds = Counter(member.kind for group in groups for member in group.members)
    return {"groups": len(groups), "clips": kinds.total(), "exact": kinds["exact"], "near": kinds["near"]}


def in_words(groups: Sequence[Group], table: pa.Table) -> str:
    """The counts and the largest groups as text."""
    count = counts(groups)
    copies = count["exact"] + count["near"]
    lines = [
        f"{counted(count['groups'], 'group')} of duplicates with {counted(copies, 'copy', 'copies')} "
        f"({count['exact']:,} with the same samples, {count['near']:,} near-identical)."
    ]
    largest = sorted(groups, key=lambda group: -len(group.members))[:_NAMED]
    for group in largest:
        first, *others = rows_of([Group(group.members[:3])], table)
        rest = f" and {len(group.members) - 3:,} more" if len(group.members) > 3 else ""
        lines.append(f"  {_place(first)}: {', '.join(_place(one) for one in others)}{rest}")
    lines += [f"  and {counted(len(groups) - _NAMED, 'more group')}"] if len(groups) > _NAMED else []
    return "\n".join(lines)


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        content, _ = read_json(path, "duplicates", MADE_BY)
        return list(content["duplicates"])
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; run `{MADE_BY}`.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); run `{MADE_BY}`.") from error


def _check_corpus(path: Path, rows: Sequence[tuple[str, int, str, float]], table: pa.Table) -> None:
    clips = np.array([clip for _, clip, _, _ in rows], np.int64)
    fits = not len(clips) or bool(clips.min() >= 0 and clips.max() < table.num_rows)
    if fits:
        found = table.select(["path", "start_s"]).take(clips)
        fits = found["path"].to_pylist() == [name for _, _, name, _ in rows]
        fits = fits and found["start_s"].to_pylist() == [start for _, _, _, start in rows]
    if not fits:
        raise StaleArtefactError(f"{path} lists duplicates of another corpus; run `{MADE_BY}`.")


def _first_equal(hashes: Hashes) -> Rows:
    """For each row the first row with the same hash."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal ones stay in row order
    new = np.ones(len(order), np.bool_)
    new[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return firsts


def _gathered(firsts: Rows) -> Iterator[Rows]:
    """Groups of two or more rows with the same first row, in order."""
    order = np.argsort(firsts, kind="stable")
    edges = np.flatnonzero(np.diff(firsts[order], prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end - begin > 1:
            yield order[begin:end]


def _group(members: Rows, first_copy: Rows, likenesses: Sequence[Likeness], match_any: bool) -> Group:
    exact = first_copy[members] == members[0]
    similarity = np.ones(len(members))
    if not exact.all():
        near = first_copy[members[~exact]]
        cosines = [one.cosines(np.full(len(near), members[0]), near) for one in likenesses]
        similarity[~exact] = np.clip(np.max(cosines, axis=0) if match_any else np.min(cosines, axis=0), -1, 1)
    kinds: list[Kind] = ["first", *("exact" if same else "near" for same in exact[1:])]
    values = similarity.round(6).tolist()
    return Group(tuple(Member(*one) for one in zip(members.tolist(), kinds, values, strict=True)))


def _place(row: Mapping[str, Any]) -> str:
    kind = "" if row["kind"] == "first" else f" ({row['kind']})"
    return f"{row['path']} at {row['start_s']:g} s{kind}"
