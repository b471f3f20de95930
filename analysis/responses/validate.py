"""Checks of responses: every value is what its column allows, and no answer is there twice.

Conventions: rows are counted as a spreadsheet counts them (the header of a CSV is row 1), blank lines apart; a blank
optional column counts as absent; the first thing that is wrong is an error that names file, row and column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.errors import RootnoteError
from study.design.bin_pairs import BINS

KINDS = ("scored", "catch", "repeat")
# How spreadsheets, pandas and R write what is missing, and what is true.
BLANK = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "null"})
TRUTH = {"true": 1.0, "false": 0.0}


def check(path: Path, table: pa.Table, first_row: int) -> pd.DataFrame:
    """Check every value; return the frame with whole numbers as numbers and all else as text.

    Raises:
        RootnoteError: naming the row and the column.
    """
    columns = _Columns(path, table, first_row)
    frame: dict[str, Any] = {name: columns.text(name) for name in ("embedder", "listener", "prompt")}
    frame |= {name: columns.whole(name, BINS, "a bin from 1 to 4") for name in ("bin_high", "bin_low")}
    frame["agreed"] = columns.whole("agreed", (0, 1), "0 or 1")
    for name in ("passed_prescreen", "completed"):
        if columns.has(name):
            frame[name] = columns.whole(name, (0, 1), "0 or 1")
    for name, allowed in (("kind", KINDS), ("high_side", ("A", "B")), ("choice", ("A", "B"))):
        if columns.has(name):
            frame[name] = columns.one_of(name, allowed)
    for name in ("similarity_high", "similarity_low", "response_ms", "plays_x", "plays_a", "plays_b", "confidence"):
        if columns.has(name):
            frame[name] = columns.number(name)
    for name in ("study", "assignment", "trial", "position", "clip_high", "clip_low", "answered_at"):
        if columns.has(name):
            frame[name] = columns.text(name, blank_allowed=True)
    made = pd.DataFrame(frame)
    columns.refuse(
        made["bin_high"] >= made["bin_low"],
        lambda row: (
            f"bin_high is {row['bin_high']} and bin_low {row['bin_low']}; "
            "bin_high must be the smaller number (the more similar bin)"
        ),
        made,
    )
    if {"choice", "high_side"} <= set(made):
        columns.refuse(
            (made["choice"].astype(str) == made["high_side"].astype(str)) != (made["agreed"] == 1),
            lambda row: (
                f"agreed is {row['agreed']}, but choice is {row['choice']} "
                f"and high_side {row['high_side']}; one of the three is wrong"
            ),
            made,
        )
    _refuse_duplicates(columns, made)
    return made


class _Columns:
    """The columns of one file, read with errors that name file, row and column."""

    def __init__(self, path: Path, table: pa.Table, first_row: int) -> None:
        self.path, self.first_row = path, first_row
        # Few distinct values, many rows: each distinct value is looked at once.
        self.coded = {
            name: pc.utf8_trim_whitespace(table[name]).combine_chunks().dictionary_encode()
            for name in table.column_names
        }

    def has(self, name: str) -> bool:
        """Whether the column is there and says anything."""
        return name in self.coded and any(value not in BLANK for value in self._distinct(name))

    def _distinct(self, name: str) -> list[str]:
        return [str(value) for value in self.coded[name].dictionary.to_pylist()]

    def _codes(self, name: str) -> npt.NDArray[np.int64]:
        codes: npt.NDArray[np.int64] = self.coded[name].indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return codes

    def _bad(self, name: str, good: npt.NDArray[np.bool_], must: str) -> None:
        if good.all():
            return
        codes = self._codes(name)
        index = int(np.argmax(~good[codes]))
        value = self._distinct(name)[int(codes[index])]
        shown = f"'{value[:40]}'" if value else "blank"
        raise RootnoteError(f"{self.path}, row {index + self.first_row}: {name} is {shown}; it must be {must}.")

    def text(self, name: str, blank_allowed: bool = False) -> pd.Categorical:
        """Texts; whatever stands for a missing one is ""."""
        distinct = self._distinct(name)
        if not blank_allowed:
            self._bad(name, np.array([value not in BLANK for value in distinct], bool), "given")
        told = ["" if value in BLANK else value for value in distinct]
        place = {value: number for number, value in enumerate(dict.fromkeys(told))}
        codes = np.array([place[value] for value in told], np.int64)[self._codes(name)]
        return cast("pd.Categorical", pd.Categorical.from_codes(codes, categories=pd.Index(list(place))))

    def one_of(self, name: str, allowed: tuple[str, ...]) -> pd.Categorical:
        good = np.array([value in allowed for value in self._distinct(name)], bool)
        self._bad(name, good, ", ".join(allowed[:-1]) + f" or {allowed[-1]}")
        return self.text(name)

    def whole(self, name: str, allowed: tuple[int, ...], must: str) -> npt.NDArray[np.int8]:
        truth = TRUTH if allowed == (0, 1) else {}
        parsed = [truth.get(value.lower(), _number(value)) for value in self._distinct(name)]
        self._bad(name, np.array([value in allowed for value in parsed], bool), must)
        return np.array(parsed, float).astype(np.int8)[self._codes(name)]

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Floats; blank is NaN."""
        distinct = self._distinct(name)
        parsed = np.array([_number(value) for value in distinct], float)
        blank = np.array([value in BLANK for value in distinct], bool)
        self._bad(name, np.isfinite(parsed) | blank, "a number")
        return parsed[self._codes(name)]

    def refuse(self, wrong: pd.Series[bool], say: Any, frame: pd.DataFrame) -> None:
        if wrong.any():
            index = int(np.argmax(wrong.to_numpy()))
            where = f"{self.path}, row {index + self.first_row}"
            raise RootnoteError(f"{where}: {say(frame.iloc[index])}.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _refuse_duplicates(columns: _Columns, frame: pd.DataFrame) -> None:
    """One answer must not count twice.

    Where rows have ids, the ids decide; where they have none, a listener cannot have answered the same
    prompt and bins (and clips) twice, except in a repeat trial.
    """
    full = {name for name in frame if name not in _IDS or not (frame[name] == "").any()}
    who = ["listener", *sorted({"study", "assignment"} & full), "embedder"]
    if not {"trial", "position"} & full:
        content = [*who, "prompt", "bin_high", "bin_low", *sorted({"clip_high", "clip_low", "kind"} & full)]
        _refuse_equal(columns, frame, content)
    if "trial" in full:
        _refuse_equal(columns, frame, [*who, "trial"])
    if "position" in full:
        _refuse_equal(columns, frame, [*who, "position"])


_IDS = ("study", "assignment", "trial", "position", "clip_high", "clip_low")


def _refuse_equal(columns: _Columns, frame: pd.DataFrame, keys: list[str]) -> None:
    again = frame.duplicated(subset=keys)
    if not again.any():
        return
    second = int(np.argmax(again.to_numpy()))
    values = frame[keys].iloc[second]
    same = (frame[keys] == values).all(axis=1)
    first = int(np.argmax(same.to_numpy()))
    named = ", ".join(f"{key} {str(values[key])[:40]}" for key in keys)
    count = int(again.sum())
    more = f" ({count} such rows)" if count > 1 else ""
    raise RootnoteError(
        f"{columns.path}: rows {first + columns.first_row} and {second + columns.first_row} are the same response "
        f"({named}){more}; remove the duplicates."
    )
