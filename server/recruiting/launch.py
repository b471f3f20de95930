"""Recruiting: ordering places at the marketplace, topping them up, and closing.

The books come first: an opening is written down with its token before it is ordered, so that a program that dies
between the two finds the order by its token and never places it twice. Every step is a transaction of its own.
Only one of these programs runs for a study at a time (`exclusive`).
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.assignments.experiment import Clock, utc_now
from server.audit import study_control
from server.db import database
from server.db.models import ACTIVE, Assignment, Launch, MarketplaceSubmission, Payment, Place, Posting
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault, recall
from server.payments import ledger
from server.payments.ledger import dollars
from server.recruiting.marketplaces.base import (
    Marketplace,
    MarketplaceError,
    PostingOrder,
    PostingStatus,
    UnknownWorkerError,
)
from study.config import StudyConfig, cents

LOCK_NUMBER = 0x726F6F74  # "root"
BUSY = "another `rootnote server open`, `sync`, `approve`, `pay` or `close` of this study is running; wait for its end."
COMMAND = "rootnote server"
Tell = Callable[[str], object]
MARGIN = timedelta(minutes=1)  # who arrived just now may not be counted as holding a place yet


@dataclass(frozen=True)
class RecruitingContext:
    """What recruiting and paying need: the books, the marketplace, the keys."""

    engine: Engine
    recruiter: Marketplace
    config: StudyConfig
    door: TokenSigner
    vault: Vault
    url: str = ""  # where listeners arrive: …/take
    clock: Clock = utc_now
    margin: timedelta = MARGIN

    @property
    def reward(self) -> int:
        return cents(self.config.pay.reward_usd)

    @property
    def fee(self) -> int:
        """The fee on one reward of an opening of ours."""
        return self.recruiter.fee(self.reward, self.recruiter.terms.batch or 1)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction."""
        with database.writing(self.engine) as session, session.begin():
            yield session

    def reading(self) -> Session:
        return database.reading(self.engine)


@contextlib.contextmanager
def exclusive(engine: Engine) -> Iterator[None]:
    """Hold the study's books alone; a program that dies lets go of them.

    Raises:
        RootnoteError: where another holds them.
    """
    if engine.dialect.name == "sqlite":
        with Path(f"{engine.url.database}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RootnoteError(BUSY) from None
            yield
        return
    with engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": LOCK_NUMBER}):
            raise RootnoteError(BUSY)
        connection.commit()  # the lock is the connection's, not the transaction's
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": LOCK_NUMBER})


# ------------------------------------------------------------------ the launch


def terms(config: StudyConfig) -> dict[str, Any]:
    """What of study.toml must stay as it is while a launch runs."""
    kept = {"pay": config.pay, "recruiter": config.recruiter}
    told = {name: section.model_dump(mode="json") for name, section in kept.items()}
    told["pay"].pop("budget_usd")  # may be raised
    told["recruiter"].pop("reservation_minutes")
    return told


def begin(session: Session, office: RecruitingContext, schedule: str, *, live: bool, budget: int) -> Launch:
    """Make the launch, or raise the budget of the one there is.

    Raises:
        RootnoteError: where the one there is differs from this.
    """
    found = ledger.launch(session, lock=True)
    if study_control.control(session).purged_at is not None:
        raise RootnoteError(
            "identities of this study are deleted, so nobody new can be told from who took part or was paid; "
            "set ROOTNOTE_DATABASE_URL to a new database."
        )
    if found is None:
        name = f"{schedule[:16]}-{secrets.token_hex(4)}"
        found = Launch(
            id=1, name=name, live=live, terms=terms(office.config), budget_cents=budget, began_at=office.clock()
        )
        session.add(found)
        session.flush()
    if found.live != live:
        was, now = ("real", "a sandbox") if found.live else ("a sandbox", "real")
        raise RootnoteError(
            f"this database holds {was} launch and this would be {now} one; "
            "set ROOTNOTE_DATABASE_URL to a new database, or leave `--live` as it was."
        )
    require_unchanged(found, office.config)
    found.budget_cents, found.closed_at = max(found.budget_cents, budget), None
    return found


def require_launched(session: Session, office: RecruitingContext) -> Launch:
    """The launch that runs, unchanged.

    Raises:
        RootnoteError: where there is none, or study.toml was changed since.
    """
    found = ledger.launch(session)
    if found is None:
        raise RootnoteError(f"the study is not launched yet; run `{COMMAND} open`.")
    require_unchanged(found, office.config)
    return found


def require_unchanged(found: Launch, config: StudyConfig) -> None:
    """Refuse a study.toml that says something else of pay or recruiter than when the study was launched.

    Raises:
        RootnoteError: naming the first key that differs.
    """
    for section, now in terms(config).items():
        before = found.terms.get(section, {})
        for key in now:
            if now[key] != before.get(key):
                raise RootnoteError(
                    f"{section}.{key} in study.toml was changed after the launch (it was {before.get(key)!r}, "
                    f"now it is {now[key]!r}); restore it: those who took part were promised the former."
                )


def require_payable(office: RecruitingContext) -> None:
    """Refuse amounts that this marketplace cannot pay.

    Raises:
        RootnoteError: naming the key.
    """
    pay, at = office.config.pay, office.recruiter.terms
    if office.reward == 0 and not at.by_hand:
        raise RootnoteError(f"pay.reward_usd in study.toml is 0; {at.name} needs a reward.")
    if at.pays_unsubmitted:
        return
    for name in ("screened_out_usd", "without_sound_usd", "withdrawn_usd", "expired_usd"):
        if cents(getattr(pay, name) or 0) > office.reward:
            raise RootnoteError(
                f"pay.{name} in study.toml is above pay.reward_usd; "
                f"on {at.name} everybody who submits is paid the reward."
            )


# ------------------------------------------------------------------ places


@dataclass(frozen=True)
class PlaceSupply:
    """Places of the study that nobody has filled, and what is open for them at the marketplace."""

    unfilled: int
    free: int
    held: int

    @property
    def missing(self) -> int:
        return max(self.unfilled - self.free - self.held, 0)


def supply(session: Session, standings: Mapping[str, PostingStatus]) -> PlaceSupply:
    """Count, so that a place given back is not ordered anew while the marketplace offers it still."""
    unfilled = session.scalar(select(func.count()).select_from(Place).where(~Place.filled)) or 0
    owed = set(session.scalars(select(Posting.market_id).where(Posting.owed_to.is_not(None))))
    counted = {id_: standing for id_, standing in standings.items() if id_ not in owed}
    held = sum(standing.held for standing in counted.values())
    # Who has ended but not submitted yet holds a place there that none of ours waits for.
    ended = (
        select(func.count())
        .select_from(MarketplaceSubmission)
        .join(Assignment, MarketplaceSubmission.assignment_id == Assignment.id)
        .where(
            MarketplaceSubmission.status == "held",
            Assignment.state.not_in(ACTIVE),
            MarketplaceSubmission.opening.in_(counted),
        )
    )
    done = min(session.scalar(ended) or 0, held)
    return PlaceSupply(unfilled, sum(standing.free for standing in counted.values()), held - done)


def batches(missing: int, most: int | None) -> list[int]:
    """Sizes of the openings for so many places."""
    if most is None:
        return [missing] if missing else []
    return [most] * (missing // most) + ([missing % most] if missing % most else [])


def affordable(session: Session, office: RecruitingContext, missing: int) -> int:
    """How many of the missing places the budget has room for."""
    unit = office.reward + office.fee
    return min(missing, ledger.remaining_budget(session) // unit) if unit else missing


def order_places(office: RecruitingContext, places: int) -> None:
    """Order one opening: written down, ordered, written down again."""
    with office.writing() as session:
        ledger.require_budget(session, places * (office.reward + office.fee))
        opening = Posting(
            token=ledger.new_token("places"),
            places=places,
            reward_cents=office.reward,
            fee_cents=office.fee,
            ordered_at=office.clock(),
        )
        session.add(opening)
        session.flush()
        number = opening.id
    place_order(office, number)


def place_order(office: RecruitingContext, number: int) -> None:
    """Place the order of an opening that is written down; one that was placed before is found by its token.

    Raises:
        UnknownWorkerError: where it was for one worker, whom the marketplace does not know; nothing is owed then.
    """
    with office.reading() as session:
        order = _order(session, office, session.get_one(Posting, number))
    try:
        market_id = office.recruiter.open(order)
    except UnknownWorkerError:
        with office.writing() as session:
            _call_off(session, office, session.get_one(Posting, number))
        raise
    with office.writing() as session:
        session.get_one(Posting, number).market_id = market_id


def _call_off(session: Session, office: RecruitingContext, opening: Posting) -> None:
    opening.market_id = f"none-{opening.id}"
    opening.closed_at = opening.settled_at = office.clock()
    for payment in session.scalars(select(Payment).where(Payment.opening_id == opening.id)):
        payment.state = "void"


def _order(session: Session, office: RecruitingContext, opening: Posting) -> PostingOrder:
    launch = ledger.launch(session)
    assert launch is not None
    before = select(func.coalesce(func.sum(Posting.places), 0)).where(
        Posting.id <= opening.id, Posting.owed_to.is_(None)
    )
    minutes, url, only_for = office.config.pay.minutes, office.url, ""
    if opening.owed_to is not None:
        assignment = session.get_one(Assignment, opening.owed_to)
        who = recall(session, office.vault, assignment.listener)
        if who is None or who.worker is None:
            raise MarketplaceError(f"who listener {assignment.listener.pseudonym} is, is not known any more.")
        only_for, url = who.worker, f"{office.url}?owed=1"
    total = opening.places if only_for else int(session.scalar(before) or opening.places)
    return PostingOrder(opening.token, launch.name, opening.places, total, opening.reward_cents, url, minutes, only_for)


def unplaced(session: Session) -> list[int]:
    """Openings of which it is not known whether they were ordered."""
    return list(session.scalars(select(Posting.id).where(Posting.market_id.is_(None)).order_by(Posting.id)))


# ------------------------------------------------------------------ closing


def stop(office: RecruitingContext, who: str) -> None:
    """Decide to close: nobody new is let in, and `sync` closes what is open, however often it takes."""
    with office.writing() as session:
        launch = ledger.launch(session, lock=True)
        if launch is not None and launch.closed_at is None:
            launch.closed_at = office.clock()
        with contextlib.suppress(study_control.ControlRefusedError):  # closed for good at the desk
            study_control.stop(session, who, "closed from the command line", office.clock())


def close_openings(office: RecruitingContext) -> int:
    """Close every opening that is open, at the marketplace too; how many were."""
    with office.reading() as session:
        query = select(Posting.market_id).where(Posting.closed_at.is_(None), Posting.market_id.is_not(None))
        found = sorted({str(one) for one in session.scalars(query.where(Posting.owed_to.is_(None)))})
    for market_id in found:
        office.recruiter.close(market_id)
        with office.writing() as session:
            for opening in session.scalars(select(Posting).where(Posting.market_id == market_id)):
                opening.closed_at = office.clock()
    return len(found)


def top_up(office: RecruitingContext, standings: Mapping[str, PostingStatus], tell: Tell) -> int:
    """Order what is missing, as far as the budget reaches; how many places were ordered."""
    with office.reading() as session:
        launch = ledger.launch(session)
        recruiting = study_control.control(session).recruiting
        if launch is None or launch.closed_at is not None or not recruiting or office.recruiter.terms.by_hand:
            return 0
        missing = supply(session, standings).missing
        wanted = affordable(session, office, missing)
    for places in batches(wanted, office.recruiter.terms.batch):
        order_places(office, places)
    if wanted < missing:
        unit = dollars(office.reward + office.fee)
        tell(f"{missing - wanted} more places are needed, at {unit} each, and the budget is spent: open --budget USD.")
    return wanted
