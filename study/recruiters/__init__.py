"""Where listeners come from: one file a recruiter, one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from study.config import Study
    from study.recruiters.base import Recruiter

# recruiter.kind -> what makes it: "module:function", called as make(study, live=…, endpoint=…). Imported when asked
# for, so that a study of plain links needs no marketplace's client.
RECRUITERS = {
    "link": "study.recruiters:_link",
    "mturk": "study.recruiters.mturk:make",
    "prolific": "study.recruiters.prolific:make",
}


def make_recruiter(study: Study, *, live: bool = False, endpoint: str = "") -> Recruiter:
    """The recruiter of a study; `live`: where real money is paid; `endpoint`: a local marketplace, to rehearse.

    Raises:
        RootnoteError: where there is no such recruiter.
    """
    kind = study.config.recruiter.kind
    if kind not in RECRUITERS:
        raise RootnoteError(f"there is no recruiter '{kind}'; choose one of {', '.join(RECRUITERS)}.")
    module, _, name = RECRUITERS[kind].partition(":")
    make: Callable[..., Recruiter] = getattr(importlib.import_module(module), name)
    return make(study, live=live, endpoint=endpoint)


def _link(study: Study, *, live: bool, endpoint: str) -> Recruiter:
    from study.recruiters.link import LinkRecruiter

    return LinkRecruiter()


def describe(kind: str) -> str:
    """What a recruiter is, in a line: the first of its module's words."""
    module = RECRUITERS[kind].partition(":")[0]
    own = f"study.recruiters.{kind}" if module == __name__ else module
    return (importlib.import_module(own).__doc__ or "").partition("\n")[0]
