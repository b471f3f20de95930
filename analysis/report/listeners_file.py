"""listeners.csv: the export's table of assignments, next to the responses.

One row per assignment, with the columns `assignment`, `listener`, `state`, `prescreen`, … and `q_<id>` for every
question. It belongs to the responses if it knows all of their listeners.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.presentation.formatting import count
from analysis.responses.load import Responses

LISTENERS = "listeners.csv"


@dataclass(frozen=True)
class ListenersFile:
    """The rows as text by column; empty with a `problem` in words if the file cannot be used, without if it is absent.

    `problem` is a clause such as "listeners.csv lacks the column state".
    """

    rows: tuple[dict[str, str], ...] = ()
    problem: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.rows[0]) if self.rows else ()


def read_listeners(read: Responses, required: Sequence[str] = ("listener",)) -> ListenersFile:
    """Read listeners.csv next to the responses; whatever is wrong with it is in `problem`.

    Args:
        required: columns that the caller needs; `listener` among them.
    """
    path = read.path.resolve().parent / LISTENERS
    if not path.is_file():
        return ListenersFile()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = tuple({key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return ListenersFile(problem=f"{LISTENERS} cannot be read ({error})")
    missing = [name for name in required if rows and name not in rows[0]]
    if missing:
        return ListenersFile(
            problem=f"{LISTENERS} lacks the column{'' if len(missing) == 1 else 's'} {' and '.join(missing)}"
        )
    listeners = set(map(str, read.everything["listener"].unique()))
    unknown = listeners - {row["listener"] for row in rows}
    if unknown and rows:
        return ListenersFile(
            problem=f"{LISTENERS} lacks {len(unknown):,} of the {count(len(listeners), 'listener')} in "
            f"{read.path.name}, so it is from another export"
        )
    return ListenersFile(rows)
