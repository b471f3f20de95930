"""Numbers in sentences: "1 clip", "2,000 clips"."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun; the plural adds an s unless it is given."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
