"""An arrival: what a marketplace's link says about the person who follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arrival:
    """Who arrives, as the address claims; nothing vouches for it.

    `worker`, `submission` and `opening` are the marketplace's ids; `preview`: the person only previews the task;
    `back`: the address that takes them back to the marketplace; `kept`: parameters that a panel's addresses need.
    """

    worker: str | None
    submission: str = ""
    opening: str = ""
    preview: bool = False
    back: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
