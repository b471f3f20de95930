"""The launch of a study: one for each database, with the pay and the marketplace that listeners were promised."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit import study_control
from server.db.enums import RunVerification
from server.db.models import Assignment, Launch, Posting
from server.payments import ledger
from server.recruiting.context import RecruitingContext
from server.recruiting.postings import DRAFT
from study.config import StudyConfig


def launch_terms(config: StudyConfig) -> dict[str, Any]:
    """The parts of study.toml that must not change while a launch runs: pay, and the marketplace with its section."""
    pay, recruiter = config.pay.model_dump(mode="json"), config.recruiter.model_dump(mode="json")
    pay = {key: value for key, value in pay.items() if key not in ("budget", "budget")}  # may be raised
    kind, changeable = config.recruiter.kind, config.recruiter.settings.changeable
    section = {key: value for key, value in recruiter.get(kind, {}).items() if key not in changeable}
    return {"pay": pay, "recruiter": {"kind": kind} | ({kind: section} if section else {})}


def begin(session: Session, context: RecruitingContext, schedule: str, *, live: bool, budget: int) -> Launch:
    """Record the launch, or raise the budget of the existing one.

    Raises:
        RootnoteError: if the existing launch differs from this one.
    """
    found = ledger.launch(session, lock=True)
    if study_control.control(session).purged_at is not None:
        raise RootnoteError(
            "the identities of this study's listeners are deleted, so a new listener can no longer be compared with "
            "those who took part; set ROOTNOTE_DATABASE_URL to a new database."
        )
    if found is None:
        found = Launch(
            id=1,
            name=f"{schedule[:16]}-{secrets.token_hex(4)}",
            live=live,
            terms=launch_terms(context.config),
            budget_cents=budget,
            began_at=context.clock(),
            code_key=secrets.token_hex(32),
        )
        session.add(found)
        session.flush()
    if found.live != live:
        was, now = ("real", "a sandbox") if found.live else ("a sandbox", "real")
        raise RootnoteError(
            f"this database holds {was} launch and this would be {now} one; "
            "set ROOTNOTE_DATABASE_URL to a new database, or leave `--live` as it was."
        )
    if is_promised(session, context):
        require_unchanged(found, context.config)
    else:
        found.terms = launch_terms(context.config)
    found.budget_cents, found.closed_at = max(found.budget_cents, budget), None
    return found


def require_launched(session: Session, context: RecruitingContext) -> Launch:
    """The running launch.

    Raises:
        RootnoteError: if there is none, or study.toml was changed since.
    """
    found = ledger.launch(session)
    if found is None:
        raise RootnoteError("the study is not launched yet; run `rootnote server open`.")
    if is_promised(session, context):
        require_unchanged(found, context.config)
    return found


def is_promised(session: Session, context: RecruitingContext) -> bool:
    """Whether anybody was promised the terms of the launch: somebody consented, or places are offered for them.

    A run that no marketplace has listed does not count: researchers make one when they try a draft's preview.
    """
    real = Assignment.verification != RunVerification.UNCONFIRMED
    if session.scalar(select(Assignment.id).where(real).limit(1)) is not None:
        return True
    cancelled = func.coalesce(Posting.market_id, "").startswith("none-")
    offered = select(Posting.id).where(~Posting.token.startswith(f"{DRAFT}-"), ~cancelled).limit(1)
    return not context.marketplace.capabilities.opens_by_hand and session.scalar(offered) is not None


def require_promises_kept(context: RecruitingContext) -> None:
    """Refuse a study.toml that differs from what listeners of its launch were promised.

    Raises:
        RootnoteError: naming the first key that differs.
    """
    with context.reading() as session:
        found = ledger.launch(session)
        if found is not None and is_promised(session, context):
            require_unchanged(found, context.config)


def require_unchanged(launch: Launch, config: StudyConfig) -> None:
    """Refuse a study.toml whose pay or marketplace differs from the launch.

    Raises:
        RootnoteError: naming the first key that differs.
    """
    if changed := changed_key(launch, config):
        section, _, key = changed.partition(".")
        before, now = launch.terms.get(section, {}).get(key), launch_terms(config)[section][key]
        raise RootnoteError(
            f"{changed.replace('_usd', '')} in study.toml was changed after the launch (from {before!r} to {now!r}); "
            "restore it: listeners were promised the earlier value."
        )


def changed_key(launch: Launch, config: StudyConfig) -> str:
    """The first key of the terms, as "section.key", that differs from the launch; empty if none does."""
    for section, now in launch_terms(config).items():
        before = launch.terms.get(section, {})
        for key in now:
            if differs(now[key], before.get(key)):
                return f"{section}.{key}"
    return ""


def differs(now: Any, before: Any) -> bool:
    """Whether a setting was changed; one that an earlier version did not have yet was not."""
    if isinstance(now, dict) and isinstance(before, dict):
        return any(key in before and differs(now[key], before[key]) for key in now)
    return bool(now != before)


def stop(context: RecruitingContext, who: str) -> None:
    """Close the launch: no new listener is admitted, and `sync` closes open postings, retrying as needed."""
    with context.writing() as session:
        launch = ledger.launch(session, lock=True)
        if launch is not None and launch.closed_at is None:
            launch.closed_at = context.clock()
        with contextlib.suppress(study_control.ControlRefusedError):  # closed for good at the desk
            study_control.stop(session, who, "closed from the command line", context.clock())
