"""Mechanical Turk as workers see it: what is offered, the question in a frame, and the address it submits to.

A worker's account is the parameter `workerId` (the real site knows it from a cookie). Pages:

- GET /projects?workerId=…: the HIT groups that this worker may discover;
- GET /projects/GROUP/preview?workerId=…: the question with ASSIGNMENT_ID_NOT_AVAILABLE, and a button to accept;
- POST /projects/GROUP/accept, /tasks/ASSIGNMENT/return: what the buttons do;
- GET /tasks/ASSIGNMENT: the question as accepted;
- GET /questions/HIT: what the frame shows for a question in HTML;
- POST /mturk/externalSubmit: where the question's own form ends; it needs assignmentId and one more field.
"""

from __future__ import annotations

import html
from urllib.parse import parse_qsl, quote, urlencode
from xml.sax.saxutils import escape

from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, page, redirect
from server.simulation.marketplaces.turk_places import FakeMTurkError, Hit, HitAssignment
from server.simulation.marketplaces.turk_questions import read_question
from server.simulation.marketplaces.turk_state import FakeMTurkState

PREVIEW_ID = "ASSIGNMENT_ID_NOT_AVAILABLE"
ANSWERS = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2005-10-01/QuestionFormAnswers.xsd"


def question_address(hit: Hit, worker_url: str, place: HitAssignment | None) -> str:
    """The address in the frame: with the real ids once accepted, as a preview before."""
    ids = {"assignmentId": place.id if place else PREVIEW_ID, "hitId": hit.id}
    if place is not None:
        ids |= {"turkSubmitTo": f"{worker_url}/", "workerId": place.worker}
    address = read_question(hit.question).url or f"{worker_url}/questions/{hit.id}"
    return f"{address}{'&' if '?' in address else '?'}{urlencode(ids, safe='', quote_via=quote)}"


def write_answer(fields: list[tuple[str, str]]) -> str:
    """QuestionFormAnswers of the fields that were submitted."""
    answers = "".join(
        f"<Answer><QuestionIdentifier>{escape(name)}</QuestionIdentifier><FreeText>{escape(value)}</FreeText></Answer>"
        for name, value in fields
    )
    return (
        f'<?xml version="1.0" encoding="ASCII"?><QuestionFormAnswers xmlns="{ANSWERS}">{answers}</QuestionFormAnswers>'
    )


class MTurkSite:
    """The pages, over one state."""

    def __init__(self, state: FakeMTurkState, worker_url: str) -> None:
        self.state, self.worker_url = state, worker_url

    def handle(self, request: HttpRequest) -> HttpReply:
        """Answer a worker's request."""
        try:
            return self._route(request)
        except FakeMTurkError as refused:
            return page("This did not work", f"<p data-code='{refused.code}'>{html.escape(refused.message)}</p>", 400)

    def _route(self, request: HttpRequest) -> HttpReply:
        given = dict(request.query) | (request.form() if request.method == "POST" else {})
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["projects"]:
                return self._offers(given.get("workerId", ""))
            case "GET", ["projects", name, "preview"]:
                return self._preview(given.get("workerId", ""), name)
            case "POST", ["projects", name, "accept"]:
                place = self.state.accept(self.state.worker(given.get("workerId", "")), name)
                return redirect(f"/tasks/{place.id}")
            case "GET", ["tasks", id_]:
                return self._task(self._held(id_))
            case "POST", ["tasks", id_, "return"]:
                place = self._held(id_)
                worker = place.worker
                self.state.return_place(place)
                return redirect(f"/projects?workerId={worker}")
            case "GET", ["questions", id_]:
                shown = read_question(self.state.hit(id_).question).html
                return HttpReply(200, shown.encode(), "text/html; charset=utf-8")
            case "POST", ["mturk", "externalSubmit"]:
                return self._submit(parse_qsl(request.body.decode(), keep_blank_values=True))
        return page("There is nothing here", "", 404)

    def _held(self, id_: str) -> HitAssignment:
        place = self.state.places.get(id_)
        if place is None or place.status != "pending":
            raise FakeMTurkError("InvalidAssignmentState", "This assignment is not held by a worker.")
        return place

    def _offers(self, worker_id: str) -> HttpReply:
        worker = self.state.worker(worker_id)
        groups = {hit.type.group: hit.type for hit in self.state.offers(worker) if worker.may("discover", hit.type)}
        rows = "".join(
            f"<li><a href='/projects/{kind.group}/preview?workerId={worker_id}'>{html.escape(kind.title)}</a> "
            f"${kind.reward:.2f}</li>"
            for kind in groups.values()
        )
        return page("HITs", f"<ul>{rows}</ul>")

    def _preview(self, worker_id: str, name: str) -> HttpReply:
        worker = self.state.worker(worker_id)
        for hit in self.state.offers(worker):
            if name in (hit.id, hit.type.id, hit.type.group):
                if not worker.may("preview", hit.type):
                    raise FakeMTurkError(
                        "DoesNotMeetRequirements", f"Worker {worker_id} is not qualified for this HIT."
                    )
                button = (
                    f"<form method='post' action='/projects/{hit.id}/accept'>"
                    f"<input type='hidden' name='workerId' value='{worker_id}'><button>Accept</button></form>"
                )
                return page(hit.type.title, button + _frame(question_address(hit, self.worker_url, None)))
        raise FakeMTurkError("NoMoreWorkableHITsInGroupException", "There are no more of these HITs for this worker.")

    def _task(self, place: HitAssignment) -> HttpReply:
        button = f"<form method='post' action='/tasks/{place.id}/return'><button>Return</button></form>"
        frame = _frame(question_address(place.hit, self.worker_url, place))
        return page(place.hit.type.title, button + frame)

    def _submit(self, fields: list[tuple[str, str]]) -> HttpReply:
        ids = [value for name, value in fields if name == "assignmentId"]
        rest = [(name, value) for name, value in fields if name != "assignmentId"]
        if len(ids) != 1 or not rest:
            raise FakeMTurkError("ParameterValidationError", "assignmentId and at least one more field are needed.")
        self.state.submit(self._held(ids[0]), write_answer(rest))
        return page("Submitted", "<p data-submitted>The HIT has been successfully submitted.</p>")


def _frame(address: str) -> str:
    return f"<iframe id='question' width='100%' height='700' src='{html.escape(address, quote=True)}'></iframe>"
