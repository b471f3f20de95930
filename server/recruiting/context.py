"""The context of recruiting and paying: the database, the marketplace, the keys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.assignments.experiment import Clock, utc_now
from server.db import database
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault
from server.payments.fees import rounded
from server.recruiting.marketplaces.base import Marketplace
from study.config import StudyConfig, cents

Report = Callable[[str], object]  # shows a line to the researcher
MARGIN = timedelta(minutes=1)  # a marketplace may not yet count a worker who arrived just now


@dataclass(frozen=True)
class RecruitingContext:
    """The context of every use case of recruiting.

    `url`: where listeners arrive, …/take. `margin`: how long a marketplace may take to count a worker who arrived.
    """

    engine: Engine
    marketplace: Marketplace
    config: StudyConfig
    signer: TokenSigner
    vault: Vault
    url: str = ""
    clock: Clock = utc_now
    margin: timedelta = MARGIN

    @property
    def reward(self) -> int:
        """The reward in cents."""
        return cents(self.config.pay.reward)

    @property
    def fee(self) -> int:
        """The fee in cents on the reward of one place, rounded."""
        return rounded(self.exact_fee)

    @property
    def exact_fee(self) -> Fraction:
        """The fee on the reward of one place at full precision, in cents."""
        return self.marketplace.exact_fee(self.reward, self.marketplace.capabilities.batch or 1)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction."""
        with database.writing(self.engine) as session, session.begin():
            yield session

    def reading(self) -> Session:
        return database.reading(self.engine)
