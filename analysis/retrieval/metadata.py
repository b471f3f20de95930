"""Metadata: the value of a column for every clip of a corpus, to group tables by.

The column is a tag in the corpus (genre, artist, …), or any column of a CSV file whose `path` is as in the corpus.
Conventions: a missing value is "(unknown)".
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embeddings.audio.decode import TAG_NAMES
from embeddings.errors import RootnoteError

_TAKEN = ("embedder", "perturbation", "level", "target", "similarity", "rank", "track_rank", "targets")
UNKNOWN = "(unknown)"
Values = npt.NDArray[Any]


def values_of(table: pa.Table, column: str, metadata: Path | None = None) -> Values:
    """The values of `column`, `[N]` text, one for each clip.

    Raises:
        RootnoteError: if there is no such column, or the file cannot be read or has no track of the corpus.
    """
    if column in _TAKEN:
        raise RootnoteError(
            f"--by {column}: this name is used for a column of the results; rename the column in the CSV file."
        )
    if metadata is None:
        if column not in TAG_NAMES:
            raise RootnoteError(
                f"the corpus has no column '{column}', only {', '.join(TAG_NAMES)}; give a CSV file with the columns "
                f"path and {column} with --metadata."
            )
        return np.array([value or UNKNOWN for value in table[column].to_pylist()], dtype=object)
    by_path = _read(metadata, column)
    paths = [str(path) for path in table["path"].to_pylist()]
    if not any(path in by_path for path in paths):
        raise RootnoteError(
            f"{metadata} has no track of the corpus; its paths must be as in the corpus, such as {paths[0]}."
        )
    return np.array([by_path.get(path) or UNKNOWN for path in paths], dtype=object)


def _read(path: Path, column: str) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RootnoteError(f"{path} cannot be read as a CSV file in UTF-8.") from error
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in ("path", column) if name not in (rows.fieldnames or ())]
    if missing:
        raise RootnoteError(f"{path} lacks the column '{missing[0]}'.")
    return {row["path"]: (row[column] or "").strip() for row in rows}
