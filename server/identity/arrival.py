"""An arrival: what a marketplace's link says about the person who follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arrival:
    """Who arrives, as the address claims.

    `worker`, `submission` and `opening` are the marketplace's ids; `preview`: the person only previews the task;
    `back`: the address that takes them back to the marketplace; `kept`: parameters that a panel's addresses need;
    `signed`: the marketplace signed these ids, and nothing else vouches for them; `entry`: in the vault, the secret
    number that the run's address follows from.
    """

    worker: str | None
    submission: str = ""
    opening: str = ""
    preview: bool = False
    back: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
    signed: bool = False
    entry: str = ""
