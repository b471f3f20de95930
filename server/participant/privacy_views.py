"""What a listener may ask for: erasure (by their address or their completion code), the consent text, and access.

A code is enough, on any device, at any time, whether or not identities are still kept; nobody has to be written to.
Nothing changes by GET: erasing is asked twice, and a second time does nothing. No reply tells more of a run than that
its code is one.
"""

from __future__ import annotations

import re

from flask import Blueprint, abort, redirect, render_template, request, url_for
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from server.assignments import steps
from server.db.models import Assignment, ConsentText, LogEntry
from server.participant.context import present_assignment as _assignment
from server.participant.context import present_context as _house
from server.participant.context import present_session as _session
from server.payments import ledger
from server.privacy import erasure, subject_access
from server.web import i18n
from server.web.markdown import render_text
from study.languages import mark

blueprint = Blueprint("rights", __name__)
HASH = re.compile(r"[0-9a-f]{64}")
CODE_LIMIT = 40
PUBLISHED = "made a public release"  # what the log says of it
UNKNOWN_CODE = mark("There is no run with this code. Please look at it once more; it has ten letters and digits.")


# ------------------------------------------------------------------ withdrawing


@blueprint.get("/withdraw")
def withdraw() -> str:
    """Ask for the completion code."""
    return render_template("withdraw.html", step="withdraw", problem="", code="")


@blueprint.post("/withdraw")
def withdraw_by_code() -> WebResponse | str | tuple[str, int]:
    """Without confirm=yes, ask once more; with it, erase."""
    code = request.form.get("code", "")[:CODE_LIMIT]
    confirmed = request.form.get("confirm") == "yes"
    assignment = subject_access.find_code(_session(), _house().door, code, lock=confirmed)
    if assignment is None:
        problem = i18n.gettext(UNKNOWN_CODE)
        return render_template("withdraw.html", step="withdraw", problem=problem, code=code), 400
    i18n.use(assignment.language)
    if assignment.erased_at is None and not confirmed:
        return _ask(assignment, url_for("rights.withdraw_by_code"), code)
    _erase(assignment)
    return render_template("erased.html", step="erased", published=_published())


@blueprint.get("/a/<token>/withdraw")
def confirm_withdraw(token: str) -> WebResponse | str:
    assignment = _assignment(token)
    if assignment.erased_at is not None:
        return redirect(url_for("participant.page", token=token), 303)
    return _ask(assignment, url_for("rights.withdraw_here", token=token), "", back=token)


@blueprint.post("/a/<token>/withdraw")
def withdraw_here(token: str) -> WebResponse:
    assignment = _assignment(token, lock=True)
    if request.form.get("confirm") != "yes":
        return redirect(url_for("rights.confirm_withdraw", token=token), 303)
    _erase(assignment)
    return redirect(url_for("participant.page", token=token), 303)


def _ask(assignment: Assignment, action: str, code: str, back: str = "") -> str:
    return render_template(
        "withdraw_confirm.html",
        step="withdraw",
        action=action,
        code=code,
        back=back,
        under_way=assignment.state not in steps.ENDED,
        paid=assignment.state in steps.ENDED and bool(_amount(assignment)),
        published=_published(),
    )


def _amount(assignment: Assignment) -> int:
    return ledger.due(assignment.state, _house().experiment.config.pay)[1]


def _erase(assignment: Assignment) -> None:
    house = _house()
    erasure.erase(_session(), house.journal, assignment, house.experiment.clock(), erasure.LISTENER)


def _published() -> bool:
    """Whether a release was made: what is in it belongs to nobody any more, and cannot be found to be erased."""
    query = select(func.count()).select_from(LogEntry).where(LogEntry.what == PUBLISHED)
    return bool(_session().scalar(query))


# ------------------------------------------------------------------ what was agreed to, and access


@blueprint.get("/consent")
def consent_now() -> WebResponse:
    """The consent text as it is now."""
    return redirect(url_for("rights.consent_text", digest=_house().pages.consent_version, lang=i18n.present()), 303)


@blueprint.get("/consent/<digest>")
def consent_text(digest: str) -> str:
    """A version of the consent text, to read, print or save as PDF."""
    found = _session().get(ConsentText, digest) if HASH.fullmatch(digest) else None
    if found is None:
        abort(404)
    if "lang" not in request.args:  # two languages may have the same text
        i18n.use(found.language)
    return render_template("consent_text.html", step="text", version=found, text=render_text(found.text))


@blueprint.get("/accessibility")
def accessibility() -> str:
    """How the pages can be used, and what those are offered who cannot use sound."""
    pay = _house().experiment.config.pay
    same = pay.unheard_usd >= pay.reward_usd
    return render_template("accessibility.html", step="text", same=same, usd=pay.unheard_usd)
