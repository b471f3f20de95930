"""A listener who arrives from a marketplace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """A listener as the address describes them; the address proves nothing. `back` is where they return to."""

    worker: str | None
    submission: str = ""
    opening: str = ""
    preview: bool = False
    back: str = ""
