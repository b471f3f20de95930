"""The marketplaces by name: one file in this package and one line here for each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from server.recruiting.marketplaces.base import Marketplace
    from study.config import Study

# recruiter.kind -> what makes it: "module:function", called as make(study, live=…, endpoint=…). Imported when asked
# for, so that a study of plain links needs no marketplace's client.
MARKETPLACES = {
    "link": "server.recruiting.marketplaces.link:make",
    "mturk": "server.recruiting.marketplaces.mturk:make",
    "prolific": "server.recruiting.marketplaces.prolific:make",
}


def make_marketplace(study: Study, *, live: bool = False, endpoint: str = "") -> Marketplace:
    """The recruiter of a study; `live`: where real money is paid; `endpoint`: a local marketplace, to rehearse.

    Raises:
        RootnoteError: where there is no such recruiter.
    """
    kind = study.config.recruiter.kind
    if kind not in MARKETPLACES:
        raise RootnoteError(f"there is no recruiter '{kind}'; choose one of {', '.join(MARKETPLACES)}.")
    module, _, name = MARKETPLACES[kind].partition(":")
    make: Callable[..., Marketplace] = getattr(importlib.import_module(module), name)
    return make(study, live=live, endpoint=endpoint)


def describe(kind: str) -> str:
    """What a recruiter is, in one line: the first line of its module's docstring."""
    module = MARKETPLACES[kind].partition(":")[0]
    return (importlib.import_module(module).__doc__ or "").partition("\n")[0]
