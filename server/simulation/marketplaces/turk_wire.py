"""Mechanical Turk's interface: JSON 1.1 on top of the rules; botocore's model checks requests and answers."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest
from server.simulation.marketplaces.turk_model import (
    TARGET,
    input_problems,
    on_wire,
    output_problems,
    read_time,
    service,
)
from server.simulation.marketplaces.turk_places import FakeMTurkError
from server.simulation.marketplaces.turk_state import FakeMTurkState

PAGE_SIZE = 10
NOTIFY_AT_MOST = 100
CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/mturk-requester/aws4_request, ")
Given = dict[str, Any]
Operation = Callable[[FakeMTurkState, Given], Given]


def error(kind: str, message: str, code: str = "", status: int = 400) -> HttpReply:
    """An error as boto3 reads it: `kind` is its Code, `code` its TurkErrorCode."""
    body = {"__type": kind, "Message": message} | ({"TurkErrorCode": code} if code else {})
    return HttpReply(status, json.dumps(body).encode(), "application/x-amz-json-1.1")


def operation_of(request: HttpRequest) -> str:
    return request.headers.get("x-amz-target", "").removeprefix(TARGET)


def refuse_path(request: HttpRequest) -> HttpReply | None:
    """The answer to a request that is not signed for us or names no operation; None if it is valid."""
    signed = CREDENTIAL.match(request.headers.get("authorization", ""))
    if "authorization" not in request.headers:
        return error("MissingAuthenticationTokenException", "Missing Authentication Token")
    if signed is not None and not re.fullmatch(r"\w+", signed[1]):
        return error("UnrecognizedClientException", "The security token included in the request is invalid.")
    if signed is None or signed[2] != "us-east-1":
        return error("InvalidSignatureException", "Credential should be scoped to a valid region (us-east-1).")
    if operation_of(request) not in OPERATIONS:
        return error("UnknownOperationException", f"'{operation_of(request)}' is not emulated.")
    return None


def answer(state: FakeMTurkState, operation: str, given: Given) -> HttpReply:
    """Carry out an operation and answer it.

    Raises:
        AssertionError: if the answer does not match the service model, which is a fault of the emulator.
    """
    problems = input_problems(operation, given)
    if problems:
        return error("RequestError", "; ".join(problems), "AWS.MechanicalTurk.ParameterValidationError")
    try:
        answered = OPERATIONS[operation](state, given)
    except FakeMTurkError as refused:
        stamp = int(state.now().timestamp() * 1000)
        return error("RequestError", f"{refused.message} ({stamp} s)", refused.code)
    answered = on_wire(answered)
    wrong = output_problems(operation, answered)
    assert not wrong, f"{operation} answers {wrong}"
    return HttpReply(200, json.dumps(answered).encode(), "application/x-amz-json-1.1")


def _page(operation: str, name: str, given: Given, found: Sequence[Given]) -> Given:
    """One page of the results; the token says where the next one begins."""
    begin = 0
    if token := given.get("NextToken"):
        try:
            kind, _, index = base64.urlsafe_b64decode(token).decode().partition(":")
            begin = int(index)
        except (binascii.Error, ValueError):
            kind = ""
        if kind != operation:
            raise FakeMTurkError("ParameterValidationError", "NextToken is not valid.")
    end = begin + given.get("MaxResults", PAGE_SIZE)
    more = base64.urlsafe_b64encode(f"{operation}:{end}".encode()).decode() if end < len(found) else None
    return {"NextToken": more, "NumResults": len(found[begin:end]), name: list(found[begin:end])}


def _create_hit_type(state: FakeMTurkState, given: Given) -> Given:
    return {"HITTypeId": state.create_type(given).id}


def _create_hit(state: FakeMTurkState, given: Given) -> Given:
    names = service().operation_model("CreateHITType").input_shape.members
    kind = state.create_type({name: value for name, value in given.items() if name in names})
    return {"HIT": state.create_hit(kind, given).describe(state.now())}


def _create_hit_with_type(state: FakeMTurkState, given: Given) -> Given:
    if given["HITTypeId"] not in state.types:
        raise FakeMTurkError("HITTypeDoesNotExist", f"HIT type {given['HITTypeId']} does not exist.")
    return {"HIT": state.create_hit(state.types[given["HITTypeId"]], given).describe(state.now())}


def _extend(state: FakeMTurkState, given: Given) -> Given:
    state.extend(state.hit(given["HITId"]), given["NumberOfAdditionalAssignments"], given.get("UniqueRequestToken"))
    return {}


def _expire(state: FakeMTurkState, given: Given) -> Given:
    state.expire(state.hit(given["HITId"]), read_time(given["ExpireAt"]))
    return {}


def _delete(state: FakeMTurkState, given: Given) -> Given:
    state.delete(state.hit(given["HITId"]))
    return {}


def _get_hit(state: FakeMTurkState, given: Given) -> Given:
    return {"HIT": state.hit(given["HITId"]).describe(state.now())}


def _hits(state: FakeMTurkState) -> list[Given]:
    return [hit.describe(state.now()) for hit in state.hits.values() if not hit.disposed]


def _list_hits(state: FakeMTurkState, given: Given) -> Given:
    return _page("ListHITs", "HITs", given, _hits(state))


def _list_reviewable(state: FakeMTurkState, given: Given) -> Given:
    wanted, kind = given.get("Status", "Reviewable"), given.get("HITTypeId")
    found = [hit for hit in _hits(state) if hit["HITStatus"] == wanted and kind in (None, hit["HITTypeId"])]
    return _page("ListReviewableHITs", "HITs", given, found)


def _list_hits_for_qualification(state: FakeMTurkState, given: Given) -> Given:
    kind = given["QualificationTypeId"]
    state.qualification_type(kind)
    uses = [
        hit for hit in _hits(state) if kind in [one["QualificationTypeId"] for one in hit["QualificationRequirements"]]
    ]
    return _page("ListHITsForQualificationType", "HITs", given, uses)


def _update_review(state: FakeMTurkState, given: Given) -> Given:
    state.review(state.hit(given["HITId"]), given.get("Revert", False))
    return {}


def _list_assignments(state: FakeMTurkState, given: Given) -> Given:
    places = state.submitted(state.hit(given["HITId"]), given.get("AssignmentStatuses", []))
    return _page("ListAssignmentsForHIT", "Assignments", given, [place.describe() for place in places])


def _get_assignment(state: FakeMTurkState, given: Given) -> Given:
    place = state.assignment(given["AssignmentId"])
    return {"Assignment": place.describe(), "HIT": place.hit.describe(state.now())}


def _approve(state: FakeMTurkState, given: Given) -> Given:
    place = state.assignment(given["AssignmentId"])
    state.approve(place, given.get("OverrideRejection", False), given.get("RequesterFeedback"))
    return {}


def _reject(state: FakeMTurkState, given: Given) -> Given:
    state.reject(state.assignment(given["AssignmentId"]), given["RequesterFeedback"])
    return {}


def _send_bonus(state: FakeMTurkState, given: Given) -> Given:
    state.send_bonus(given)
    return {}


def _list_bonuses(state: FakeMTurkState, given: Given) -> Given:
    if ("HITId" in given) == ("AssignmentId" in given):
        raise FakeMTurkError("ParameterValidationError", "Either HITId or AssignmentId must be specified.")
    found = [
        paid
        for place, paid in state.bonuses
        if given.get("HITId") == place.hit.id or given.get("AssignmentId") == place.id
    ]
    return _page("ListBonusPayments", "BonusPayments", given, found)


def _balance(state: FakeMTurkState, given: Given) -> Given:
    return {"AvailableBalance": f"{state.available:.2f}", "OnHoldBalance": f"{state.on_hold:.2f}"}


def _create_qualification_type(state: FakeMTurkState, given: Given) -> Given:
    return {"QualificationType": state.create_qualification_type(given)}


def _get_qualification_type(state: FakeMTurkState, given: Given) -> Given:
    return {"QualificationType": state.qualification_type(given["QualificationTypeId"])}


def _list_qualification_types(state: FakeMTurkState, given: Given) -> Given:
    query = given.get("Query", "").lower()
    # System types are not listed: the real service's list of them is long and not needed here.
    found = [
        kind
        for kind in state.qualification_types.values()
        if query in f"{kind['Name']} {kind['Description']} {kind.get('Keywords', '')}".lower()
    ]
    return _page("ListQualificationTypes", "QualificationTypes", given, found)


def _grant(state: FakeMTurkState, given: Given) -> Given:
    state.grant(given["QualificationTypeId"], given["WorkerId"], given.get("IntegerValue", 1))
    if given.get("SendNotification", True):
        state.messages.append({"WorkerIds": [given["WorkerId"]], "Subject": "A qualification was assigned to you"})
    return {}


def _revoke(state: FakeMTurkState, given: Given) -> Given:
    state.revoke(given["QualificationTypeId"], given["WorkerId"])
    return {}


def _get_score(state: FakeMTurkState, given: Given) -> Given:
    return {"Qualification": state.score(given["QualificationTypeId"], given["WorkerId"]).describe()}


def _delete_qualification_type(state: FakeMTurkState, given: Given) -> Given:
    state.delete_qualification_type(given["QualificationTypeId"])
    return {}


def _list_workers(state: FakeMTurkState, given: Given) -> Given:
    kind, revoked = given["QualificationTypeId"], given.get("Status", "Granted") == "Revoked"
    state.qualification_type(kind)
    held = [worker.qualifications[kind] for worker in state.workers.values() if kind in worker.qualifications]
    found = [one.describe() for one in held if one.revoked == revoked]
    return _page("ListWorkersWithQualificationType", "Qualifications", given, found)


def _notify(state: FakeMTurkState, given: Given) -> Given:
    if len(given["WorkerIds"]) > NOTIFY_AT_MOST:
        raise FakeMTurkError("ParameterValidationError", "At most 100 workers can be notified at once.")
    failed = [worker for worker in given["WorkerIds"] if not state.has_worked(worker)]
    state.messages.append(given | {"WorkerIds": [one for one in given["WorkerIds"] if one not in failed]})
    reason = {
        "NotifyWorkersFailureCode": "HardFailure",
        "NotifyWorkersFailureMessage": "The worker cannot be notified.",
    }
    return {"NotifyWorkersFailureStatuses": [reason | {"WorkerId": worker} for worker in failed]}


def _block(state: FakeMTurkState, given: Given) -> Given:
    state.blocks[state.worker(given["WorkerId"]).id] = given["Reason"]
    return {}


def _list_blocks(state: FakeMTurkState, given: Given) -> Given:
    found = [{"WorkerId": worker, "Reason": reason} for worker, reason in state.blocks.items()]
    return _page("ListWorkerBlocks", "WorkerBlocks", given, found)


OPERATIONS: dict[str, Operation] = {
    "ApproveAssignment": _approve,
    "AssociateQualificationWithWorker": _grant,
    "CreateAdditionalAssignmentsForHIT": _extend,
    "CreateHIT": _create_hit,
    "CreateHITType": _create_hit_type,
    "CreateHITWithHITType": _create_hit_with_type,
    "CreateQualificationType": _create_qualification_type,
    "CreateWorkerBlock": _block,
    "DeleteHIT": _delete,
    "DeleteQualificationType": _delete_qualification_type,
    "DisassociateQualificationFromWorker": _revoke,
    "GetAccountBalance": _balance,
    "GetAssignment": _get_assignment,
    "GetHIT": _get_hit,
    "GetQualificationScore": _get_score,
    "GetQualificationType": _get_qualification_type,
    "ListAssignmentsForHIT": _list_assignments,
    "ListBonusPayments": _list_bonuses,
    "ListHITs": _list_hits,
    "ListHITsForQualificationType": _list_hits_for_qualification,
    "ListQualificationTypes": _list_qualification_types,
    "ListReviewableHITs": _list_reviewable,
    "ListWorkerBlocks": _list_blocks,
    "ListWorkersWithQualificationType": _list_workers,
    "NotifyWorkers": _notify,
    "RejectAssignment": _reject,
    "SendBonus": _send_bonus,
    "UpdateExpirationForHIT": _expire,
    "UpdateHITReviewStatus": _update_review,
}
