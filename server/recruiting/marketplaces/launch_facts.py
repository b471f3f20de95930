"""What a marketplace tells a researcher before a launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LaunchFacts:
    """The facts that `rootnote server open --dry-run` shows; none needs the network or credentials."""

    notice: ClassVar[str] = ""  # what a researcher must know before anything else, such as that it closed
    minimum_hourly: ClassVar[Mapping[str, int]] = {}  # the least pay for an hour that it allows, in cents, by currency

    @classmethod
    def missing_credentials(cls, environment: Mapping[str, str]) -> list[str]:
        """What the environment lacks for using an account there, one sentence each."""
        return []

    def estimated_minutes(self, minutes: float) -> float:
        """How long a run takes, as the marketplace tells its workers."""
        return minutes

    def time_limit(self, minutes: float) -> int | None:
        """After how many minutes a place is taken back; None if that never happens."""
        return None
