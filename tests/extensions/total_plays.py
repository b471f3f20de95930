"""A column of `responses` that the export computes: how often the three clips were played altogether."""

from __future__ import annotations

from server.export.computed import ResponseContext
from study.columns import COUNT, Capped, ResponseColumn

TOTAL_PLAYS = ResponseColumn(
    "int64",
    "Number of times that X, A and B were heard to their end",
    source=f"{__name__}:total_plays",
    analysis="used",
    publish=Capped(15),
    check=COUNT,
)


def total_plays(row: ResponseContext) -> int:
    """The value of the column."""
    return sum(getattr(row.response, f"plays_{clip}") for clip in "xab")
