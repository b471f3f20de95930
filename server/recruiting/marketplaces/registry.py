"""Making the marketplace of a study. The marketplaces themselves are listed in study.marketplaces."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from server.web.security_headers import MarketplaceOrigins
from study.marketplaces import MARKETPLACES, load_marketplace

if TYPE_CHECKING:
    from server.recruiting.marketplaces.base import Marketplace
    from study.config import Study, StudyConfig

__all__ = ["MARKETPLACES", "describe", "make_marketplace", "marketplace_class", "origins_of"]


def marketplace_class(config: StudyConfig) -> type[Marketplace]:
    """The class of a study's marketplace: what it is called, what it can do, what its pages need.

    Raises:
        RootnoteError: if recruiter.kind names no marketplace.
    """
    found: type[Marketplace] = load_marketplace(config.recruiter.kind)
    return found


def make_marketplace(study: Study, *, live: bool = False, endpoint: str = "") -> Marketplace:
    """The marketplace of a study.

    Args:
        live: whether real money is paid.
        endpoint: the address of a local marketplace, to rehearse.

    Raises:
        RootnoteError: if recruiter.kind names no marketplace.
    """
    return marketplace_class(study.config).for_study(study, live=live, endpoint=endpoint)


def origins_of(config: StudyConfig) -> MarketplaceOrigins:
    """The sites of a study's marketplace that may frame its pages and receive its forms."""
    found = marketplace_class(config)
    return MarketplaceOrigins(found.frame_origins, found.form_origins)


def describe(kind: str) -> str:
    """A marketplace in one line: the first line of its module's docstring."""
    module = inspect.getmodule(load_marketplace(kind))
    return (module.__doc__ or "").partition("\n")[0] if module else ""
