"""Files of responses: the columns that the analysis uses, as text, from a .csv or a .parquet file.

study.columns says which columns the analysis needs and which it uses if present; all others are ignored.
analysis.responses.validate checks the values.
"""

from __future__ import annotations

import difflib
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from study.columns import RESPONSE_COLUMNS, columns_read

MOST_BYTES = 2 << 30


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        RootnoteError: if it does not exist, is empty, too large, or neither .csv nor .parquet.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise RootnoteError(f"{path} is neither a .csv nor a .parquet file; name the file that the export wrote.")
    if path.is_dir():
        raise RootnoteError(f"{path} is a directory; name the file of responses in it.")
    if not path.is_file():
        raise RootnoteError(
            f"{path} does not exist; write it with `rootnote server export STUDY`, or name another file."
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RootnoteError(
            f"{path} has {size / 2**30:.1f} GiB, but the analysis reads at most {MOST_BYTES >> 30} GiB; split the file "
            "by embedder or by study."
        )
    content = path.read_bytes()
    if not content:
        raise RootnoteError(f"{path} is empty; export the responses again.")
    return content


def read_text_columns(path: Path, content: bytes) -> tuple[pa.Table, list[str]]:
    """The columns that the analysis uses, as text, and the names of unknown columns.

    Raises:
        RootnoteError: if a required column is missing, or the file cannot be read.
    """
    names = _parquet_names(path, content) if path.suffix.lower() == ".parquet" else _csv_names(path, content)
    _require_columns(path, names)
    used = [name for name in columns_read("needed", "used") if name in names]
    reader = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
    table = reader(path, content, used)
    if table.num_rows == 0:
        raise RootnoteError(f"{path} has a header but no responses; export the responses again.")
    return table, [name for name in names if name not in RESPONSE_COLUMNS]


def _require_columns(path: Path, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1 and name in RESPONSE_COLUMNS})
    if repeated:
        raise RootnoteError(f"{path} has the column '{repeated[0]}' twice; remove one of them.")
    needed = columns_read("needed")
    missing = [name for name in needed if name not in names]
    if not missing:
        return
    listed = " and ".join(filter(None, [", ".join(f"'{m}'" for m in missing[:-1]), f"'{missing[-1]}'"]))
    hint = "the analysis needs " + ", ".join(needed)
    near = difflib.get_close_matches(missing[0], [n.strip().lower() for n in names], n=1, cutoff=0.75)
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        hint = "its values are separated by semicolons or tabs; save it with commas"
    elif near:
        similar = next(n for n in names if n.strip().lower() == near[0])
        hint = f"did you mean '{similar}'? {hint[0].upper()}{hint[1:]}"
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
        raise RootnoteError(f"{path} doesn't begin with a row of column names; export the responses again.") from None


def _read_csv(path: Path, content: bytes, columns: list[str]) -> pa.Table:
    convert = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in columns}, include_columns=columns, strings_can_be_null=False
    )
    # With one thread, the error for a ragged row has its number.
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
            header = counted(int(expected), "column")
            raise RootnoteError(
                f"{path}, row {row} has {counted(int(got), 'value')}, but the header has {header}; fix that row."
            ) from error
        raise RootnoteError(f"{path} is not a readable CSV file ({text.splitlines()[0]}); export it again.") from error


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
            raise RootnoteError(
                f"{path}: the column '{name}' has neither text nor numbers; export the responses again."
            ) from error
        texts[name] = pc.fill_null(text, "")
    return pa.table(texts)
