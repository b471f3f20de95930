"""The data dictionary of a release: what each column means, as data (dictionary.json) and as text (dictionary.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.public_release.k_anonymity import GeneralisedColumn
from study.columns import (
    LISTENER_COLUMNS,
    RESPONSE_COLUMNS,
    Capped,
    Check,
    CoarseTime,
    Number,
    OneOf,
    Renamed,
)
from study.questions.generalise import WITHHELD

_TYPES = {"string": "text", "int64": "whole number", "int8": "whole number", "double": "number"}
_CLIPS = {
    "clip": ("text", "", "random name", "Same name as prompt, clip_high or clip_low in responses.csv"),
    "path": ("text", "", "", "File of the track in the corpus"),
    "start_s": ("number", "s", "", "Start of the clip in the track"),
    "duration_s": ("number", "s", "", "Duration of the clip"),
}
Entry = dict[str, Any]


def dictionary(published: Sequence[GeneralisedColumn], tables: Mapping[str, Sequence[str]]) -> dict[str, list[Entry]]:
    """The meaning of each column of each table; `tables` are the columns by file."""
    generalised = {one.column.name: _entry_of(one) for one in published}
    describe = {
        "responses.csv": _response_entry,
        "listeners.csv": lambda name: generalised.get(name) or _listener_entry(name),
        "clips.csv": _clip_entry,
    }
    return {file: [describe[file](name) for name in columns] for file, columns in tables.items()}


def _entry(name: str, kind: str, unit: str, values: str, meaning: str) -> Entry:
    return {"name": name, "type": kind, "unit": unit, "values": values, "meaning": meaning}


def _response_entry(name: str) -> Entry:
    column = RESPONSE_COLUMNS[name]
    kind, values, meaning = _TYPES[column.type], _values(column.check), column.meaning
    match column.publish:
        case Renamed(what):
            kind, values = "text", "random name"
            # The meaning of `trial` describes the true name.
            meaning = f"{'Trial' if what == 'trial' else meaning}; the same {what} has the same name in every file"
        case Capped(most):
            values, meaning = f"0 to {most}", f"{meaning}; larger numbers are published as {most}"
        case CoarseTime(step_ms, longest_ms, per_unit):
            values = f"0 to {longest_ms // per_unit}"
            meaning += (
                f"; rounded down to {step_ms} ms (or up to the limit of the rule too_fast), and longer times are "
                f"published as {longest_ms // per_unit}"
            )
    return _entry(name, kind, column.unit, values, meaning)


def _values(check: Check) -> str:
    match check:
        case OneOf(allowed):
            return ", ".join(map(str, allowed))
        case Number(least, most) if least is not None and most is not None:
            return f"{least:g} to {most:g}"
        case Number(least) if least is not None:
            return f"{least:g} or more"
    return ""


def _listener_entry(name: str) -> Entry:
    column = LISTENER_COLUMNS[name]
    values = "random name" if isinstance(column.publish, Renamed) else column.values
    return _entry(name, _TYPES[column.type], "", values, column.meaning)


def _clip_entry(name: str) -> Entry:
    kind, unit, values, meaning = _CLIPS.get(name, ("text", "", "", "The track's tag of this name"))
    return _entry(name, kind, unit, values, meaning)


def _entry_of(one: GeneralisedColumn) -> Entry:
    values = sorted({value for value in one.values if value not in ("", WITHHELD)})
    return {
        "name": one.column.name,
        "type": "text",
        "unit": "",
        "values": ", ".join(values),
        "meaning": one.column.meaning,
        "level": one.level.label,
        "withheld": one.withheld,
    }


def dictionary_markdown(described: Mapping[str, Sequence[Entry]]) -> str:
    """The dictionary for people."""
    lines = [
        "# Data dictionary",
        "",
        "The CSV files are UTF-8 text with commas and a header row. A blank value means that the question was not "
        "asked or not answered.",
        f"`{WITHHELD}` means that it was answered, but the answer is not published (see README.md).",
        "",
        "An answer can be the word None. Read the files with `keep_default_na=False` in pandas and with "
        '`na.strings = ""` in R.',
    ]
    for file, entries in described.items():
        title = "responses.csv and responses.parquet" if file == "responses.csv" else file
        lines += ["", f"## {title}", "", "| column | type | unit | values | meaning |", "|---|---|---|---|---|"]
        for entry in entries:
            meaning = entry["meaning"] + (f" (level: {entry['level']})" if "level" in entry else "")
            cells = (f"`{entry['name']}`", entry["type"], entry["unit"], entry["values"], meaning)
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")
