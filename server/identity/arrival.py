"""An arrival: what a marketplace's link says about the person who follows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """Who arrives, as the address claims; nothing vouches for it.

    `worker`, `submission` and `opening` are the marketplace's ids; `preview`: the person only previews the task;
    `back`: the address that takes them back to the marketplace.
    """

    worker: str | None
    submission: str = ""
    opening: str = ""
    preview: bool = False
    back: str = ""
