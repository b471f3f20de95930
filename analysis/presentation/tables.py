"""Tables: Table 1 as CSV, JSON, Markdown and on a terminal (as LaTeX: analysis.presentation.latex).

Conventions: the paper's layout has a row per more similar bin (1 to 3) and a column per less similar bin
(2 to 4) and a total; a percentage has one decimal, rounded half up from the counts; p as text has three
decimals or, below 0.001, a power of ten; stars mark what the primary test finds after Holm's correction.
CSV and JSON have full precision; a cell without responses is blank or null.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.statistics.agreement import Cell, EmbedderTable, Table1
from analysis.statistics.bins import Bins
from analysis.statistics.comparison import ContrastRow
from study.design.bin_pairs import BIN_PAIRS, BINS

STAR_LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
PRIMARY_NAMES = {
    "two_way_holm": "two-way test (listeners and prompts as random)",
    "mixed_holm": "mixed model (listeners, prompts and triplets as random)",
    "exact_holm": "exact binomial test of the pooled answers",
}
ABSENT = "–"
ROWS = BINS[:-1]
COLUMNS = BINS[1:]


def percent(cell: Cell) -> str:
    """The rate in per cent with one decimal, rounded half up; a dash if there are no responses."""
    if not cell.n:
        return ABSENT
    tenths = (2000 * cell.agreed + cell.n) // (2 * cell.n)
    return f"{tenths // 10}.{tenths % 10}"


def stars(cell: Cell) -> str:
    """Significance in the primary test after Holm's correction as stars; totals and empty cells have none."""
    p = cell.p_decisive
    if p is None:
        return ""
    return next((mark for level, mark in STAR_LEVELS if p < level), "")


def legend(tables: Table1) -> str:
    """What the stars mean: which test, and its levels."""
    names = dict.fromkeys(PRIMARY_NAMES[table.primary] for table in tables.values())
    return (
        f"Differs from chance (50 %), {', '.join(names)}, after Holm’s correction: * p < 0.05, ** p < 0.01, "
        "*** p < 0.001."
    )


def write_p(p: float | None) -> str:
    """A p-value for reading: 0.021, 3 × 10⁻⁵, or a dash."""
    if p is None:
        return ABSENT
    if p >= 0.0995:
        return f"{p:.2f}"
    if p >= 0.001:
        return f"{p:.3f}"
    if p < 1e-300:
        return "< 10⁻³⁰⁰"
    exponent = math.floor(math.log10(p))
    digit = round(p / 10.0**exponent)
    digit, exponent = (1, exponent + 1) if digit == 10 else (digit, exponent)
    return f"{digit} × 10{str(exponent).translate(_SUPERSCRIPT)}"


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_wilson(cell: Cell) -> str:
    """Wilson's 95 % interval in per cent, or a dash."""
    if cell.test is None:
        return ABSENT
    return f"{100 * cell.test.wilson_low:.1f} to {100 * cell.test.wilson_high:.1f}"


def write_interval(cell: Cell) -> str:
    """The 95 % interval in per cent, or a dash."""
    if cell.test is None:
        return ABSENT
    return f"{100 * cell.test.ci_low:.1f} to {100 * cell.test.ci_high:.1f}"


def write_difference(row: ContrastRow) -> str:
    """The difference of two rates in percentage points with its sign, or a dash."""
    return ABSENT if row.difference is None else f"{100 * row.difference + 0.0:+.1f}".replace("-", "−")


def write_newcombe(row: ContrastRow) -> str:
    """Newcombe's 95 % interval of the difference in percentage points, or a dash."""
    if row.ci_low is None or row.ci_high is None:
        return ABSENT
    return f"{100 * row.ci_low:+.1f} to {100 * row.ci_high:+.1f}".replace("-", "−")


def sidedness(tables: Table1) -> str:
    """Whether the p-values are one- or two-sided, in words."""
    one_sided = any(table.overall.test and table.overall.test.alternative != "two-sided" for table in tables.values())
    return "one-sided, for more agreement than chance" if one_sided else "two-sided"


def as_data(tables: Table1) -> dict[str, Any]:
    """Plain data, as in `table1.json`."""
    return {
        name: {
            "pairs": {f"{high}-{low}": _pair_data(table.pairs[high, low]) for high, low in BIN_PAIRS},
            "totals": {str(high): _tested_data(table.totals[high]) for high in ROWS},
            "overall": _tested_data(table.overall),
        }
        for name, table in tables.items()
    }


def _count_data(cell: Cell) -> dict[str, Any]:
    return {"n": cell.n, "agreed": cell.agreed, "rate": cell.rate}


def _tested_data(cell: Cell) -> dict[str, Any]:
    test = cell.test
    return _count_data(cell) | {
        "ci_low": test.ci_low if test else None,
        "ci_high": test.ci_high if test else None,
        "wilson_low": test.wilson_low if test else None,
        "wilson_high": test.wilson_high if test else None,
        "p": test.p if test else None,
    }


def _pair_data(cell: Cell) -> dict[str, Any]:
    return _tested_data(cell) | {"p_holm": cell.p_holm, "p_bh": cell.p_bh}


def to_json(tables: Table1, rehearsed: bool = False) -> str:
    """The content of `table1.json`; if listeners are simulated, each embedder's table says so."""
    data = as_data(tables)
    if rehearsed:
        data = {name: {"rehearsed": True, **own} for name, own in data.items()}
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_CSV_COLUMNS = (
    "agreed", "n", "rate", "ci_low", "ci_high", "p", "p_holm", "p_bh", "wilson_low", "wilson_high",
)  # fmt: skip


def to_csv(tables: Table1) -> str:
    """A row per embedder and bin pair, a row per total (bin_low is "total"), and a row for all trials ("all")."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["embedder", "bin_high", "bin_low", *_CSV_COLUMNS])
    for name, data in as_data(tables).items():
        for pair, cell in data["pairs"].items():
            writer.writerow([name, *pair.split("-"), *_csv_values(cell)])
        for high, cell in data["totals"].items():
            writer.writerow([name, high, "total", *_csv_values(cell)])
        writer.writerow([name, "all", "total", *_csv_values(data["overall"])])
    return buffer.getvalue()


def _csv_values(cell: Mapping[str, Any]) -> list[Any]:
    return [cell.get(key) for key in _CSV_COLUMNS]


SIMULATED = "The listeners were simulated, in a rehearsal of the study."


def to_markdown(tables: Table1, bins: Mapping[str, Bins] | None = None, rehearsed: bool = False) -> str:
    """Both tables of every embedder: the paper's layout, and the tests."""
    parts = ["# Table 1", "", *([SIMULATED, ""] if rehearsed else [])]
    for name, table in tables.items():
        own = (bins or {}).get(name)
        parts += [f"## {_markdown(name)}", "", *_markdown_layout(table, own), "", *_markdown_tests(table), ""]
    parts += [
        "Percentages: how often listeners chose the clip of the more similar bin (row) over that of the less "
        "similar bin (column). Intervals: Clopper-Pearson and Wilson. p: exact binomial test against 50 %, "
        f"{sidedness(tables)}; Holm's and Benjamini-Hochberg's (BH) corrections over the bin pairs of one embedder. "
        "Stars: " + legend(tables).replace("*", r"\*"),
        "",
    ]
    return "\n".join(parts)


def _markdown(text: str) -> str:
    """The text, escaped for Markdown and the HTML within it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", one_line(escaped))


def one_line(text: str) -> str:
    """Text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _markdown_layout(table: EmbedderTable, bins: Bins | None) -> list[str]:
    def head(number: int) -> str:
        return f"**Bin {number}**" + (f" ({bins.label(number)})" if bins else "")

    lines = [
        "| | " + " | ".join(head(low) for low in COLUMNS) + " | **Total** |",
        "|" + " --- |" * (len(COLUMNS) + 2),
    ]
    for high in ROWS:
        cells = [_markdown_cell(table.pairs[high, low]) if low > high else "" for low in COLUMNS]
        lines.append(f"| {head(high)} | " + " | ".join([*cells, _markdown_cell(table.totals[high])]) + " |")
    return lines


def _markdown_cell(cell: Cell) -> str:
    rate = f"{percent(cell)} %{stars(cell)}".replace("*", r"\*") if cell.n else ABSENT
    return f"{rate} (n = {cell.n})"


def _markdown_tests(table: EmbedderTable) -> list[str]:
    lines = [
        "| bins | agreed | n | rate | 95 % interval, exact | Wilson | p | p (Holm) | p (BH) |",
        "|" + " ---: |" * 9,
    ]
    for label, cell in rows_of(table):
        values = [
            label, str(cell.agreed), str(cell.n), f"{percent(cell)} %" if cell.n else ABSENT, write_interval(cell),
            write_wilson(cell), write_p(cell.test.p if cell.test else None), write_p(cell.p_holm), write_p(cell.p_bh),
        ]  # fmt: skip
        lines.append("| " + " | ".join(values) + " |")
    return lines


def rows_of(table: EmbedderTable) -> list[tuple[str, Cell]]:
    """All tested cells in reading order: the bin pairs, the rows, all trials."""
    pairs = [(f"{high}–{low}", table.pairs[high, low]) for high, low in BIN_PAIRS]
    return [*pairs, *((f"{high}, total", table.totals[high]) for high in ROWS), ("all", table.overall)]


def to_terminal(table: EmbedderTable, bins: Bins | None = None) -> Table:
    """The paper's layout for a rich console."""
    shown = Table(
        title=Text(f"{one_line(table.embedder)}: listeners chose the more similar clip (A) over B", style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1),
    )
    shown.add_column(Text("A \\ B"), no_wrap=True)
    for low in COLUMNS:
        shown.add_column(Text(_terminal_head(low, bins)), justify="right", no_wrap=True)
    shown.add_column(Text("Total"), justify="right", no_wrap=True, style="bold")
    for high in ROWS:
        cells = [_terminal_cell(table.pairs[high, low]) if low > high else Text("") for low in COLUMNS]
        shown.add_row(Text(_terminal_head(high, bins)), *cells, _terminal_cell(table.totals[high]))
    return shown


def _terminal_head(number: int, bins: Bins | None) -> str:
    return f"Bin {number}" + (f"\n{bins.label(number)}" if bins else "")


def _terminal_cell(cell: Cell) -> Text:
    # Stars have a column of their own, three wide, so that the percentages line up.
    rate = f"{percent(cell)} %{stars(cell):<3}" if cell.n else f"{ABSENT}   "
    return Text(f"{rate}\nn = {cell.n}   ")
