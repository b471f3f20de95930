"""Events that a marketplace sends to the server: what one says, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from embeddings.errors import RootnoteError
from server.db.enums import SubmissionStatus


class EventRefusedError(RootnoteError):
    """A request is not an event of the marketplace; `status` is the HTTP status of the reply."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ReportedEvent:
    """An event that the marketplace sent: a change of one worker's submission, or of something else.

    `status`: what the submission has become, if its place is free by that.
    """

    id: str
    kind: str
    worker: str = ""
    submission: str = ""
    status: SubmissionStatus | None = None


class ReadsEvents:
    """The part of a marketplace that reads its events; the default sends none.

    The methods for subscribing are those of server.recruiting.subscriptions.EventSource.
    """

    event_types: ClassVar[tuple[str, ...]] = ()  # the events that it sends to the server

    def read_event(self, headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> ReportedEvent | None:
        """The event in a request; None if it changes nothing here. Needs no network. Only with `event_types`.

        `headers`: by their names in lower case.

        Raises:
            EventRefusedError: if the marketplace did not sign it, or it is no event.
        """
        raise NotImplementedError
