"""Prolific as participants see it: what is offered, the way into a study and the way back.

The site recognises a participant by its own cookie (`/signin?participant=…` sets it), as the real site does. Pages:

- GET /signin, /studies: signing in; the studies with a place for this participant;
- POST /studies/STUDY/reserve, /submissions/SUBMISSION/return: what the buttons do;
- GET /submissions/SUBMISSION/open: redirects to the study's own address with the three ids, at top level;
- GET /submissions/complete?cc=CODE: where the study sends its listeners at the end.
"""

from __future__ import annotations

import html
from http.cookies import SimpleCookie
from urllib.parse import quote

from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, page, redirect
from server.simulation.marketplaces.prolific_state import FakeProlificState
from server.simulation.marketplaces.prolific_studies import OPEN, FakeParticipant, FakeProlificError, FakeSubmission
from server.simulation.marketplaces.prolific_tokens import SigningKeys

COOKIE = "prolific_participant"


def study_address(one: FakeSubmission, keys: SigningKeys | None = None, workspace: str = "") -> str:
    """The study's address for one submission, signed if the study asks for it."""
    values = {"PROLIFIC_PID": one.participant, "STUDY_ID": one.study.id, "SESSION_ID": one.id}
    address = one.study.given.external_study_url
    for name, value in values.items():
        address = address.replace("{{%" + name + "%}}", quote(value, safe=""))
    if keys is None or not one.study.given.is_external_study_url_secure:
        return address
    return f"{address}&prolific_token={keys.sign(address, one.id, workspace)}"


class ProlificSite:
    """The pages, over one state."""

    def __init__(self, state: FakeProlificState, keys: SigningKeys | None = None) -> None:
        self.state, self.keys = state, keys

    def handle(self, request: HttpRequest) -> HttpReply:
        """Answer a participant's request."""
        try:
            return self._route(request)
        except FakeProlificError as refused:
            return page(refused.title, f"<p data-refused>{html.escape(str(refused.detail))}</p>", 400)

    def _route(self, request: HttpRequest) -> HttpReply:
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["signin"]:
                who = self.state.participant(request.query.get("participant", ""))
                headers = {"Location": "/studies", "Set-Cookie": f"{COOKIE}={who.id}; Path=/; HttpOnly; SameSite=Lax"}
                return HttpReply(303, headers=headers)
            case "GET", ["studies"]:
                return self._offers(self._signed_in(request))
            case "POST", ["studies", id_, "reserve"]:
                one = self.state.reserve(self._signed_in(request), id_)
                return redirect(f"/submissions/{one.id}")
            case "GET", ["submissions", "complete"]:
                return self._complete(self._signed_in(request), request.query.get("cc", ""))
            case "GET", ["submissions", id_]:
                return self._submission(self._own_submission(request, id_))
            case "GET", ["submissions", id_, "open"]:
                one = self._own_submission(request, id_)
                self.state.start(one)
                return redirect(study_address(one, self.keys, self.state.workspace))
            case "POST", ["submissions", id_, "return"]:
                self.state.return_place(self._own_submission(request, id_))
                return redirect("/studies")
        return page("There is nothing here", "", 404)

    def _signed_in(self, request: HttpRequest) -> FakeParticipant:
        cookie = SimpleCookie(request.headers.get("cookie", ""))
        if COOKIE not in cookie:
            raise FakeProlificError("Sign in", "Please sign in first.")
        return self.state.participant(cookie[COOKIE].value)

    def _own_submission(self, request: HttpRequest, id_: str) -> FakeSubmission:
        one = self.state.submission(id_)
        if one.participant != self._signed_in(request).id:
            raise FakeProlificError("Not found", "Submission does not exist.", 404)
        return one

    def _offers(self, who: FakeParticipant) -> HttpReply:
        rows = "".join(
            f"<li>{html.escape(study.given.name)} ${study.reward:.2f} "
            f"<form method='post' action='/studies/{study.id}/reserve'><button>Take part</button></form></li>"
            for study in self.state.offers(who)
        )
        own = [one for one in self.state.submissions.values() if one.participant == who.id and one.status in OPEN]
        held = "".join(f"<p><a data-held href='/submissions/{one.id}'>Your study is under way</a></p>" for one in own)
        return page("Studies", f"{held}<ul>{rows}</ul>")

    def _submission(self, one: FakeSubmission) -> HttpReply:
        links = f"<a id='open' href='/submissions/{one.id}/open'>Open study link in this window</a>"
        links += f"<form method='post' action='/submissions/{one.id}/return'><button>Stop without completing</button>"
        body = links + "</form>" if one.status in OPEN else ""
        return page(one.study.given.name, f"<p data-status>{one.status}</p>{body}")

    def _complete(self, who: FakeParticipant, code: str) -> HttpReply:
        own = [one for one in self.state.submissions.values() if one.participant == who.id]
        held = [one for one in own if one.status == "ACTIVE"] or [one for one in own if one.status == "TIMED-OUT"]
        if not held:
            raise FakeProlificError("No submission", "You have no submission that could be completed.")
        self.state.complete(held[-1], code)
        return page("Thank you", f"<p data-submitted>Your submission is {held[-1].status}.</p>")
