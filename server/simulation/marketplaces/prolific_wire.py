"""Prolific's interface: its JSON over HTTP, on top of the rules; models refuse unknown fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError

from server.simulation.marketplaces import prolific_requests as requests
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, as_json
from server.simulation.marketplaces.money import LedgerLine
from server.simulation.marketplaces.prolific_state import FakeProlificState
from server.simulation.marketplaces.prolific_studies import FakeProlificError

API = "/api/v1"
PAGE_SIZE, MOST_A_PAGE = 20, 1000
USER, WORKSPACE = "60aca280709ee40ec37d4880", "60aca280709ee40ec37d4881"


def error(refused: FakeProlificError) -> HttpReply:
    """An error as the real service writes it."""
    found = {
        "status": refused.status,
        "error_code": refused.code,
        "title": refused.title,
        "detail": refused.detail,
        "additional_information": f"{API}/help/errors/",
        "traceback": None,
        "interactive": False,
    }
    return as_json(refused.status, {"error": found})


def refuse_path(request: HttpRequest, token: str) -> HttpReply | None:
    """The answer to a request without the account's token; None if the token is right."""
    if request.headers.get("authorization") == f"Token {token}":
        return None
    return error(FakeProlificError("Unauthorized", "Authentication credentials were not provided.", 401, 140001))


def operation_of(request: HttpRequest) -> tuple[str, dict[str, str]]:
    """The operation that a request asks for, and the ids in its path; "" if there is none."""
    for (method, pattern), (name, _, _) in ROUTES.items():
        found = re.fullmatch(API + pattern, request.path)
        if found and method == request.method:
            return name, found.groupdict()
    return "", {}


def given(request: HttpRequest) -> dict[str, Any]:
    """The content of a request, for the log of calls.

    Raises:
        FakeProlificError: if its body is not a JSON object.
    """
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise FakeProlificError("Validation error", "The body is not a JSON object.")
    return body | dict(request.query)


def answer(state: FakeProlificState, request: HttpRequest, entries: list[LedgerLine]) -> HttpReply:
    """Carry out a request and answer it."""
    name, ids = operation_of(request)
    _, model, work = next(route for route in ROUTES.values() if route[0] == name)
    try:
        body = model.model_validate(json.loads(request.body or b"{}")) if model else None
        return work(WireRequest(state, request, ids, body, entries))
    except ValidationError as wrong:
        return error(FakeProlificError("Validation error", _details(wrong)))
    except FakeProlificError as refused:
        return error(refused)


def _details(wrong: ValidationError) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in wrong.errors(include_url=False):
        where = ".".join(str(part) for part in one["loc"]) or "body"
        found.setdefault(where, []).append(str(one["msg"]).removeprefix("Value error, "))
    return found


class WireRequest:
    """One request with its context."""

    def __init__(
        self,
        state: FakeProlificState,
        request: HttpRequest,
        ids: Mapping[str, str],
        body: Any,
        entries: list[LedgerLine],
    ) -> None:
        self.state, self.request, self.ids, self.body, self.entries = state, request, ids, body, entries

    def page(self, found: list[dict[str, Any]]) -> HttpReply:
        """One page of the results; a page past the end is an error, as on the real service."""
        query = self.request.query
        try:
            size, page = int(query.get("page_size", PAGE_SIZE)), int(query.get("page", 1))
        except ValueError:
            raise FakeProlificError("Validation error", "page and page_size are numbers.") from None
        size, last = max(1, min(size, MOST_A_PAGE)), max(1, -(-len(found) // max(1, size)))
        if not 1 <= page <= last:
            raise FakeProlificError("Not found", "Invalid page.", 404, 140404)
        host = f"http://{self.request.headers.get('host', '')}{self.request.path}"
        kept = "".join(f"&{name}={value}" for name, value in query.items() if name not in ("page", "page_size"))

        def link(number: int | None) -> dict[str, Any]:
            return {"href": number and f"{host}?page={number}&page_size={size}{kept}", "title": "Page"}

        links = {"self": link(page), "first": link(1), "last": link(last)}
        links |= {"next": link(page + 1 if page < last else None), "previous": link(page - 1 or None)}
        shown = found[(page - 1) * size : page * size]
        return as_json(200, {"results": shown, "_links": links, "meta": {"count": len(found)}})


def _create(visit: WireRequest) -> HttpReply:
    return as_json(201, visit.state.create(visit.body).describe())


def _studies(visit: WireRequest) -> HttpReply:
    wanted = visit.request.query.get("state")
    found = [study.summary() for study in visit.state.studies.values() if wanted in (None, study.status)]
    return visit.page(found)


def _study(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.state.study(visit.ids["id"]).describe())


def _update(visit: WireRequest) -> HttpReply:
    visit.state.update(visit.state.study(visit.ids["id"]), visit.body)
    return _study(visit)


def _delete(visit: WireRequest) -> HttpReply:
    visit.state.delete(visit.state.study(visit.ids["id"]))
    return HttpReply(204)


def _move(visit: WireRequest) -> HttpReply:
    visit.state.move(visit.state.study(visit.ids["id"]), visit.body.action)
    return _study(visit)


def _screen_out(visit: WireRequest) -> HttpReply:
    visit.state.screen_out(visit.state.study(visit.ids["id"]), visit.body)
    paid = {"amount": float(visit.body.bonus_per_submission), "currency": "USD"}
    found = "The request to bulk screen out has been made successfully."
    return as_json(200, {"message": found, "payment_per_participant": paid})


def _cost(visit: WireRequest) -> HttpReply:
    own_ids = {one.id for one in visit.state.study(visit.ids["id"]).submissions}
    own = [entry for entry in visit.entries if entry.assignment in own_ids]
    return as_json(200, {"total_cost": _cents(sum((entry.amount for entry in own), Decimal("0.00")))})


def _submissions(visit: WireRequest) -> HttpReply:
    if "study" not in visit.request.query:
        raise FakeProlificError("Validation error", {"study": ["This parameter is required."]})
    study = visit.state.study(visit.request.query["study"])
    return visit.page([one.list_entry() for one in study.submissions])


def _submission(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.state.submission(visit.ids["id"]).describe())


def _judge(visit: WireRequest) -> HttpReply:
    one, asked = visit.state.submission(visit.ids["id"]), visit.body
    if asked.action == "APPROVE":
        visit.state.approve(one)
    elif asked.action == "REJECT":
        visit.state.reject(one)
    else:
        visit.state.complete(one, asked.completion_code, "researcher")
    return _submission(visit)


def _bulk_approve(visit: WireRequest) -> HttpReply:
    chosen = [visit.state.submission(id_) for id_ in dict.fromkeys(visit.body.submission_ids)]
    for one in chosen:
        visit.state._require(one, "AWAITING REVIEW")
    for one in chosen:
        visit.state.approve(one)
    return as_json(200, {"message": "The request to bulk approve has been made successfully."})


def _set_up_bonuses(visit: WireRequest) -> HttpReply:
    tariff = visit.state.tariff
    bulk, amounts = visit.state.set_up_bonuses(visit.state.study(visit.body.study_id), visit.body.csv_bonuses)
    found = {
        "amount": _cents(sum(amounts, Decimal("0.00"))),
        "fees": _cents(sum((tariff.fee(amount) for amount in amounts), Decimal("0.00"))),
        "vat": _cents(sum((tariff.tax(amount) for amount in amounts), Decimal("0.00"))),
        "total_amount": _cents(sum((tariff.cost(amount) for amount in amounts), Decimal("0.00"))),
    }
    return as_json(201, {"id": bulk, "study": visit.body.study_id} | found)


def _pay_bonuses(visit: WireRequest) -> HttpReply:
    visit.state.pay_bonuses(visit.ids["id"])
    return as_json(202, {"message": "The bonus payments will be made shortly."})


def _calculate(visit: WireRequest) -> HttpReply:
    reward, number, tariff = Decimal(visit.body.reward) / 100, visit.body.total_available_places, visit.state.tariff
    found = {
        "total_cost": tariff.cost(reward),
        "rewards": reward,
        "fees": tariff.fee(reward),
        "vat": tariff.tax(reward),
    }
    return as_json(200, {name: _cents(amount * number) for name, amount in found.items()})


def _user(visit: WireRequest) -> HttpReply:
    found = {"id": USER, "email": "researcher@example.org", "currency_code": "USD"}
    return as_json(200, found | {"available_balance": _cents(visit.state.available)})


def _workspaces(visit: WireRequest) -> HttpReply:
    return visit.page([{"id": WORKSPACE, "title": "My Workspace"}])


def _balance(visit: WireRequest) -> HttpReply:
    if visit.ids["id"] != WORKSPACE:
        raise FakeProlificError("Not found", "Workspace does not exist.", 404, 140404)
    state = visit.state
    found = {"total_balance": _cents(state.deposit - state.spent), "available_balance": _cents(state.available)}
    return as_json(200, {"currency_code": "USD"} | found)


def _cents(amount: Decimal) -> int:
    return int(amount * 100)


Route = tuple[str, type[BaseModel] | None, Callable[[WireRequest], HttpReply]]
ID = r"(?P<id>[^/]+)"
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/users/me/"): ("GetUser", None, _user),
    ("GET", "/workspaces/"): ("ListWorkspaces", None, _workspaces),
    ("GET", f"/workspaces/{ID}/balance/"): ("GetBalance", None, _balance),
    ("POST", "/study-cost-calculator/"): ("CalculateCost", requests.CalculateCost, _calculate),
    ("GET", "/studies/"): ("ListStudies", None, _studies),
    ("POST", "/studies/"): ("CreateStudy", requests.CreateStudy, _create),
    ("GET", f"/studies/{ID}/"): ("GetStudy", None, _study),
    ("PATCH", f"/studies/{ID}/"): ("UpdateStudy", requests.UpdateStudy, _update),
    ("DELETE", f"/studies/{ID}/"): ("DeleteStudy", None, _delete),
    ("POST", f"/studies/{ID}/transition/"): ("TransitionStudy", requests.TransitionStudy, _move),
    ("POST", f"/studies/{ID}/screen-out-submissions/"): ("ScreenOut", requests.ScreenOut, _screen_out),
    ("GET", f"/studies/{ID}/cost/"): ("GetCost", None, _cost),
    ("GET", "/submissions/"): ("ListSubmissions", None, _submissions),
    ("POST", "/submissions/bulk-approve/"): ("BulkApprove", requests.BulkApprove, _bulk_approve),
    ("POST", "/submissions/bonus-payments/"): ("SetUpBonuses", requests.SetUpBonuses, _set_up_bonuses),
    ("GET", f"/submissions/{ID}/"): ("GetSubmission", None, _submission),
    ("POST", f"/submissions/{ID}/transition/"): ("TransitionSubmission", requests.TransitionSubmission, _judge),
    ("POST", f"/bulk-bonus-payments/{ID}/pay/"): ("PayBonuses", None, _pay_bonuses),
}
