"""Privacy: erasure (by a listener's address or completion code), the consent text, and accessibility.

A completion code is enough, on any device, at any time, even after identities were deleted. GET changes nothing:
erasure is confirmed first, and a second time does nothing. No reply reveals more about a run than that its code exists.
"""

from __future__ import annotations

import re

from flask import Blueprint, abort, redirect, render_template, request, url_for
from sqlalchemy import func, select
from werkzeug.wrappers import Response as WebResponse

from server.assignments import steps
from server.db.models import Assignment, ConsentText, LogEntry
from server.participant.visit import Visit, pass_visit
from server.payments import ledger
from server.privacy import erasure, subject_access
from server.web import i18n
from server.web.markdown import render_text
from study.languages import mark

blueprint = Blueprint("privacy", __name__)
HASH = re.compile(r"[0-9a-f]{64}")
CODE_LIMIT = 40
PUBLISHED = "made a public release"  # the entry of the audit log
UNKNOWN_CODE = mark("There is no session with this code. Please check it: it has ten letters and digits.")


# ------------------------------------------------------------------ erasure


@blueprint.get("/withdraw")
def withdraw() -> str:
    """Ask for the completion code."""
    return render_template("withdraw.html", step="withdraw", problem="", code="")


@blueprint.post("/withdraw")
@pass_visit
def withdraw_by_code(visit: Visit) -> WebResponse | str | tuple[str, int]:
    """Without confirm=yes, ask; with it, erase."""
    code = request.form.get("code", "")[:CODE_LIMIT]
    confirmed = request.form.get("confirm") == "yes"
    assignment = subject_access.find_code(visit.session, visit.signer, code, lock=confirmed)
    if assignment is None:
        problem = i18n.gettext(UNKNOWN_CODE)
        return render_template("withdraw.html", step="withdraw", problem=problem, code=code), 400
    i18n.use(assignment.language)
    if assignment.erased_at is None and not confirmed:
        return _confirm_page(visit, assignment, url_for("privacy.withdraw_by_code"), code=code)
    _erase(visit, assignment)
    return render_template("erased.html", step="erased", published=_is_published(visit))


@blueprint.get("/a/<token>/withdraw")
@pass_visit
def confirm_withdraw(visit: Visit, token: str) -> WebResponse | str:
    assignment = visit.assignment(token)
    if assignment.erased_at is not None:
        return redirect(url_for("participant.page", token=token), 303)
    return _confirm_page(visit, assignment, url_for("privacy.withdraw_here", token=token), back=token)


@blueprint.post("/a/<token>/withdraw")
@pass_visit
def withdraw_here(visit: Visit, token: str) -> WebResponse:
    assignment = visit.assignment(token, lock=True)
    if request.form.get("confirm") != "yes":
        return redirect(url_for("privacy.confirm_withdraw", token=token), 303)
    _erase(visit, assignment)
    return redirect(url_for("participant.page", token=token), 303)


def _confirm_page(visit: Visit, assignment: Assignment, action: str, *, code: str = "", back: str = "") -> str:
    ended = assignment.state in steps.ENDED
    return render_template(
        "withdraw_confirm.html",
        step="withdraw",
        action=action,
        code=code,
        back=back,
        under_way=not ended,
        paid=ended and ledger.due(assignment.state, visit.experiment.config.pay)[1] > 0,
        published=_is_published(visit),
    )


def _erase(visit: Visit, assignment: Assignment) -> None:
    erasure.erase(visit.session, visit.context.journal, assignment, visit.now(), erasure.LISTENER)


def _is_published(visit: Visit) -> bool:
    """Whether a public release was made: answers in it can no longer be found and erased."""
    query = select(func.count()).select_from(LogEntry).where(LogEntry.what == PUBLISHED)
    return bool(visit.session.scalar(query))


# ------------------------------------------------------------------ consent text, accessibility


@blueprint.get("/consent")
@pass_visit
def consent_now(visit: Visit) -> WebResponse:
    """The current consent text."""
    version = visit.texts.consent_version
    return redirect(url_for("privacy.consent_text", digest=version, lang=i18n.present()), 303)


@blueprint.get("/consent/<digest>")
@pass_visit
def consent_text(visit: Visit, digest: str) -> str:
    """A version of the consent text, to read, print or save as PDF."""
    found = visit.session.get(ConsentText, digest) if HASH.fullmatch(digest) else None
    if found is None:
        abort(404)
    if "lang" not in request.args:  # two languages may have the same text
        i18n.use(found.language)
    return render_template("consent_text.html", step="text", version=found, text=render_text(found.text))


@blueprint.get("/accessibility")
@pass_visit
def accessibility(visit: Visit) -> str:
    """How the pages can be used, and what is offered to people who cannot use sound."""
    pay = visit.experiment.config.pay
    same = pay.unheard >= pay.reward
    return render_template("accessibility.html", step="text", same=same)
