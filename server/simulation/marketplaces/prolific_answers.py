"""The answers of the local Prolific, one function for each operation; `prolific_wire` says which is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, as_json
from server.simulation.marketplaces.money import LedgerLine
from server.simulation.marketplaces.prolific_hooks import EVENTS, FakeHooks
from server.simulation.marketplaces.prolific_state import FakeProlificState
from server.simulation.marketplaces.prolific_studies import (
    FakeParticipant,
    FakeProlificError,
    FakeStudy,
    FakeSubmission,
    not_found,
    stamp,
)

PAGE_SIZE, MOST_A_PAGE = 20, 1000
USER = "60aca280709ee40ec37d4880"
TRUE, FALSE = ("1", "true", "yes", "t"), ("0", "false", "no", "f")
# The parameters that keep or leave out submissions of one status.
STATUS_FILTERS = {
    "returned": "RETURNED",
    "awaiting_review": "AWAITING REVIEW",
    "approved": "APPROVED",
    "active": "ACTIVE",
    "timeout": "TIMED-OUT",
    "rejected": "REJECTED",
    "screened_out": "SCREENED OUT",
}


class ProlificMarket(Protocol):
    """What an answer needs of the market."""

    state: FakeProlificState
    hooks: FakeHooks
    entries: list[LedgerLine]

    @property
    def worker_url(self) -> str: ...


@dataclass(frozen=True)
class WireRequest:
    """One request with its context; `body` is the request's model."""

    market: ProlificMarket
    request: HttpRequest
    ids: Mapping[str, str]
    body: Any

    @property
    def state(self) -> FakeProlificState:
        return self.market.state

    @property
    def study(self) -> FakeStudy:
        return self.state.study(self.ids["id"])

    @property
    def submission(self) -> FakeSubmission:
        return self.state.submission(self.ids["id"])

    def page(self, found: list[dict[str, Any]], *, paged: bool = True) -> HttpReply:
        """One page of the results; a page past the end is an error, as on the real service.

        `paged`: whether the list comes in pages; the others give everything at once.
        """
        query = self.request.query
        if not paged:
            return as_json(200, {"results": found})
        try:
            size, page = int(query.get("page_size", query.get("limit", PAGE_SIZE))), int(query.get("page", 1))
        except ValueError:
            raise FakeProlificError("Validation error", "page and page_size are numbers.") from None
        size, last = max(1, min(size, MOST_A_PAGE)), max(1, -(-len(found) // max(1, size)))
        if not 1 <= page <= last:
            raise FakeProlificError("Not found", "Invalid page.", 404, 140404)
        host = f"http://{self.request.headers.get('host', '')}{self.request.path}"
        kept = "".join(
            f"&{name}={value}" for name, value in query.items() if name not in ("page", "page_size", "limit")
        )

        def link(number: int | None) -> dict[str, Any]:
            return {"href": number and f"{host}?page={number}&page_size={size}{kept}", "title": "Page"}

        links = {"self": link(page), "first": link(1), "last": link(last)}
        links |= {"next": link(page + 1 if page < last else None), "previous": link(page - 1 or None)}
        shown = found[(page - 1) * size : page * size]
        return as_json(200, {"results": shown, "_links": links, "meta": {"count": len(found)}})


def subcurrency(amount: Decimal) -> float:
    """An amount in cents, with its fractions."""
    return float(amount * 100)


# ------------------------------------------------------------------ studies


def create_study(visit: WireRequest) -> HttpReply:
    return as_json(201, visit.state.create(visit.body).describe())


def list_studies(visit: WireRequest) -> HttpReply:
    wanted = visit.request.query.get("state", "").strip("()").upper().replace("_", " ")
    states = wanted.split("|") if wanted else None
    found = [one for one in visit.state.studies.values() if states is None or one.status in states]
    return visit.page([study.summary(visit.state.tariff) for study in found])


def list_project_studies(visit: WireRequest) -> HttpReply:
    if visit.ids["id"] not in visit.state.projects:
        raise not_found("Project")
    found = [one for one in visit.state.studies.values() if one.project == visit.ids["id"]]
    if visit.request.query.get("ordering") == "-date_created":
        found.reverse()
    return visit.page([study.summary(visit.state.tariff) for study in found])


def show_study(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.study.describe())


def update_study(visit: WireRequest) -> HttpReply:
    visit.state.update(visit.study, visit.body)
    return show_study(visit)


def delete_study(visit: WireRequest) -> HttpReply:
    visit.state.delete(visit.study)
    return as_json(200, {})


def move_study(visit: WireRequest) -> HttpReply:
    visit.state.move(visit.study, visit.body)
    return show_study(visit)


def make_test_study(visit: WireRequest) -> HttpReply:
    copy = visit.state.test_study(visit.study)
    return as_json(200, {"study_id": copy.id, "study_url": f"{visit.market.worker_url}/studies/{copy.id}"})


def show_cost(visit: WireRequest) -> HttpReply:
    study, tariff = visit.study, visit.state.tariff
    own = {one.id for one in study.submissions}
    lines = [entry for entry in visit.market.entries if entry.assignment in own]
    bonuses = {one.assignment + one.reference for one in lines if one.kind == "bonus"}
    found: dict[str, Any] = {}
    for name, is_bonus in (("rewards", False), ("bonuses", True)):
        chosen = [one for one in lines if (one.assignment + one.reference in bonuses) == is_bonus]
        sums = {
            part: sum((one.amount for one in chosen if _part(one) == part), Decimal("0"))
            for part in ("rewards", "fees", "tax")
        }
        if not is_bonus and visit.request.query.get("is_projected", "").lower() in TRUE:
            open_ = study.places - study.taken + study.count("RESERVED", "ACTIVE", "AWAITING REVIEW")
            sums["rewards"] += study.reward * open_
            sums["fees"] += tariff.fee(study.reward) * open_
            sums["tax"] += tariff.tax(study.reward) * open_
        found[name] = {
            part: {"amount": subcurrency(amount), "currency": visit.state.currency} for part, amount in sums.items()
        }
    return as_json(200, found)


def _part(line: LedgerLine) -> str:
    return {"fee": "fees", "tax": "tax"}.get(line.kind, "rewards")


def calculate(visit: WireRequest) -> HttpReply:
    cost = visit.state.tariff.cost(Decimal(visit.body.reward) / 100) * visit.body.total_available_places
    return as_json(200, {"total_cost": subcurrency(cost)})


# ------------------------------------------------------------------ submissions


def list_submissions(visit: WireRequest) -> HttpReply:
    if "study" not in visit.request.query:
        raise FakeProlificError("Validation error", {"study": ["This parameter is required."]})
    study = visit.state.study(visit.request.query["study"])
    return visit.page(_chosen(study, visit.request.query))


def _chosen(study: FakeStudy, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """The submissions that the parameters ask for."""
    tests: list[Callable[[FakeSubmission], bool]] = []
    if status := query.get("status", "").upper().replace("_", " "):
        tests.append(lambda one: one.status.replace("-", " ") == status.replace("-", " "))
    if "completed" in query:
        tests.append(lambda one: (one.completed is not None) == _is_true(query["completed"]))
    if "completeoractive" in query:
        tests.append(lambda one: (bool(one.completed) or one.status == "ACTIVE") == _is_true(query["completeoractive"]))
    for name, wanted in STATUS_FILTERS.items():
        if name in query:
            tests.append(lambda one, name=name, wanted=wanted: (one.status == wanted) == _is_true(query[name]))  # type: ignore[misc]
    found = [one for one in study.submissions if all(test(one) for test in tests)]
    if query.get("ordering") in ("-started_at", "-start_time"):
        found.reverse()
    return [one.list_entry() for one in found]


def _is_true(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise FakeProlificError("Validation error", f"'{text}' is neither true nor false.")
    return text.lower() in TRUE


def list_study_submissions(visit: WireRequest) -> HttpReply:
    return visit.page([one.list_entry() for one in visit.study.submissions], paged=False)


def count_submissions(visit: WireRequest) -> HttpReply:
    study = visit.study
    kinds = ("ACTIVE", "APPROVED", "AWAITING REVIEW", "REJECTED", "RESERVED", "RETURNED", "TIMED-OUT", "SCREENED OUT")
    found = {kind: study.count(kind) for kind in (*kinds, "PARTIALLY APPROVED")}  # type: ignore[arg-type]
    return as_json(200, found | {"TOTAL": len(study.submissions)})


def show_submission(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.submission.describe())


def judge_submission(visit: WireRequest) -> HttpReply:
    visit.state.judge(visit.submission, visit.body)
    return as_json(200, visit.submission.after_transition())


def request_return(visit: WireRequest) -> HttpReply:
    one = visit.submission
    visit.state.request_return(one)
    asked = {"return_requested": stamp(one.return_requested), "participant": one.participant}
    return as_json(200, {"id": one.id, "status": one.status} | asked)


def bulk_approve(visit: WireRequest) -> HttpReply:
    if visit.body.submission_ids is not None:
        chosen = [visit.state.submission(id_) for id_ in dict.fromkeys(visit.body.submission_ids)]
    else:
        people = set(visit.body.participant_ids or ())
        study = visit.state.study(visit.body.study_id or "")
        chosen = [one for one in study.submissions if one.participant in people]
    for one in chosen:
        if one.status not in ("AWAITING REVIEW", "APPROVED"):
            raise FakeProlificError("Validation error", f"The submission {one.id} is {one.status}.", code=140200)
    for one in chosen:
        visit.state.approve(one)
    return as_json(200, "The request to bulk approve has been made successfully.")


def set_up_bonuses(visit: WireRequest) -> HttpReply:
    tariff = visit.state.tariff
    bulk, amounts = visit.state.set_up_bonuses(visit.state.study(visit.body.study_id), visit.body.csv_bonuses)
    found = {
        "amount": subcurrency(sum(amounts, Decimal("0.00"))),
        "fees": subcurrency(sum((tariff.fee(amount) for amount in amounts), Decimal("0.00"))),
        "vat": subcurrency(sum((tariff.tax(amount) for amount in amounts), Decimal("0.00"))),
        "total_amount": subcurrency(sum((tariff.cost(amount) for amount in amounts), Decimal("0.00"))),
    }
    return as_json(201, {"id": bulk, "study": visit.body.study_id} | found)


def pay_bonuses(visit: WireRequest) -> HttpReply:
    visit.state.pay_bonuses(visit.ids["id"])
    return as_json(202, "The bonus payments will be made shortly.")


# ------------------------------------------------------------------ the account


def show_user(visit: WireRequest) -> HttpReply:
    return as_json(200, {"id": USER, "email": "researcher@example.org"})


def make_test_participant(visit: WireRequest) -> HttpReply:
    visit.state.require_feature("test_studies", "This feature")
    id_ = visit.state.new_id("tester")
    visit.state.participants[id_] = FakeParticipant(id_, test=True)
    return as_json(201, {"participant_id": id_})


def list_workspaces(visit: WireRequest) -> HttpReply:
    return visit.page([_workspace(visit)])


def _workspace(visit: WireRequest) -> dict[str, Any]:
    return {"id": visit.state.workspace, "title": "My Workspace", "owner": USER}


def show_workspace(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.ids["id"])
    return as_json(200, _workspace(visit))


def _require_workspace(visit: WireRequest, id_: str) -> None:
    if id_ != visit.state.workspace:
        raise not_found("Workspace")


def show_balance(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.ids["id"])
    state = visit.state
    found = {"total_balance": int((state.deposit - state.spent) * 100), "available_balance": int(state.available * 100)}
    return as_json(200, {"currency_code": state.currency} | found)


def list_projects(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.ids["id"])
    return visit.page([_project(visit, id_) for id_ in visit.state.projects])


def _project(visit: WireRequest, id_: str) -> dict[str, Any]:
    if id_ not in visit.state.projects:
        raise not_found("Project")
    return {"id": id_, "title": visit.state.projects[id_], "type": "PRIVATE", "owner": USER}


def make_project(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.ids["id"])
    id_ = visit.state.new_id("project")
    visit.state.projects[id_] = visit.body.title
    return as_json(201, _project(visit, id_))


def show_project(visit: WireRequest) -> HttpReply:
    return as_json(200, _project(visit, visit.ids["id"]) | {"workspace": visit.state.workspace})


def list_filters(visit: WireRequest) -> HttpReply:
    return visit.page(visit.state.people.list_filters(), paged=False)


def count_eligible(visit: WireRequest) -> HttpReply:
    visit.state.people.check_filters(visit.body.filters)
    return as_json(200, {"count": visit.state.people.count_eligible(visit.body.filters)})


def list_groups(visit: WireRequest) -> HttpReply:
    if not {"workspace_id", "project_id"} & visit.request.query.keys():
        raise FakeProlificError("Validation error", {"workspace_id": ["This parameter is required."]})
    return visit.page([group.describe() for group in visit.state.people.groups.values()], paged=False)


def make_group(visit: WireRequest) -> HttpReply:
    state = visit.state
    state.require_feature("participant_groups", "This feature")
    found = state.people.make_group(state.new_id("group"), visit.body, state.workspace, state.now())
    return as_json(201, found.describe())


def show_group(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.state.people.group(visit.ids["id"]).describe())


def list_members(visit: WireRequest) -> HttpReply:
    return visit.page(visit.state.people.group(visit.ids["id"]).memberships(), paged=False)


def add_members(visit: WireRequest) -> HttpReply:
    group = visit.state.people.group(visit.ids["id"])
    group.members |= {who: visit.state.now() for who in visit.body.participant_ids if who not in group.members}
    return list_members(visit)


def remove_members(visit: WireRequest) -> HttpReply:
    group = visit.state.people.group(visit.ids["id"])
    for who in visit.body.participant_ids:
        group.members.pop(who, None)
    return list_members(visit)


# ------------------------------------------------------------------ webhooks


def list_event_types(visit: WireRequest) -> HttpReply:
    found = [{"event_type": name, "description": text} for name, text in EVENTS.items()]
    return visit.page(found, paged=False)


def _secret(visit: WireRequest, secret: tuple[str, str]) -> dict[str, Any]:
    return {"id": secret[0], "value": secret[1], "workspace_id": visit.state.workspace}


def list_secrets(visit: WireRequest) -> HttpReply:
    found = visit.market.hooks.secret
    return visit.page([_secret(visit, found)] if found else [], paged=False)


def make_secret(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.body.workspace_id)
    return as_json(201, _secret(visit, visit.market.hooks.make_secret()))


def list_subscriptions(visit: WireRequest) -> HttpReply:
    found = visit.market.hooks.subscriptions.values()
    return visit.page([one.describe(visit.state.workspace) for one in found], paged=False)


def subscribe(visit: WireRequest) -> HttpReply:
    _require_workspace(visit, visit.body.workspace_id)
    made = visit.market.hooks.subscribe(visit.body)
    reply = as_json(201, {"results": [made.describe(visit.state.workspace)]})
    return HttpReply(201, reply.body, headers={"X-Hook-Secret": made.secret})


def show_subscription(visit: WireRequest) -> HttpReply:
    return as_json(200, visit.market.hooks.subscription(visit.ids["id"]).describe(visit.state.workspace))


def confirm_subscription(visit: WireRequest) -> HttpReply:
    hooks = visit.market.hooks
    hooks.confirm(hooks.subscription(visit.ids["id"]), visit.body.secret)
    return show_subscription(visit)


def update_subscription(visit: WireRequest) -> HttpReply:
    hooks = visit.market.hooks
    hooks.update(hooks.subscription(visit.ids["id"]), visit.body)
    return show_subscription(visit)


def unsubscribe(visit: WireRequest) -> HttpReply:
    hooks = visit.market.hooks
    del hooks.subscriptions[hooks.subscription(visit.ids["id"]).id]
    return HttpReply(204)
