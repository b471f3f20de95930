"""Responses: the answers of listeners, read from a file and checked before anything is computed.

A file has one row per answered trial. Needed columns: embedder, listener, prompt, bin_high, bin_low, agreed.
Used where present: study, assignment, trial, position, kind, clip_high, clip_low, similarity_high,
similarity_low, high_side, choice, response_ms, plays_x, plays_a, plays_b, confidence, passed_prescreen, completed,
answered_at. Other columns are left alone. What does not count is left out by the rules of analysis.exclusions.
Conventions: `bin_high` is the more similar bin (the smaller number, 1..4); rows are counted as a spreadsheet
counts them (the header of a CSV is row 1), blank lines apart; a blank optional column counts as absent.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from analysis.exclusions import Exclusion, ExclusionPlan, apply
from embeddings.artefacts import RootnoteError

NEEDED = ("embedder", "listener", "prompt", "bin_high", "bin_low", "agreed")
USED = (
    "study", "assignment", "trial", "position", "kind", "clip_high", "clip_low", "similarity_high",
    "similarity_low", "high_side", "choice", "response_ms", "plays_x", "plays_a", "plays_b", "confidence",
    "passed_prescreen", "completed", "answered_at",
)  # fmt: skip
# The rest of Rootnote's own export: known, and not needed here.
KNOWN = (
    *NEEDED, *USED, "seconds_x", "seconds_a", "seconds_b", "play_order", "focus_losses", "sample_rate",
    "output_latency_ms", "agent_class",
)  # fmt: skip
KINDS = ("scored", "catch", "repeat")
BINS = (1, 2, 3, 4)
DEFAULT_PLAN = ExclusionPlan()
MOST_BYTES = 2 << 30
# How spreadsheets, pandas and R write what is missing, and what is true.
BLANK = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "null"})
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Responses:
    """Checked responses and where they came from.

    `frame` holds the rows that count, one per scored trial, with at least the needed columns: embedder,
    listener and prompt as text, bin_high, bin_low and agreed as integers, and where the file has them
    similarity_high, similarity_low, response_ms, plays_* and confidence as floats (blank is NaN).
    `kept` also has the catch and repeat trials of those who count, `everything` is all that was read.
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

    @property
    def embedders(self) -> list[str]:
        return sorted(self.frame["embedder"].unique(), key=lambda name: (name.casefold(), name))

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be said of the file."""
        if len(self.studies) < 2:
            return self.file_notes
        return *self.file_notes, f"Answers of {len(self.studies)} studies are pooled: {', '.join(self.studies)}."

    @property
    def listeners(self) -> int:
        return int(self.frame["listener"].nunique())


def read_responses(path: Path, plan: ExclusionPlan = DEFAULT_PLAN) -> Responses:
    """Read a .csv or .parquet file of responses, check it and keep the rows that count under the plan's rules.

    Raises:
        RootnoteError: naming the file, the column and the row of the first thing that is wrong.
    """
    content = _read_bytes(path)
    table, other = _read_text_columns(path, content)
    frame = _check(path, table, first_row=1 if path.suffix.lower() == ".parquet" else 2)
    notes = []
    if other:
        named = ", ".join(repr(name) for name in other[:6]) + (", …" if len(other) > 6 else "")
        notes.append(f"Columns that Rootnote does not know were left alone: {named}.")
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
    )
    return under_rules(checked, plan)


def under_rules(read: Responses, plan: ExclusionPlan) -> Responses:
    """The same file under other rules.

    Raises:
        RootnoteError: where they leave nothing.
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


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise RootnoteError(f"{path} is neither .csv nor .parquet; give the file that the export wrote.")
    if path.is_dir():
        raise RootnoteError(f"{path} is a folder; name the file of responses in it.")
    if not path.is_file():
        raise RootnoteError(
            f"{path} does not exist; write it with `rootnote server export STUDY`, or name another file."
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RootnoteError(
            f"{path} has {size / 2**30:.1f} GiB, and the analysis holds at most {MOST_BYTES >> 30} GiB in memory; "
            "split it by embedder or by study."
        )
    content = path.read_bytes()
    if not content:
        raise RootnoteError(f"{path} is empty; export the responses again.")
    return content


def _read_text_columns(path: Path, content: bytes) -> tuple[pa.Table, list[str]]:
    """The columns we use as text, and the names of those that nobody knows."""
    names = _parquet_names(path, content) if path.suffix.lower() == ".parquet" else _csv_names(path, content)
    _require_columns(path, names)
    used = [name for name in (*NEEDED, *USED) if name in names]
    reader = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
    table = reader(path, content, used)
    if table.num_rows == 0:
        raise RootnoteError(f"{path} has no responses: only the names of the columns are there.")
    return table, [name for name in names if name not in KNOWN]


def _require_columns(path: Path, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1 and name in KNOWN})
    if repeated:
        raise RootnoteError(f"{path} has the column '{repeated[0]}' twice; remove one of them.")
    missing = [name for name in NEEDED if name not in names]
    if not missing:
        return
    listed = " and ".join(filter(None, [", ".join(f"'{m}'" for m in missing[:-1]), f"'{missing[-1]}'"]))
    hint = "the analysis needs " + ", ".join(NEEDED)
    near = difflib.get_close_matches(missing[0], [n.strip().lower() for n in names], n=1, cutoff=0.75)
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        hint = "it is separated by semicolons or tabs; save it with commas"
    elif near:
        there = next(n for n in names if n.strip().lower() == near[0])
        hint = f"is '{there}' meant? {hint[0].upper()}{hint[1:]}"
    raise RootnoteError(f"{path} lacks the column{'s' if len(missing) > 1 else ''} {listed}; {hint}.")


def _csv_names(path: Path, content: bytes) -> list[str]:
    lines = content[:3].removeprefix(b"\xef\xbb\xbf") + content[3:65536]
    header = lines.split(b"\n", 1)[0] + b"\n"
    try:
        header.decode("utf-8")
        return list(pacsv.open_csv(io.BytesIO(header)).schema.names)
    except UnicodeDecodeError:
        raise RootnoteError(f"{path} is not UTF-8 text; save it as CSV (UTF-8).") from None
    except pa.ArrowInvalid:
        raise RootnoteError(f"{path} does not begin with the names of columns; export it again.") from None


def _read_csv(path: Path, content: bytes, columns: list[str]) -> pa.Table:
    convert = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in columns}, include_columns=columns, strings_can_be_null=False
    )
    # One thread: only then does a ragged row come with its number.
    read = pacsv.ReadOptions(use_threads=False, block_size=16 << 20)
    parse = pacsv.ParseOptions(newlines_in_values=True)
    try:
        return pacsv.read_csv(io.BytesIO(content), read, parse, convert)
    except pa.ArrowInvalid as error:
        text = str(error)
        if "UTF8" in text:
            raise RootnoteError(f"{path} is not UTF-8 text; save it as CSV (UTF-8).") from error
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text)
        if ragged:
            row, expected, got = ragged.groups()
            raise RootnoteError(
                f"{path}, row {row}: {got} values where there are {expected} columns; mend that row."
            ) from error
        raise RootnoteError(f"{path} is not a readable CSV file ({text.splitlines()[0]}).") from error


def _parquet_names(path: Path, content: bytes) -> list[str]:
    try:
        return list(pq.ParquetFile(pa.BufferReader(content)).schema_arrow.names)
    except (OSError, pa.ArrowException) as error:
        raise RootnoteError(f"{path} is not a readable Parquet file; export the responses again.") from error


def _read_parquet(path: Path, content: bytes, columns: list[str]) -> pa.Table:
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise RootnoteError(f"{path} is not a readable Parquet file; export the responses again.") from error
    texts: dict[str, Any] = {}
    for name in columns:
        try:
            text: Any = table[name].cast(pa.string())
        except pa.ArrowException as error:
            raise RootnoteError(f"{path}: the column '{name}' holds neither text nor numbers.") from error
        texts[name] = pc.fill_null(text, "")
    return pa.table(texts)


def _check(path: Path, table: pa.Table, first_row: int) -> pd.DataFrame:
    """Check every value; return the frame with whole numbers as numbers and all else as text."""
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
        distinct = self._distinct(name)
        if not blank_allowed:
            self._bad(name, np.array([value != "" for value in distinct], bool), "given")
        return cast("pd.Categorical", pd.Categorical.from_codes(self._codes(name), categories=pd.Index(distinct)))

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


def _dates(frame: pd.DataFrame) -> tuple[str, str] | None:
    """The days of the first and the last answer, where `answered_at` is in ISO 8601."""
    if "answered_at" not in frame:
        return None
    days = sorted(
        {str(value)[:10] for value in frame["answered_at"].unique() if re.match(r"\d{4}-\d\d-\d\d", str(value))}
    )
    return (days[0], days[-1]) if days else None


def describe(exclusions: tuple[Exclusion, ...]) -> list[Mapping[str, Any]]:
    """The exclusions as plain data."""
    return [{"rule": e.rule, "reason": e.reason, "rows": e.rows, "listeners": e.listeners} for e in exclusions]
