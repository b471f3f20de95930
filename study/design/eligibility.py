"""Eligible prompts: the random prompts with a clip in each of bins 1 to 3, and how they differ from the others.

Only eligible prompts can be used, so a study generalises to the music that they stand for.
Conventions: clips are corpus rows; a standardised difference is the difference of two means, or of two shares, over
their pooled standard deviation (Austin 2009); one of 0.2 is usually called small, one of 0.8 large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.provenance import Provenance, read_table, write_table
from embeddings.wording import counted
from study.design.bin_pairs import BINS

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NOTABLE = 0.2
LEAST_PROMPTS = 5  # values of a tag that fewer prompts have say little
NUMBERS = {"start_s": "position in the track", "rms_dbfs": "level"}


@dataclass(frozen=True)
class Prompts:
    """The random prompts: rows and tracks int64 [P], clips in bins 1 to 3 int64 [P, 3], and two masks [P]."""

    rows: Rows
    tracks: Rows
    counts: npt.NDArray[np.int64]
    eligible: Mask
    chosen: Mask

    def describe_shortage(self) -> str:
        """How many prompts have a clip in each of bins 1 to 3, the shortest bin first."""
        having = {number: int((self.counts[:, i] > 0).sum()) for i, number in enumerate(BINS[:3])}
        short, *others = sorted(having, key=lambda number: having[number])
        rest = ", ".join(f"bin {number}: {having[number]:,}" for number in others)
        return f"bin {short} is short: {counted(having[short], 'prompt')} with a clip in it ({rest})"

    def describe(self) -> str:
        """How many prompts are eligible, how many were chosen, and from how many tracks."""
        chosen, tracks = int(self.chosen.sum()), len(np.unique(self.tracks[self.chosen]))
        text = (
            f"{int(self.eligible.sum()):,} of {counted(len(self.rows), 'prompt')} eligible, "
            f"{chosen:,} chosen from {counted(tracks, 'track')}"
        )
        if tracks < chosen:
            text += ", some several times because no other track has an eligible prompt"
        return text


def spread_over_tracks(order: Iterable[int], tracks: Rows) -> Iterator[int]:
    """The same prompts, the first of each track before the second of any.

    Args:
        order: indices of prompts.
        tracks: the track of each prompt, int64 [P].
    """
    rounds: dict[int, int] = {}
    numbered = []
    for index in order:
        track = int(tracks[index])
        rounds[track] = rounds.get(track, 0) + 1
        numbered.append((rounds[track], index))
    # A stable sort keeps the given order within a round.
    yield from (index for _, index in sorted(numbered, key=lambda pair: pair[0]))


def write_prompts(path: Path, prompts: Prompts, provenance: Provenance) -> None:
    """Write `<embedder>.prompts.parquet`: prompt, track, in_bin_1 to in_bin_3, eligible, chosen."""
    columns = {"prompt": pa.array(prompts.rows), "track": pa.array(prompts.tracks)}
    columns |= {f"in_bin_{number}": pa.array(prompts.counts[:, i]) for i, number in enumerate(BINS[:3])}
    columns |= {"eligible": pa.array(prompts.eligible), "chosen": pa.array(prompts.chosen)}
    write_table(path, pa.table(columns), provenance)


def read_prompts(path: Path) -> Prompts:
    """Read `<embedder>.prompts.parquet`.

    Raises:
        ArtefactError: if the file is missing or damaged.
    """
    table, _ = read_table(path, "prompts", "rootnote study build")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    counts = np.column_stack([columns[f"in_bin_{number}"] for number in BINS[:3]])
    return Prompts(columns["prompt"], columns["track"], counts, columns["eligible"], columns["chosen"])


def prompts_provenance(embedder: str, triplets: str) -> Provenance:
    """The provenance of the prompts of an embedder, counted with the triplets of that fingerprint."""
    return Provenance("prompts", {"embedder": embedder}, {"triplets": triplets})


def describe_prompts(path: Path, corpus: pa.Table) -> list[str]:
    """What a file of prompts says in words; nothing if an earlier version built the study and there is none."""
    if not path.is_file():
        return []
    prompts = read_prompts(path)
    differences = notable(compare_eligible(prompts, corpus))
    sentences = [prompts.describe()]
    if differences:
        sentences.append("eligible prompts differ from the others: " + "; ".join(one.describe() for one in differences))
    return sentences


@dataclass(frozen=True)
class TagDifference:
    """How a property of the eligible prompts differs from that of the others.

    Attributes:
        tag, value: a tag and one of its values; for a number, the value is empty.
        prompts: how many prompts have the value.
        eligible: the share of them that is eligible; for a number, nothing.
        difference: the standardised difference of the eligible prompts and the others; infinite if nothing varies.
    """

    tag: str
    value: str
    prompts: int
    eligible: float | None
    difference: float

    def describe(self) -> str:
        if self.eligible is None:
            direction = "higher" if self.difference > 0 else "lower"
            return f"their {self.tag} is {abs(self.difference):.2f} standard deviations {direction}"
        return f"{self.tag} {self.value!r}: {100 * self.eligible:.0f} % of {counted(self.prompts, 'prompt')} eligible"


def compare_eligible(prompts: Prompts, corpus: pa.Table) -> list[TagDifference]:
    """Eligible against other prompts by every tag and level, the largest absolute difference first.

    Args:
        corpus: the corpus table, a row per clip.
    """
    if prompts.eligible.all() or not prompts.eligible.any():
        return []
    rows = corpus.take(prompts.rows).to_pydict()
    found: list[TagDifference] = []
    for tag in (field.name for field in corpus.schema if field.type == pa.string() and field.name != "path"):
        values = np.array([str(value or "") for value in rows[tag]])
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            if value and LEAST_PROMPTS <= count < len(values):
                has = values == value
                share = float(prompts.eligible[has].mean())
                found.append(TagDifference(tag, str(value), int(count), share, _standardised(has, prompts.eligible)))
    for name, label in NUMBERS.items():
        numbers = np.asarray(rows[name], np.float64)
        found.append(TagDifference(label, "", len(numbers), None, _standardised(numbers, prompts.eligible)))
    return sorted(found, key=lambda one: -abs(one.difference))


def notable(differences: Iterable[TagDifference], most: int = 3) -> list[TagDifference]:
    """The differences worth a word, at most `most`."""
    return [one for one in differences if abs(one.difference) > NOTABLE][:most]


def _standardised(values: npt.NDArray[Any], eligible: Mask) -> float:
    inside, outside = values[eligible].astype(np.float64), values[~eligible].astype(np.float64)
    spread = math.sqrt((inside.var() + outside.var()) / 2)
    difference = float(inside.mean() - outside.mean())
    if not spread:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / spread
