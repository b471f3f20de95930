"""A recruiter: where listeners come from, and how they are paid there.

A marketplace (Mechanical Turk, Prolific) or a plain link. The server keeps the books; a recruiter only does what it is
told, and says what it sees. Conventions: money is whole cents of the marketplace's currency; ids are the
marketplace's own strings; tokens are ours, at most 64 characters, and the same token never opens or pays twice.

An **opening** is what a marketplace calls a HIT or a study: places that workers may take. A **submission** is one
worker's taking of a place, from accepting it on. A **grant** is money paid beside the approval of a submission.

Nothing here rejects work or blocks anybody: that endangers a person's account, so a human decides it, elsewhere.

    RecruiterError            one plain sentence that says what is wrong and how to mend it
    ├── ArrivalError          for the listener: this address cannot be right
    ├── UnknownWorkerError    the marketplace knows nobody by this id, or cannot reach them
    └── UnsureError           no clear answer came: the work may have been done, so ask before doing it again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from embeddings.errors import RootnoteError
from server.identity.arrival import Arrival

Outcome = Literal["finished", "screened_out", "left"]
Status = Literal["held", "submitted", "approved", "rejected", "returned", "timed_out", "screened_out"]
# "paid_again": the marketplace paid for a submission for which a grant was paid already.
Kind = Literal["reward", "screen_out", "partial", "bonus", "lift", "paid_again"]
TOKEN_LENGTH = 64


class MarketplaceError(RootnoteError):
    """What was asked of a marketplace could not be done."""


class ArrivalError(MarketplaceError):
    """Somebody arrived with an address that no marketplace gives."""


class UnknownWorkerError(MarketplaceError):
    """The marketplace knows nobody by this id: an address may say anything."""


class ForeignSubmissionError(MarketplaceError):
    """The submission that somebody came with is another's: an address may say anything."""


class UnknownOutcomeError(MarketplaceError):
    """The marketplace gave no clear answer; what was asked may have been done."""


@dataclass(frozen=True)
class Capabilities:
    """What a marketplace is like.

    `batch`: the most places of one opening (None: no limit). `by_hand`: the researcher pays outside Rootnote.
    `pays_unsubmitted`: a grant reaches somebody who did not submit. `screen_out_apart`: who was screened out is paid
    by a grant of its own, not by approving what they submitted. `settle_minutes`: how long a payment may take to show,
    so that whether one was made is not asked sooner. `hold_minutes`: after so long a place that
    is held is given back by itself, where a marketplace does not say who holds one.
    """

    name: str
    batch: int | None = None
    by_hand: bool = False
    pays_unsubmitted: bool = False
    screen_out_apart: bool = False
    settle_minutes: float = 0
    hold_minutes: float | None = None


@dataclass(frozen=True)
class ReturnLink:
    """How a listener gets back: a form to post, a link to follow, or neither."""

    method: Literal["none", "post", "link"] = "none"
    url: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PostingOrder:
    """Places to be opened, each worth `reward`; `total` counts those of all the launch's orders with this one.

    `launch` names the launch, the same for all its orders: "STUDY-DATABASE", so that a marketplace can tell when
    somebody else has launched the same study. `url` is where listeners arrive; `minutes` is what a run is expected to
    take. With `only_for` (a worker's id) nobody else may take the place, and the study is not asked for again.
    """

    token: str
    launch: str
    places: int
    total: int
    reward: int
    url: str
    minutes: float
    only_for: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.token) <= TOKEN_LENGTH:
            raise ValueError(f"a token has 1 to {TOKEN_LENGTH} characters")
        if self.places < 1 or self.total < self.places or self.reward < 0:
            raise ValueError("an order needs places, no fewer in total, and a reward that is not negative")


@dataclass(frozen=True)
class SubmissionStatus:
    """One worker's taking of one place, as the marketplace tells it."""

    id: str
    worker: str
    opening: str
    status: Status
    at: datetime | None = None


@dataclass(frozen=True)
class PostingStatus:
    """An opening now: places that may still be taken, those taken and not submitted, and all that is known of them.

    A marketplace may keep from us who holds a place: `submissions` need not tell of all that are held.
    """

    free: int
    held: int
    submissions: tuple[SubmissionStatus, ...] = ()


@dataclass(frozen=True)
class DirectPayment:
    """Money for a submission beside its approval; `reason` is what the worker reads.

    `alike`: how many other grants of as many cents to this submission the books show as paid, since a marketplace may
    tell nothing of a payment but its amount.
    """

    token: str
    submission: SubmissionStatus
    cents: int
    kind: Kind
    reason: str
    alike: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.token) <= TOKEN_LENGTH:
            raise ValueError(f"a token has 1 to {TOKEN_LENGTH} characters")
        if self.cents < 1:
            raise ValueError("a grant is at least one cent")


class Marketplace(Protocol):
    """Seven verbs, and five questions that are asked before them.

    Making one needs no network and no credentials: the web server has one, to see who arrives and to hand them back.
    All but `arrive` and `hand_back` may raise RecruiterError; doing again what is done already is harmless.
    """

    @property
    def terms(self) -> Capabilities:
        """What this marketplace is like."""

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who arrives with these parameters, and whether they only look.

        Raises:
            ArrivalError: with one sentence for the listener.
        """

    def hand_back(self, arrival: Arrival, outcome: Outcome, code: str) -> ReturnLink:
        """How somebody gets back whose run ended so; `code` is their completion code."""

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        """What people there are shown of such an order before they take a place: (what it is, its words).

        It asks nothing of the network, and `open` sends the same words.
        """

    def open(self, order: PostingOrder) -> str:
        """Open places; the opening's id. An order that was opened before gives the same id.

        Raises:
            MarketplaceError: where they cannot be opened, as when another database has launched this study already.
            UnknownWorkerError: where the order is for one worker alone, whom the marketplace does not know.
        """

    def submissions(self, opening: str) -> PostingStatus:
        """How an opening stands, with its submissions."""

    def approve(self, submission: SubmissionStatus) -> None:
        """Accept somebody's work, which pays the opening's reward."""

    def bonus(self, grant: DirectPayment) -> None:
        """Pay a grant; one whose token was paid before is left as it is."""

    def close(self, opening: str) -> None:
        """Let nobody else take a place; those who hold one may submit. Nothing is deleted."""

    def account(self) -> int | None:
        """What may be spent, in cents; None where that cannot be known.

        Raises:
            MarketplaceError: where the account cannot be used, so this is asked before anything is opened.
        """

    def fee(self, cents: int, places: int = 1) -> int:
        """The marketplace's fee, in cents, on one payment from an opening with so many places."""

    def has_paid(self, grant: DirectPayment) -> bool:
        """Whether the marketplace has paid this grant: asked before one that is in doubt is sent again."""

    def exclude(self, worker: str, launch: str) -> None:
        """See to it that this worker is not offered this launch's study again.

        Raises:
            UnknownWorkerError: where there is no such worker.
        """

    def disconnect(self) -> None:
        """Let go of connections; the next call makes new ones."""
