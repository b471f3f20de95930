"""What the commands of recruiting share: the study with its marketplace, confirmation, amounts as they are typed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click

from embeddings.errors import RootnoteError
from server.commands.common import opened
from server.db import database
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault, has_keys, read_vault
from server.payments import ledger
from server.payments.formatting import NO_LIMIT
from server.recruiting import launch
from server.recruiting.context import RecruitingContext
from server.recruiting.exclusive import exclusive
from server.recruiting.marketplaces.registry import make_marketplace
from server.settings import Settings, read_settings
from study.config import Study


@dataclass(frozen=True)
class CommandContext:
    """The context of a command: the recruiting context, the study, its settings, and whether real money is spent."""

    recruiting: RecruitingContext
    study: Study
    settings: Settings
    live: bool

    @property
    def by_hand(self) -> bool:
        """Whether the researcher pays outside Rootnote."""
        return self.recruiting.marketplace.capabilities.pays_by_hand


@contextlib.contextmanager
def open_context(folder: Path, rehearsal: bool, live: bool | None = None) -> Iterator[CommandContext]:
    """Lock the study's ledger and connect to the marketplace; `live` None: as the study was launched."""
    with opened(folder, rehearsal, secret=True) as (study, engine), exclusive(engine):
        settings = read_settings(study, os.environ, rehearsal=rehearsal)
        with database.reading(engine) as session:
            found = ledger.launch(session)
        real = bool(found and found.live) if live is None else live
        marketplace = make_marketplace(study, live=real, endpoint=settings.market_url)
        context = RecruitingContext(
            engine,
            marketplace,
            settings.adjust(study.config),
            TokenSigner(settings.secret),
            settings.vault or _unused_vault(),
            f"{settings.public_url}/take",
        )
        if settings.market_url:  # a marketplace on this machine counts at once, and a rehearsal is short
            context = replace(context, margin=timedelta(seconds=1))
        try:
            yield CommandContext(context, study, settings, real)
        finally:
            marketplace.disconnect()


def _unused_vault() -> Vault:
    """Plain links store no identities, so this vault is never used."""
    return read_vault(os.environ if has_keys(os.environ) else {}, rehearsal_secret="unused")  # noqa: S106


def confirm(yes: bool, question: str) -> None:
    """Ask, unless the researcher has said yes beforehand."""
    if not yes:
        click.confirm(question, abort=True)


def read_cents(amount: str | None) -> int | None:
    """An amount as typed, in cents.

    Raises:
        RootnoteError: if it is not a whole number of cents.
    """
    if amount is None:
        return None
    try:
        value = Decimal(amount.lstrip("$£€")) * 100
        if not value.is_finite() or value % 1 or not 0 <= value < 10 * NO_LIMIT:
            raise InvalidOperation
    except InvalidOperation:
        raise RootnoteError(f"'{amount}' is not an amount with at most two decimals, such as 200 or 12.50.") from None
    return int(value)


def require_launched(command: CommandContext) -> None:
    """Refuse a study without a launch."""
    with command.recruiting.reading() as session:
        launch.require_launched(session, command.recruiting)
