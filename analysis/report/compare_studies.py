"""Comparison of studies: Table 1 of this study with that of others, such as the paper's.

Another study is a file of responses, a file of counts (columns embedder, bin_high, bin_low, agreed, n), or the word
"paper". Embedders of the same name, ignoring case, are compared cell by cell: Fisher's exact test, Newcombe's
interval of the difference (this study minus the other), Holm's correction over the bin pairs of one comparison.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.presentation.tables import as_data as table_data
from analysis.responses.load import DEFAULT_PLAN, read_responses
from analysis.statistics.agreement import Table1, paper_counts, table1, tabulate
from analysis.statistics.comparison import Contrast, compare_counts, contrasts_as_data
from embeddings.errors import RootnoteError
from study.design.bin_pairs import BIN_PAIRS

PAPER = "paper"
COUNTS = ("embedder", "bin_high", "bin_low", "agreed", "n")


@dataclass(frozen=True)
class ComparedStudy:
    """Another study: its name, the source of its numbers, and Table 1."""

    name: str
    source: str
    tables: Table1


@dataclass(frozen=True)
class StudyComparison:
    """This study compared with another: the other, and a contrast for every embedder that both have."""

    study: ComparedStudy
    contrasts: tuple[Contrast, ...]


def read_study(other: str) -> ComparedStudy:
    """The study that `--compare` names.

    Raises:
        RootnoteError: if there is no such file, or it has neither responses nor counts.
    """
    if other == PAPER:
        source = "Table 1 of Exploring Musical Roots, as counts"
        return ComparedStudy("Exploring Musical Roots", source, tabulate(paper_counts()))
    path = Path(other)
    if _is_counts(path):
        return ComparedStudy(path.stem, path.name, tabulate(_read_counts(path)))
    read = read_responses(path, DEFAULT_PLAN)
    return ComparedStudy(", ".join(read.studies) or path.stem, path.name, table1(read.frame))


def _is_counts(path: Path) -> bool:
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as handle:
        names = [name.strip() for name in handle.readline().lstrip("\ufeff").split(",")]
    return set(COUNTS) <= set(names) and "listener" not in names


def _read_counts(path: Path) -> pd.DataFrame:
    """Checked counts; rows of totals, as in Rootnote's own table1.csv, are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise RootnoteError(f"{path} is not a readable CSV file of counts.") from error
    rows.columns = pd.Index([str(name).strip() for name in rows.columns])
    pairs = {(str(high), str(low)) for high, low in BIN_PAIRS}
    found = []
    for number, row in enumerate(rows[list(COUNTS)].itertuples(index=False, name=None), start=2):
        embedder, high, low, agreed, n = (str(value).strip() for value in row)
        if low == "total":
            continue
        if (high, low) not in pairs:
            raise RootnoteError(f"{path}, row {number}: bins {high} and {low} are not a pair of bins from 1 to 4.")
        if not (agreed.isdecimal() and n.isdecimal() and int(agreed) <= int(n)):
            raise RootnoteError(
                f"{path}, row {number}: agreed is '{agreed[:40]}' and n '{n[:40]}'; give whole numbers, agreed <= n."
            )
        found.append((embedder, int(high), int(low), int(agreed), int(n)))
    counts = pd.DataFrame(found, columns=list(COUNTS))
    twice = counts[counts.duplicated(["embedder", "bin_high", "bin_low"])]
    if len(twice):
        first = twice.iloc[0]
        raise RootnoteError(
            f"{path} has {first.embedder}, bins {first.bin_high} and {first.bin_low}, twice; remove one row."
        )
    if not counts["n"].sum():
        raise RootnoteError(f"{path} has no counts: only column names, or only zeros.")
    return counts


def compare_studies(tables: Table1, name: str, others: Sequence[ComparedStudy]) -> tuple[StudyComparison, ...]:
    """Compare this study's tables with those of each other study."""
    return tuple(StudyComparison(other, _contrasts(tables, name, other)) for other in others)


def _contrasts(tables: Table1, name: str, other: ComparedStudy) -> tuple[Contrast, ...]:
    found = []
    for embedder, table in tables.items():
        same = next((known for known in other.tables if known.casefold() == embedder.casefold()), None)
        if same is None:
            continue
        # Numbered, so that the order does not depend on the names.
        rows = [
            (label, high, low, one.pairs[high, low].agreed, one.pairs[high, low].n)
            for label, one in ((f"0 {embedder}", table), (f"1 {embedder}", other.tables[same]))
            for high, low in BIN_PAIRS
        ]
        (contrast,) = compare_counts(pd.DataFrame(rows, columns=list(COUNTS)))
        found.append(Contrast(f"{embedder}, {name}", f"{same}, {other.name}", contrast.rows, ""))
    return tuple(found)


def as_data(comparisons: Sequence[StudyComparison]) -> list[dict[str, Any]]:
    """The comparisons as plain data."""
    return [
        {
            "study": one.study.name,
            "source": one.study.source,
            "table1": table_data(one.study.tables),
            "contrasts": contrasts_as_data(one.contrasts),
        }
        for one in comparisons
    ]


def to_frame(name: str, tables: Table1, comparisons: Sequence[StudyComparison]) -> pd.DataFrame:
    """All studies as one table: study, embedder, bin_high, bin_low, agreed, n, rate."""
    rows = [
        (study, embedder, high, low, cell.agreed, cell.n, cell.rate)
        for study, found in ((name, tables), *((one.study.name, one.study.tables) for one in comparisons))
        for embedder, table in found.items()
        for (high, low), cell in table.pairs.items()
    ]
    return pd.DataFrame(rows, columns=["study", "embedder", "bin_high", "bin_low", "agreed", "n", "rate"])
