"""Agreement by a column that the researcher names, such as the device or the answer to a question.

The column is one of listeners.csv next to the responses, joined by assignment, or one of the responses' file itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from analysis.report.listeners_file import LISTENERS, ListenersFile, read_listeners
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.responses.load import Responses
from analysis.statistics.groups import GroupAgreement, agreement_by_group
from analysis.statistics.two_way import Dependence
from embeddings.errors import RootnoteError

MOST_SHOWN = 20  # groups of an embedder on the page; all are in the CSV file
CELL_FIELDS = (
    "agreed", "n", "listeners", "prompts", "rate", "ci_low", "ci_high", "p", "n_effective", "fallback",
)  # fmt: skip


@dataclass(frozen=True)
class GroupedAgreement:
    """The groups of one column, and which file the column is from."""

    column: str
    source: str
    groups: Sequence[GroupAgreement]


class AgreementBySection(ReportSection):
    """A table for each column named with --by."""

    template = "agreement_by.html.j2"

    def compute(self, inputs: ReportInputs) -> tuple[GroupedAgreement, ...]:
        """Raises:
        RootnoteError: if neither file has the column; the columns of listeners.csv are named.
        """
        return tuple(_group(inputs, column) for column in dict.fromkeys(inputs.by))

    def values(self, result: tuple[GroupedAgreement, ...], report: Report) -> Mapping[str, Any]:
        return {"most_shown": MOST_SHOWN, "csv_name": csv_name, "embedders": report.inputs.responses.embedders}

    def data(self, result: tuple[GroupedAgreement, ...]) -> Mapping[str, Any]:
        if not result:
            return {}
        return {
            "agreement_by": {
                one.column: [
                    {"embedder": group.embedder, "value": group.value, **_fields(group.agreement)}
                    for group in one.groups
                ]
                for one in result
            }
        }

    def frames(self, result: tuple[GroupedAgreement, ...]) -> Mapping[str, pd.DataFrame]:
        return {
            csv_name(one.column): pd.DataFrame(
                [{"embedder": g.embedder, one.column: g.value, **_fields(g.agreement)} for g in one.groups]
            )
            for one in result
        }


def csv_name(column: str) -> str:
    """The file of a column's table."""
    return f"agreement_by_{re.sub(r'[^A-Za-z0-9_-]+', '-', column)}.csv"


def _fields(cell: Dependence) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in CELL_FIELDS}


def _group(inputs: ReportInputs, column: str) -> GroupedAgreement:
    read = inputs.responses
    key = "assignment" if "assignment" in read.frame else "listener"
    listeners = read_listeners(read, ("listener", key))
    if column in listeners.columns:
        source, values = LISTENERS, {row[key]: row[column] for row in listeners.rows}
    else:
        source, values = read.path.name, _values_in_responses(read, column, key, listeners)
    group = read.frame[key].astype(str).map(values).fillna("").astype(str)
    return GroupedAgreement(column, source, agreement_by_group(read.frame, group, inputs.alternative))


def _values_in_responses(read: Responses, column: str, key: str, listeners: ListenersFile) -> dict[str, str]:
    """The value of the column by assignment or listener; "" where it has several."""
    parquet = read.path.suffix.lower() == ".parquet"
    names = pq.read_schema(read.path).names if parquet else _csv_columns(read)
    if column not in names:
        known = ", ".join(name for name in listeners.columns if name not in ("assignment", "listener"))
        why = listeners.problem or (f"{LISTENERS} has {known}" if known else f"there is no usable {LISTENERS}")
        raise RootnoteError(
            f"--by {column}: neither {LISTENERS} nor {read.path.name} has a column '{column}' ({why}); "
            "name one that is there."
        )
    wanted = [key, column]
    if parquet:
        table = pq.read_table(read.path, columns=wanted)
    else:
        table = pacsv.read_csv(read.path, convert_options=pacsv.ConvertOptions(include_columns=wanted))
    frame = table.to_pandas().dropna().astype(str).drop_duplicates()
    single = frame[~frame.duplicated(key, keep=False)]
    return dict(zip(single[key], single[column], strict=True))


def _csv_columns(read: Responses) -> list[str]:
    with pacsv.open_csv(read.path) as reader:
        return list(reader.schema.names)
