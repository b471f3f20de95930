"""What identifies listeners in the links between a marketplace and the study."""

from __future__ import annotations

from server.db.enums import RunOutcome


class ListenerIds:
    """The ids that listeners arrive with, and the codes that they return with; needs no network."""

    @classmethod
    def sample_query(cls, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        """The parameters with which a made-up worker arrives, such as for screenshots."""
        return {"worker": f"listener{person}"}

    def sample_arrival(self, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        """The same, with the parameters of this study."""
        return self.sample_query(person, place, preview=preview)

    def spell_id(self, worker: str) -> str:
        """One spelling of an id, by which the same person is known again; return links use what the person sent."""
        return worker

    def code(self, outcome: RunOutcome, key: str = "") -> str:
        """The completion code of everybody with this outcome, by the launch's secret; "": everybody has their own."""
        return ""
