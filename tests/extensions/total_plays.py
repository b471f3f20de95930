"""A column of `responses` that the export computes: how often the three clips were played altogether."""

from __future__ import annotations

from server.export.responses import ResponseContext
from study.columns import COUNT, Capped, ResponseColumn

# In study.columns.RESPONSE_COLUMNS: "total_plays": TOTAL_PLAYS.
TOTAL_PLAYS = ResponseColumn(
    "int64",
    "Number of times that X, A and B were heard to their end",
    source="computed",
    analysis="ignored",
    publish=Capped(15),
    check=COUNT,
)


# In server.export.responses.COMPUTED: "total_plays": total_plays.
def total_plays(row: ResponseContext) -> int:
    """The value of the column."""
    return sum(getattr(row.response, f"plays_{clip}") for clip in "xab")
