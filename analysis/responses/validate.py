"""Checks of responses: every value is one that study.columns allows, and no response occurs twice.

Conventions: rows are counted as in a spreadsheet (the header of a CSV is row 1), without blank lines; an optional
column without any value counts as absent; the first wrong value is an error that names file, row and column.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.errors import RootnoteError
from study.columns import RESPONSE_COLUMNS, AnyText, Check, Number, OneOf, columns_read

# How spreadsheets, pandas and R write missing values and truth values.
BLANK = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "null"})
TRUTH = {"true": 1.0, "false": 0.0}


def check(path: Path, table: pa.Table, first_row: int) -> pd.DataFrame:
    """Check every value.

    Returns:
        A frame in which bins and truth values are integers, measurements are floats and the rest is categorical text.

    Raises:
        RootnoteError: naming the row and the column.
    """
    columns = _Columns(path, table, first_row)
    frame: dict[str, Any] = {}
    for name in columns_read("needed", "used"):
        needed = RESPONSE_COLUMNS[name].analysis == "needed"
        if needed or columns.has_values(name):
            frame[name] = columns.parse(name, RESPONSE_COLUMNS[name].check, needed)
    checked = pd.DataFrame(frame)
    columns.refuse(
        checked["bin_high"] >= checked["bin_low"],
        lambda row: (
            f"bin_high is {row['bin_high']} and bin_low {row['bin_low']}; "
            "bin_high must be the smaller number (the more similar bin)"
        ),
        checked,
    )
    if {"choice", "high_side"} <= set(checked):
        columns.refuse(
            (checked["choice"].astype(str) == checked["high_side"].astype(str)) != (checked["agreed"] == 1),
            lambda row: (
                f"agreed is {row['agreed']}, but choice is {row['choice']} "
                f"and high_side {row['high_side']}; one of the three is wrong"
            ),
            checked,
        )
    _refuse_duplicates(columns, checked)
    return checked


class _Columns:
    """The columns of one file, read with errors that name file, row and column."""

    def __init__(self, path: Path, table: pa.Table, first_row: int) -> None:
        self.path, self.first_row = path, first_row
        # There are many rows but few distinct values, so each distinct value is checked once.
        self.coded = {
            name: pc.utf8_trim_whitespace(table[name]).combine_chunks().dictionary_encode()
            for name in table.column_names
        }

    def has_values(self, name: str) -> bool:
        """Whether the column is present and not blank."""
        return name in self.coded and any(value not in BLANK for value in self._distinct(name))

    def _distinct(self, name: str) -> list[str]:
        return [str(value) for value in self.coded[name].dictionary.to_pylist()]

    def _codes(self, name: str) -> npt.NDArray[np.int64]:
        codes: npt.NDArray[np.int64] = self.coded[name].indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return codes

    def _require(self, name: str, good: npt.NDArray[np.bool_], must: str) -> None:
        if good.all():
            return
        codes = self._codes(name)
        index = int(np.argmax(~good[codes]))
        value = self._distinct(name)[int(codes[index])]
        shown = f"'{value[:40]}'" if value else "blank"
        raise RootnoteError(f"{self.path}, row {index + self.first_row}: {name} is {shown}; it must be {must}.")

    def parse(self, name: str, check: Check, needed: bool) -> Any:
        """The checked values of a column; if the column is required, none may be blank."""
        match check:
            case AnyText():
                return self.text(name, blank_allowed=not needed)
            case Number():
                return self.number(name)
            case OneOf(allowed):
                return self.one_of(name, allowed)
        assert_never(check)

    def text(self, name: str, blank_allowed: bool = False) -> pd.Categorical:
        """Texts; a missing one is ""."""
        distinct = self._distinct(name)
        if not blank_allowed:
            self._require(name, np.array([value not in BLANK for value in distinct], bool), "given")
        texts = ["" if value in BLANK else value for value in distinct]
        code_of = {value: number for number, value in enumerate(dict.fromkeys(texts))}
        codes = np.array([code_of[value] for value in texts], np.int64)[self._codes(name)]
        return cast("pd.Categorical", pd.Categorical.from_codes(codes, categories=pd.Index(list(code_of))))

    def one_of(self, name: str, allowed: tuple[str, ...] | tuple[int, ...]) -> pd.Categorical | npt.NDArray[np.int8]:
        """One of a few texts, or of a few whole numbers; "true" and "false" stand for 1 and 0."""
        distinct = self._distinct(name)
        must = ", ".join(map(str, allowed[:-1])) + f" or {allowed[-1]}"
        if isinstance(allowed[0], str):
            self._require(name, np.array([value in allowed for value in distinct], bool), must)
            return self.text(name)
        truth = TRUTH if allowed == (0, 1) else {}
        parsed = [truth.get(value.lower(), _number(value)) for value in distinct]
        self._require(name, np.array([value in allowed for value in parsed], bool), must)
        return np.array(parsed, float).astype(np.int8)[self._codes(name)]

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Floats; blank is NaN."""
        distinct = self._distinct(name)
        parsed = np.array([_number(value) for value in distinct], float)
        blank = np.array([value in BLANK for value in distinct], bool)
        self._require(name, np.isfinite(parsed) | blank, "a number")
        return parsed[self._codes(name)]

    def refuse(self, wrong: pd.Series[bool], describe: Callable[[pd.Series[Any]], str], frame: pd.DataFrame) -> None:
        if wrong.any():
            index = int(np.argmax(wrong.to_numpy()))
            where = f"{self.path}, row {index + self.first_row}"
            raise RootnoteError(f"{where}: {describe(frame.iloc[index])}.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _refuse_duplicates(columns: _Columns, frame: pd.DataFrame) -> None:
    """Refuse a response that occurs twice.

    Rows with ids are compared by these. Without ids, a listener must not have answered the same prompt and bins (and
    clips) twice, except in a repeat trial.
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
    repeated = frame.duplicated(subset=keys)
    if not repeated.any():
        return
    second = int(np.argmax(repeated.to_numpy()))
    values = frame[keys].iloc[second]
    same = (frame[keys] == values).all(axis=1)
    first = int(np.argmax(same.to_numpy()))
    named = ", ".join(f"{key} {str(values[key])[:40]}" for key in keys)
    count = int(repeated.sum())
    more = f" ({count} such rows)" if count > 1 else ""
    raise RootnoteError(
        f"{columns.path}: rows {first + columns.first_row} and {second + columns.first_row} are the same response "
        f"({named}){more}; remove the duplicates."
    )
