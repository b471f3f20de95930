"""The interface of a marketplace: where listeners come from, and how they are paid there.

A marketplace is Mechanical Turk, Prolific or a plain link; one class each, named in study.marketplaces. The server
keeps the ledger; a marketplace only carries out requests and reports its state. What the rest of Rootnote needs to know
about a marketplace is an attribute or method of its class.

Conventions: money is whole cents of the marketplace's currency; ids are the marketplace's own strings; tokens are made
by the server, at most 64 characters, and the same token never opens or pays twice. A **posting** is what a marketplace
calls a HIT or a study: places that workers may take. A **submission** is one worker's place, from the moment they
accept it. A **direct payment** is money that is not paid by approving a submission.

Nothing here rejects work or blocks a worker: that can cost workers their account, so a researcher decides it, on the
marketplace's own pages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from embeddings.errors import RootnoteError
from server.db.enums import PaymentKind, RunOutcome, SubmissionStatus
from server.identity.arrival import Arrival
from server.recruiting.marketplaces.events import ReadsEvents
from server.recruiting.marketplaces.launch_facts import LaunchFacts
from server.recruiting.marketplaces.listener_ids import ListenerIds
from study.config_sections import CURRENCIES, ConfigSection

if TYPE_CHECKING:
    from study.config import Study

TOKEN_LENGTH = 64


class MarketplaceError(RootnoteError):
    """A marketplace could not carry out a request; one sentence says what is wrong and how to fix it."""


class ArrivalError(MarketplaceError):
    """A listener arrived with an address that this marketplace does not produce."""


class UnknownWorkerError(MarketplaceError):
    """The marketplace does not know this worker: anyone can write any id into an address."""


class ForeignSubmissionError(MarketplaceError):
    """The submission belongs to another worker: anyone can write any id into an address."""


class OrderRefusedError(MarketplaceError):
    """These places cannot be ordered, now or later: the order is cancelled."""


class UnknownOutcomeError(MarketplaceError):
    """The marketplace gave no clear answer; the work may have been done, so ask before doing it again."""


@dataclass(frozen=True)
class Capabilities:
    """How a marketplace works.

    Attributes:
        name: the display name.
        has_arrivals: workers arrive with the marketplace's ids in the address, so the vault stores who they are.
        opens_by_hand: the researcher posts the study there; Rootnote only records the posting.
        pays_by_hand: the researcher pays outside Rootnote; Rootnote keeps the list and the ledger.
        lists_submissions: the marketplace reports submissions and their status. A run then counts only once the
            marketplace has listed its worker and submission.
        lists_held: it lists them from the moment that a worker takes a place, not only once they submit.
        has_preview: workers can see a page of the study before they take a place.
        batch: the most places of one posting (None: no limit).
        pays_unsubmitted: a direct payment reaches workers who did not submit.
        has_drafts: a posting can be made as a draft that the researcher previews there before workers see it.
        has_test_mode: a study can be taken by test participants, at no cost.
        auto_approval_days: after so many days the marketplace approves submitted work by itself (None: never).
        settle_minutes: how long a payment may take to show; an earlier check proves nothing.
        hold_minutes: after this time a held place returns by itself, where the marketplace does not report who holds
            one.
    """

    name: str
    has_arrivals: bool = True
    opens_by_hand: bool = False
    pays_by_hand: bool = False
    lists_submissions: bool = True
    lists_held: bool = False
    has_preview: bool = False
    batch: int | None = None
    pays_unsubmitted: bool = False
    has_drafts: bool = False
    has_test_mode: bool = False
    auto_approval_days: int | None = None
    settle_minutes: float = 0
    hold_minutes: float | None = None


@dataclass(frozen=True)
class ReturnLink:
    """How a listener returns to the marketplace: a form to post, a link to follow, or neither."""

    method: Literal["none", "post", "link"] = "none"
    url: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PostingOrder:
    """An order for places.

    Attributes:
        token: made by the server; the same token never opens twice.
        launch: names the launch, the same for all its orders: "STUDY-DATABASE", so that a marketplace can notice that
            another database has launched the same study.
        places: how many places this order opens.
        total: places of all the launch's orders up to and including this one.
        reward: cents for one place.
        url: where listeners arrive.
        minutes: how long a run is expected to take.
        only_for: a worker's id; nobody else may take the place, and the study is not repeated.
        screen_outs: how many workers the marketplace may screen out and pay by itself, in all the launch's orders.
        code_key: the launch's secret, which the codes that everybody shares follow from ("": from study.toml).
    """

    token: str
    launch: str
    places: int
    total: int
    reward: int
    url: str
    minutes: float
    only_for: str = ""
    screen_outs: int = 0
    code_key: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.token) <= TOKEN_LENGTH:
            raise ValueError(f"a token has 1 to {TOKEN_LENGTH} characters")
        if self.places < 1 or self.total < self.places or self.reward < 0:
            raise ValueError("an order needs at least one place, at least as many in total, and a reward of 0 or more")


@dataclass(frozen=True)
class ReportedSubmission:
    """One worker's submission, as the marketplace reports it."""

    id: str
    worker: str
    opening: str
    status: SubmissionStatus
    at: datetime | None = None
    return_requested: bool = False


@dataclass(frozen=True)
class PostingStatus:
    """The state of a posting.

    Attributes:
        free: places that may still be taken, now or when the posting goes on: nothing is ordered in their stead.
        held: places held but not submitted.
        submissions: those that are known; a marketplace may not report who holds a place.
        orderable: more places may be ordered on it now.
        refills: whoever ends without submitting gives the place back, and the marketplace offers it again by itself.
        draft: nobody can see it yet.
        screen_outs: how many workers the marketplace may screen out and pay by itself, those so far included.
        used_up: it has paused because all of `screen_outs` are used.
        secure: workers arrive with a signed address.
        note: one sentence for the researcher, if they have to do something there.
    """

    free: int
    held: int
    submissions: tuple[ReportedSubmission, ...] = ()
    orderable: bool = True
    refills: bool = False
    draft: bool = False
    screen_outs: int = 0
    used_up: bool = False
    secure: bool = False
    note: str = ""


@dataclass(frozen=True)
class ScreenOutPlan:
    """How listeners who are screened out are paid on a marketplace.

    Attributes:
        way: "direct": like everything that is not a reward; "approve": by approving the submission, which pays the
            reward; "by_itself": by the marketplace, up to a number of workers; "return_and_bonus": the worker is asked
            to return the place, and is then paid a direct payment.
        cents: what one of them is paid by the marketplace itself, if it may be (otherwise 0).
        sentence: the same for the researcher, before the launch.
    """

    way: Literal["direct", "approve", "by_itself", "return_and_bonus"]
    cents: int = 0
    sentence: str = ""


@dataclass(frozen=True)
class DirectPayment:
    """Money for a submission that is not paid by its approval; the worker reads `reason`.

    `same_payments`: how many other direct payments of the same amount to this submission the ledger shows as paid,
    because a marketplace may report nothing of a payment but its amount.
    """

    token: str
    submission: ReportedSubmission
    cents: int
    kind: PaymentKind
    reason: str
    same_payments: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.token) <= TOKEN_LENGTH:
            raise ValueError(f"a token has 1 to {TOKEN_LENGTH} characters")
        if self.cents < 1:
            raise ValueError("a direct payment is at least one cent")


class MarketplaceConfig(ConfigSection):
    """The base of a marketplace's own section of study.toml, [recruiter.<kind>].

    `private`: settings that a public release does not contain, each with its replacement. `changeable`: settings that
    may change while a launch runs, because listeners were promised nothing by them. A setting `currency` follows
    pay.currency.
    """

    private: ClassVar[Mapping[str, Any]] = {}
    changeable: ClassVar[frozenset[str]] = frozenset()


class Marketplace(LaunchFacts, ListenerIds, ReadsEvents, ABC):
    """The interface of every marketplace.

    Making one needs no network and no credentials: the web server has one to read arrivals and to send listeners back.
    All methods except `arrive`, `make_return_link` and `advert` may raise MarketplaceError. Repeating a call is
    harmless.
    """

    capabilities: Capabilities
    Settings: ClassVar[type[MarketplaceConfig]] = MarketplaceConfig
    frame_origins: ClassVar[tuple[str, ...]] = ()  # sites that show our pages in a frame
    form_origins: ClassVar[tuple[str, ...]] = ()  # sites that our pages post forms to
    holds_places: ClassVar[bool] = True  # whether people hold a place there, which they can return
    calls_back = False  # whether a call to its server reports finished runs
    currencies: ClassVar[tuple[str, ...]] = ("USD",)  # that it can pay in
    simulator: ClassVar[str] = ""  # "module:function": a local marketplace and its workers, for rehearsals

    # For the packet for a review board:
    listing_title: ClassVar[str] = ""  # heads the words of `advert`; empty: "As shown by NAME"
    listing_note: ClassVar[str] = "The researchers post this on the marketplace."
    payment_note: ClassVar[str] = "The researchers pay by hand, against the completion code of each participant."
    sample_opening: ClassVar[str] = "posting"  # the id of a posting in `sample_query`

    @classmethod
    @abstractmethod
    def for_study(cls, study: Study, *, live: bool, endpoint: str) -> Self:
        """The marketplace of a study; `live`: real money is paid; `endpoint`: a local marketplace, to rehearse."""

    @abstractmethod
    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """The arrival with these parameters, and whether it is a preview.

        Raises:
            ArrivalError: with one sentence for the listener.
        """

    def verify_arrival(self, query: Mapping[str, str], arrival: Arrival, host: str) -> bool:
        """Whether the marketplace signed these ids for the server at `host`; False if nothing is signed.

        Raises:
            ArrivalError: if the signature is forged.
        """
        return False

    @abstractmethod
    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        """How a listener returns after a run with this outcome; `code` is the outcome's, or their own."""

    def callback_address(self, arrival: Arrival, code: str) -> str:
        """The address that is called, once, for a finished run, if `calls_back`."""
        raise NotImplementedError

    def address(self, url: str) -> str:
        """The address that the researcher posts, if listeners arrive with parameters that the marketplace fills in."""
        return url

    def make_full_link(self, arrival: Arrival) -> ReturnLink:
        """How somebody returns for whom the study has no place."""
        return ReturnLink()

    @abstractmethod
    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        """The advertisement that workers see before they take a place: (label, text). Needs no network."""

    @abstractmethod
    def open(self, order: PostingOrder) -> str:
        """Open places; returns the posting's id. Opening the same order again returns the same id.

        Raises:
            MarketplaceError: if they cannot be opened, for example because another database has launched this study.
            UnknownWorkerError: if the order is for one worker, who is unknown to the marketplace.
        """

    @abstractmethod
    def submissions(self, opening: str) -> PostingStatus:
        """The state of a posting, with its submissions."""

    @abstractmethod
    def approve(self, submission: ReportedSubmission) -> None:
        """Accept a submission, which pays the posting's reward."""

    @abstractmethod
    def bonus(self, payment: DirectPayment) -> None:
        """Make a direct payment, unless one with the same token was made before."""

    @abstractmethod
    def close(self, opening: str) -> None:
        """Offer no more places; workers who hold one may still submit. Nothing is deleted."""

    @abstractmethod
    def account(self) -> int | None:
        """The balance in cents; None if it is unknown.

        Raises:
            MarketplaceError: if the account cannot be used; so this is called before anything is opened.
        """

    @abstractmethod
    def fee(self, cents: int, places: int = 1) -> int:
        """The marketplace's fee, in cents, on one payment from a posting with this many places."""

    def exact_fee(self, cents: int, places: int = 1) -> Fraction:
        """The fee on one payment at full precision, in cents: many small payments may cost fractions of a cent each."""
        return Fraction(self.fee(cents, places))

    def check_terms(self, reward: int, minutes: float) -> None:
        """Refuse pay or settings that the marketplace does not allow. Needs no network.

        Raises:
            MarketplaceError: naming the key of study.toml.
        """

    def screen_out_plan(self, *, ask: bool = False, pays: bool = False) -> ScreenOutPlan:
        """How those who are screened out are paid.

        Args:
            ask: ask the marketplace what the account may use.
            pays: a posting of the launch is known to pay them by itself.
        """
        return ScreenOutPlan("direct")

    def notes(self) -> tuple[str, ...]:
        """What the account may not use, one sentence each, for the researcher before the launch."""
        return ()

    def audience(self) -> int | None:
        """How many workers pass the study's filters now; None if it is unknown."""
        return None

    def draft(self, order: PostingOrder) -> str:
        """Make a posting that nobody sees yet; returns its id. Repeating the order gives the same id."""
        raise MarketplaceError(f"{self.capabilities.name} has no drafts; open the study without --draft.")

    def update_draft(self, draft: str, order: PostingOrder) -> None:
        """Bring a draft up to date with study.toml; a posting that is published already stays as it is."""

    def draft_address(self, draft: str) -> str:
        """Where a researcher looks at a draft; empty if it has no page."""
        return ""

    def publish(self, posting: str) -> None:
        """Show a draft to workers; a posting that is published already stays as it is."""

    def allow_screen_outs(self, posting: str, number: int) -> None:
        """Let the marketplace screen out this many workers in all, and let a posting go on that paused for it."""

    def request_return(self, submission: ReportedSubmission, reason: str) -> None:
        """Ask a worker to return their submission."""

    @abstractmethod
    def has_paid(self, payment: DirectPayment) -> bool:
        """Whether the marketplace has made this payment; called before one in unknown state is sent again."""

    @abstractmethod
    def exclude(self, worker: str, launch: str) -> None:
        """Make sure that this worker is not offered this launch's study again.

        Raises:
            UnknownWorkerError: if there is no such worker.
        """

    def disconnect(self) -> None:
        """Close connections; the next call makes new ones."""


class ManualMarketplace(Marketplace):
    """The base of marketplaces where the researcher posts the study and pays by hand.

    A subclass gives `capabilities` (with `opens_by_hand` and `pays_by_hand`), `arrive` and `advert`. The id of its
    only posting is `opening`, which `arrive` gives to each arrival.
    """

    opening: ClassVar[str] = "manual"
    currencies: ClassVar[tuple[str, ...]] = CURRENCIES

    @classmethod
    def for_study(cls, study: Study, *, live: bool, endpoint: str) -> Self:
        return cls()

    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        return ReturnLink()

    def open(self, order: PostingOrder) -> str:
        return self.opening

    def submissions(self, opening: str) -> PostingStatus:
        return PostingStatus(free=0, held=0)

    def approve(self, submission: ReportedSubmission) -> None:
        """The researcher approves there."""

    def bonus(self, payment: DirectPayment) -> None:
        """The researcher pays there."""

    def close(self, opening: str) -> None:
        """The server itself takes no new listeners; the researcher removes the posting."""

    def account(self) -> int | None:
        return None

    def fee(self, cents: int, places: int = 1) -> int:
        return 0

    def has_paid(self, payment: DirectPayment) -> bool:
        return False

    def exclude(self, worker: str, launch: str) -> None:
        """The server recognises a worker by the hash of their id."""
