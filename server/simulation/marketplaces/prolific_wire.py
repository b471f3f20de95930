"""Prolific's interface: its JSON over HTTP, on top of the rules; models refuse unknown fields.

Errors come wrapped in `error` or not, as the API's description says for each operation. A path without its last slash
is understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from server.simulation.marketplaces import prolific_answers as answers
from server.simulation.marketplaces import prolific_requests as requests
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, as_json
from server.simulation.marketplaces.prolific_answers import ProlificMarket, WireRequest
from server.simulation.marketplaces.prolific_studies import FakeProlificError

API = "/api/v1"
# Operations whose errors come without `error` around them.
UNWRAPPED = (
    "ListStudies",
    "ListProjectStudies",
    "CreateStudy",
    "GetCost",
    "ListStudySubmissions",
    "CountSubmissions",
    "CalculateCost",
    "ListSubmissions",
    "BulkApprove",
)


def error(refused: FakeProlificError, operation: str = "") -> HttpReply:
    """An error as the real service writes it."""
    found = {
        "status": refused.status,
        "error_code": refused.code,
        "title": refused.title,
        "detail": refused.detail,
        "additional_information": f"{API}/help/errors/",
        "interactive": False,
    }
    return as_json(refused.status, found if operation in UNWRAPPED else {"error": found})


def refuse_path(request: HttpRequest, token: str) -> HttpReply | None:
    """The answer to a request without the account's token; None if the token is right."""
    if request.headers.get("authorization") == f"Token {token}":
        return None
    return error(FakeProlificError("Unauthorized", "Authentication credentials were not provided.", 401, 140001))


def operation_of(request: HttpRequest) -> tuple[str, dict[str, str]]:
    """The operation that a request asks for, and the ids in its path; "" if there is none."""
    path = request.path.rstrip("/") + "/"
    for (method, pattern), (name, _, _) in ROUTES.items():
        found = re.fullmatch(API + pattern.rstrip("/") + "/", path)
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


def answer(market: ProlificMarket, request: HttpRequest) -> HttpReply:
    """Carry out a request and answer it."""
    name, ids = operation_of(request)
    _, model, work = next(route for route in ROUTES.values() if route[0] == name)
    try:
        content = json.loads(request.body or b"{}")
        if name == "CreateStudy":
            market.state.refuse_old_field(content, requests.REFUSED_FIELD)
        body = model.model_validate(content) if model else None
        return work(WireRequest(market, request, ids, body))
    except ValidationError as wrong:
        return error(FakeProlificError("Validation error", _details(wrong)), name)
    except FakeProlificError as refused:
        return error(refused, name)


def _details(wrong: ValidationError) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in wrong.errors(include_url=False):
        where = ".".join(str(part) for part in one["loc"]) or "body"
        found.setdefault(where, []).append(str(one["msg"]).removeprefix("Value error, "))
    return found


Route = tuple[str, type[BaseModel] | None, Callable[[WireRequest], HttpReply]]
ID = r"(?P<id>[^/]+)"
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/users/me/"): ("GetUser", None, answers.show_user),
    ("POST", "/researchers/participants/"): (
        "CreateTestParticipant",
        requests.CreateTestParticipant,
        answers.make_test_participant,
    ),
    ("GET", "/workspaces/"): ("ListWorkspaces", None, answers.list_workspaces),
    ("GET", f"/workspaces/{ID}/"): ("GetWorkspace", None, answers.show_workspace),
    ("POST", f"/workspaces/{ID}/projects/"): ("CreateProject", requests.CreateProject, answers.make_project),
    ("GET", f"/projects/{ID}/"): ("GetProject", None, answers.show_project),
    ("GET", f"/workspaces/{ID}/balance/"): ("GetBalance", None, answers.show_balance),
    ("GET", f"/workspaces/{ID}/projects/"): ("ListProjects", None, answers.list_projects),
    ("GET", "/filters/"): ("ListFilters", None, answers.list_filters),
    ("POST", "/eligibility-count/"): ("CountEligible", requests.CountEligible, answers.count_eligible),
    ("GET", "/participant-groups/"): ("ListGroups", None, answers.list_groups),
    ("POST", "/participant-groups/"): ("CreateGroup", requests.CreateGroup, answers.make_group),
    ("GET", f"/participant-groups/{ID}/"): ("GetGroup", None, answers.show_group),
    ("GET", f"/participant-groups/{ID}/participants/"): ("ListMembers", None, answers.list_members),
    ("POST", f"/participant-groups/{ID}/participants/"): (
        "AddMembers",
        requests.ParticipantIds,
        answers.add_members,
    ),
    ("DELETE", f"/participant-groups/{ID}/participants/"): (
        "RemoveMembers",
        requests.ParticipantIds,
        answers.remove_members,
    ),
    ("POST", "/study-cost-calculator/"): ("CalculateCost", requests.CalculateCost, answers.calculate),
    ("GET", "/studies/"): ("ListStudies", None, answers.list_studies),
    ("GET", f"/projects/{ID}/studies/"): ("ListProjectStudies", None, answers.list_project_studies),
    ("POST", "/studies/"): ("CreateStudy", requests.CreateStudy, answers.create_study),
    ("GET", f"/studies/{ID}/"): ("GetStudy", None, answers.show_study),
    ("PATCH", f"/studies/{ID}/"): ("UpdateStudy", requests.UpdateStudy, answers.update_study),
    ("DELETE", f"/studies/{ID}/"): ("DeleteStudy", None, answers.delete_study),
    ("POST", f"/studies/{ID}/transition/"): ("TransitionStudy", requests.TransitionStudy, answers.move_study),
    ("POST", f"/studies/{ID}/test-study/"): ("CreateTestStudy", None, answers.make_test_study),
    ("GET", f"/studies/{ID}/cost/"): ("GetCost", None, answers.show_cost),
    ("GET", f"/studies/{ID}/submissions/"): ("ListStudySubmissions", None, answers.list_study_submissions),
    ("GET", f"/studies/{ID}/submissions/counts/"): ("CountSubmissions", None, answers.count_submissions),
    ("GET", "/submissions/"): ("ListSubmissions", None, answers.list_submissions),
    ("POST", "/submissions/bulk-approve/"): ("BulkApprove", requests.BulkApprove, answers.bulk_approve),
    ("POST", "/submissions/bonus-payments/"): ("SetUpBonuses", requests.SetUpBonuses, answers.set_up_bonuses),
    ("GET", f"/submissions/{ID}/"): ("GetSubmission", None, answers.show_submission),
    ("POST", f"/submissions/{ID}/transition/"): (
        "TransitionSubmission",
        requests.TransitionSubmission,
        answers.judge_submission,
    ),
    ("POST", f"/submissions/{ID}/request-return/"): (
        "RequestReturn",
        requests.RequestReturn,
        answers.request_return,
    ),
    ("POST", f"/bulk-bonus-payments/{ID}/pay/"): ("PayBonuses", None, answers.pay_bonuses),
    ("GET", "/hooks/event-types/"): ("ListEventTypes", None, answers.list_event_types),
    ("GET", "/hooks/secrets/"): ("ListSecrets", None, answers.list_secrets),
    ("POST", "/hooks/secrets/"): ("CreateSecret", requests.CreateSecret, answers.make_secret),
    ("GET", "/hooks/subscriptions/"): ("ListSubscriptions", None, answers.list_subscriptions),
    ("POST", "/hooks/subscriptions/"): ("Subscribe", requests.CreateSubscription, answers.subscribe),
    ("GET", f"/hooks/subscriptions/{ID}/"): ("GetSubscription", None, answers.show_subscription),
    ("POST", f"/hooks/subscriptions/{ID}/"): (
        "ConfirmSubscription",
        requests.ConfirmSubscription,
        answers.confirm_subscription,
    ),
    ("PATCH", f"/hooks/subscriptions/{ID}/"): (
        "UpdateSubscription",
        requests.UpdateSubscription,
        answers.update_subscription,
    ),
    ("DELETE", f"/hooks/subscriptions/{ID}/"): ("Unsubscribe", None, answers.unsubscribe),
}


def names() -> Mapping[str, tuple[str, str]]:
    """Every operation, with its method and its path."""
    return {name: (method, API + pattern.replace(ID, "{id}")) for (method, pattern), (name, _, _) in ROUTES.items()}
