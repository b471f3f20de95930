"""Responses of listeners, read from a file and checked before anything is computed.

A file has one row per answered trial. study.columns describes the columns: the analysis needs embedder, listener,
prompt, bin_high, bin_low and agreed, and uses others where present. The rules of analysis.responses.exclusions leave
out responses that do not count.
Conventions: `bin_high` is the more similar bin (the smaller number, 1 to 4); rows are counted as in a spreadsheet (the
header of a CSV is row 1), without blank lines; an optional column without any value counts as absent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.responses.exclusions import Exclusion, ExclusionPlan, apply
from analysis.responses.files import read_bytes, read_text_columns
from analysis.responses.simulated import is_simulated
from analysis.responses.validate import check
from embeddings.errors import RootnoteError

DEFAULT_PLAN = ExclusionPlan()


@dataclass(frozen=True)
class Responses:
    """Checked responses and their source.

    Attributes:
        frame: the rows that count, one per scored trial. Identifiers are text, bins and truth values integers,
            measurements floats (blank is NaN); of the optional columns only those that the file has.
        kept: `frame` and the catch and repeat trials of the same listeners.
        everything: all rows of the file.
        rehearsed: whether the listeners are simulated.
    """

    path: Path
    sha256: str
    frame: pd.DataFrame
    kept: pd.DataFrame
    everything: pd.DataFrame
    plan: ExclusionPlan
    rows_read: int
    listeners_read: int
    exclusions: tuple[Exclusion, ...]
    not_applied: Mapping[str, str]
    file_notes: tuple[str, ...]
    studies: tuple[str, ...]
    dates: tuple[str, str] | None
    rehearsed: bool = False

    @property
    def embedders(self) -> list[str]:
        return sorted(self.frame["embedder"].unique(), key=lambda name: (name.casefold(), name))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks about the file for the report."""
        if len(self.studies) < 2:
            return self.file_notes
        return *self.file_notes, f"Responses of {len(self.studies)} studies are pooled: {', '.join(self.studies)}."

    @property
    def listeners(self) -> int:
        return int(self.frame["listener"].nunique())


def read_responses(path: Path, plan: ExclusionPlan = DEFAULT_PLAN) -> Responses:
    """Read a .csv or .parquet file of responses, check it and apply the plan's exclusion rules.

    Raises:
        RootnoteError: naming file, column and row of the first wrong value.
    """
    content = read_bytes(path)
    table, unknown = read_text_columns(path, content)
    frame = check(path, table, first_row=1 if path.suffix.lower() == ".parquet" else 2)
    notes = []
    if unknown:
        named = ", ".join(repr(name) for name in unknown[:6]) + (", …" if len(unknown) > 6 else "")
        notes.append(f"Columns that Rootnote does not know were ignored: {named}.")
    checked = Responses(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        frame=frame,
        kept=frame,
        everything=frame,
        plan=plan,
        rows_read=len(frame),
        listeners_read=int(frame["listener"].nunique()),
        exclusions=(),
        not_applied={},
        file_notes=tuple(notes),
        studies=(),
        dates=None,
        rehearsed=is_simulated(path),
    )
    return under_rules(checked, plan)


def under_rules(read: Responses, plan: ExclusionPlan) -> Responses:
    """The same responses under other exclusion rules.

    Raises:
        RootnoteError: if the rules leave no response.
    """
    applied = apply(read.everything, plan)
    scored = applied.scored
    if scored.empty:
        reasons = "; ".join(f"{item.reason}: {item.rows}" for item in applied.exclusions if item.rows)
        raise RootnoteError(f"{read.path} has no response left to analyse ({reasons}).")
    studies = tuple(sorted(set(scored["study"]) - {""})) if "study" in scored else ()
    return replace(
        read,
        frame=scored,
        kept=applied.kept,
        plan=plan,
        exclusions=applied.exclusions,
        not_applied=applied.not_applied,
        studies=studies,
        dates=_dates(scored),
    )


def _dates(frame: pd.DataFrame) -> tuple[str, str] | None:
    """The days of the first and the last response, if `answered_at` is in ISO 8601."""
    if "answered_at" not in frame:
        return None
    days = sorted(
        {str(value)[:10] for value in frame["answered_at"].unique() if re.match(r"\d{4}-\d\d-\d\d", str(value))}
    )
    return (days[0], days[-1]) if days else None


def describe(exclusions: tuple[Exclusion, ...]) -> list[Mapping[str, Any]]:
    """The exclusions as plain data."""
    return [{"rule": e.rule, "reason": e.reason, "rows": e.rows, "listeners": e.listeners} for e in exclusions]


def numbered(column: pd.Series[Any]) -> npt.NDArray[np.intp]:
    """A number for each value of a column, in the order of the values' texts, for seeded draws.

    The same responses in another order of rows then give the same resamples.
    """
    coded = column.astype("category").cat.remove_unused_categories().cat
    rank = np.argsort(np.argsort(coded.categories.astype(str), kind="stable"))
    return np.asarray(rank[coded.codes.to_numpy()], np.intp)
