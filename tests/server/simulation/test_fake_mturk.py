"""The local Mechanical Turk, asked by boto3 over the wire, and its money under any sequence of events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from server.simulation.fake_mturk import FakeMTurk
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.turk_model import output_problems
from server.simulation.marketplaces.turk_places import FakeMTurkError
from server.simulation.marketplaces.turk_workers import LOCALE, NUMBER_APPROVED, PERCENT_APPROVED

SCHEMA = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd"
QUESTION = (
    f'<ExternalQuestion xmlns="{SCHEMA}"><ExternalURL>https://study.example.org/take?a=1&amp;b=2</ExternalURL>'
    "<FrameHeight>0</FrameHeight></ExternalQuestion>"
)
TYPE: dict[str, Any] = {
    "Title": "Compare sounds",
    "Description": "Listen and compare",
    "Reward": "1.50",
    "AssignmentDurationInSeconds": 3600,
    "AutoApprovalDelayInSeconds": 86400,
}
HIT: dict[str, Any] = {"LifetimeInSeconds": 7200, "Question": QUESTION}


class StoppedClock:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def market() -> Iterator[FakeMTurk]:
    with FakeMTurk(balance="100.00", clock=StoppedClock()) as market:
        for number in range(1, 13):
            market.workers.add(f"A{number}")
        yield market


_session = boto3.session.Session(aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1")


def connect(market: FakeMTurk, attempts: int = 1, **options: Any) -> Any:
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, **options)
    return _session.client("mturk", endpoint_url=market.url, config=config)


@pytest.fixture
def client(market: FakeMTurk) -> Iterator[Any]:
    client = connect(market)
    yield client
    client.close()


def make_hit(client: Any, places: int = 1, **changes: Any) -> str:
    kind = client.create_hit_type(**TYPE | {k: v for k, v in changes.items() if k not in ("UniqueRequestToken",)})
    token = {k: v for k, v in changes.items() if k == "UniqueRequestToken"}
    made = client.create_hit_with_hit_type(HITTypeId=kind["HITTypeId"], MaxAssignments=places, **HIT, **token)
    return str(made["HIT"]["HITId"])


@contextlib.contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    response: Any = caught.value.response
    assert response.get("TurkErrorCode", response["Error"]["Code"]) in (code, f"AWS.MechanicalTurk.{code}")


def test_a_hit_from_creation_to_disposal(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client, 2)
    assert client.get_account_balance()["AvailableBalance"] == "96.40"
    assert client.get_account_balance()["OnHoldBalance"] == "3.60"
    held = market.accept("A1", hit)
    assert client.get_hit(HITId=hit)["HIT"]["NumberOfAssignmentsPending"] == 1
    with refused("InvalidAssignmentState"):
        client.get_assignment(AssignmentId=held.assignment_id)
    market.submit(held.assignment_id, code="A & <B>")
    found = client.list_assignments_for_hit(HITId=hit)["Assignments"]
    assert [one["AssignmentStatus"] for one in found] == ["Submitted"]
    assert "<FreeText>A &amp; &lt;B&gt;</FreeText>" in found[0]["Answer"]
    with refused("InvalidHITState"):
        client.delete_hit(HITId=hit)
    client.approve_assignment(AssignmentId=held.assignment_id)
    with refused("InvalidAssignmentState"):
        client.approve_assignment(AssignmentId=held.assignment_id)
    client.update_expiration_for_hit(HITId=hit, ExpireAt=datetime(2015, 1, 1, tzinfo=UTC))
    assert client.get_hit(HITId=hit)["HIT"]["HITStatus"] == "Reviewable"
    assert [one["HITId"] for one in client.list_reviewable_hits()["HITs"]] == [hit]
    client.delete_hit(HITId=hit)
    assert client.list_hits()["HITs"] == []
    assert client.get_hit(HITId=hit)["HIT"]["HITStatus"] == "Disposed"
    assert client.get_account_balance()["AvailableBalance"] == "98.20"
    assert [(entry.kind, entry.amount) for entry in market.ledger()] == [
        ("reward", Decimal("1.50")),
        ("fee", Decimal("0.30")),
    ]


@pytest.mark.parametrize(("reward", "places", "fee"), [("1.50", 9, "2.70"), ("1.50", 10, "6.00"), ("0.02", 9, "0.09")])
def test_the_fee_doubles_at_ten_assignments_and_is_a_cent_at_least(
    market: FakeMTurk, client: Any, reward: str, places: int, fee: str
) -> None:
    hit = make_hit(client, places, Reward=reward)
    for number in range(places):
        held = market.accept(f"A{number + 1}", hit)
        market.submit(held.assignment_id)
        client.approve_assignment(AssignmentId=held.assignment_id)
    assert total(market.ledger(), "fee") == Decimal(fee)
    assert total(market.ledger(), "reward") == Decimal(reward) * places


def test_small_hits_stay_small(client: Any) -> None:
    hit = make_hit(client, 8)
    client.create_additional_assignments_for_hit(HITId=hit, NumberOfAdditionalAssignments=1, UniqueRequestToken="x")
    with refused("DuplicateRequest"):
        client.create_additional_assignments_for_hit(HITId=hit, NumberOfAdditionalAssignments=1, UniqueRequestToken="x")
    with refused("InvalidMaximumAssignmentsIncrease"):
        client.create_additional_assignments_for_hit(HITId=hit, NumberOfAdditionalAssignments=1)
    assert client.get_hit(HITId=hit)["HIT"]["MaxAssignments"] == 9


def test_a_token_makes_one_hit_within_a_day(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client, 1, UniqueRequestToken="batch-1")
    with pytest.raises(ClientError, match=f"HIT with ID {hit} already exists"):
        make_hit(client, 1, UniqueRequestToken="batch-1")
    assert len(client.list_hits()["HITs"]) == 1
    market.advance(timedelta(hours=25))
    assert make_hit(client, 1, UniqueRequestToken="batch-1") != hit


def test_the_same_values_are_the_same_hit_type(client: Any) -> None:
    first = client.create_hit_type(**TYPE)["HITTypeId"]
    assert client.create_hit_type(**TYPE)["HITTypeId"] == first
    assert client.create_hit_type(**TYPE | {"Reward": "1.51"})["HITTypeId"] != first


def test_an_expiry_is_not_processed_twice(client: Any) -> None:
    hit, past = make_hit(client), datetime(2015, 1, 1, tzinfo=UTC)
    client.update_expiration_for_hit(HITId=hit, ExpireAt=past)
    with refused("DuplicateRequest"):
        client.update_expiration_for_hit(HITId=hit, ExpireAt=past)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Question": QUESTION.replace("https", "http")}, "ParameterValidationError"),
        ({"Question": QUESTION.replace(SCHEMA, "urn:other")}, "XMLParseError"),
        ({"Question": QUESTION.replace("&amp;", "&")}, "XMLParseError"),
        ({"Question": QUESTION + " " * 65_535}, "ParameterValidationError"),
        ({"LifetimeInSeconds": 29}, "ParameterValidationError"),
        ({"MaxAssignments": 0}, "ParameterValidationError"),
        ({"MaxAssignments": 60}, "InsufficientFunds"),
        ({"HITTypeId": "3NOTHING"}, "HITTypeDoesNotExist"),
        ({"HITTypeId": "lower"}, "ParameterValidationError"),
    ],
)
def test_a_hit_that_is_refused_costs_nothing(client: Any, change: dict[str, Any], code: str) -> None:
    kind = client.create_hit_type(**TYPE)["HITTypeId"]
    with refused(code):
        client.create_hit_with_hit_type(**{"HITTypeId": kind, **HIT, **change})
    assert client.list_hits()["HITs"] == []
    assert client.get_account_balance()["AvailableBalance"] == "100.00"


def gate(type_: str, comparator: str, *values: Any, guarded: str = "DiscoverPreviewAndAccept") -> dict[str, Any]:
    name = "LocaleValues" if type_ == LOCALE else "IntegerValues"
    made = {"QualificationTypeId": type_, "Comparator": comparator, "ActionsGuarded": guarded}
    return made | ({name: list(values)} if values else {})


def test_only_the_qualified_see_and_accept(market: FakeMTurk, client: Any) -> None:
    taken = client.create_qualification_type(Name="Took part", Description="d", QualificationTypeStatus="Active")
    own = taken["QualificationType"]["QualificationTypeId"]
    with refused("QualificationTypeAlreadyExists"):
        client.create_qualification_type(Name="Took part", Description="d", QualificationTypeStatus="Active")
    gates = [
        gate(LOCALE, "EqualTo", {"Country": "US"}),
        gate(PERCENT_APPROVED, "GreaterThanOrEqualTo", 98),
        gate(NUMBER_APPROVED, "GreaterThanOrEqualTo", 1000),
        gate(own, "DoesNotExist"),
    ]
    hit = make_hit(client, 5, QualificationRequirements=gates)
    market.workers.add("AABROAD", country="FR")
    market.workers.add("ARATE", percent=97)
    market.workers.add("ANEW", approved=999)
    market.workers.add("ADONE")
    client.associate_qualification_with_worker(QualificationTypeId=own, WorkerId="ADONE", SendNotification=False)
    assert market.messages == []
    for worker in ("AABROAD", "ARATE", "ANEW", "ADONE"):
        with pytest.raises(FakeMTurkError, match="not qualified"):
            market.accept(worker, hit)
        assert "Compare sounds" not in httpx.get(f"{market.url}/projects?workerId={worker}").text
    assert "Compare sounds" in httpx.get(f"{market.url}/projects?workerId=A1").text
    market.accept("A1", hit)
    granted = client.list_workers_with_qualification_type(QualificationTypeId=own)["Qualifications"]
    assert [one["WorkerId"] for one in granted] == ["ADONE"]
    assert [one["HITId"] for one in client.list_hits_for_qualification_type(QualificationTypeId=own)["HITs"]] == [hit]
    client.disassociate_qualification_from_worker(QualificationTypeId=own, WorkerId="ADONE")
    market.accept("ADONE", hit)
    with refused("QualificationTypeDoesNotExist"):
        client.create_hit_type(**TYPE, QualificationRequirements=[gate("3NONE", "Exists")])
    with refused("ParameterValidationError"):
        client.create_hit_type(**TYPE, QualificationRequirements=[gate(LOCALE, "GreaterThan", {"Country": "US"})])


def test_a_guard_on_accepting_alone_lets_others_look(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client, QualificationRequirements=[gate(PERCENT_APPROVED, "GreaterThan", 99, guarded="Accept")])
    assert httpx.get(f"{market.url}/projects/{hit}/preview?workerId=A1").status_code == 200
    assert httpx.post(f"{market.url}/projects/{hit}/accept", data={"workerId": "A1"}).status_code == 400


def test_returning_frees_the_place_under_the_same_id(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client, 1)
    first = market.accept("A1", hit)
    market.return_(first.assignment_id)
    assert market.accept("A1", hit).assignment_id == first.assignment_id
    market.advance(timedelta(seconds=3601))  # abandoned
    assert client.get_hit(HITId=hit)["HIT"]["NumberOfAssignmentsAvailable"] == 1
    assert market.accept("A2", hit).assignment_id == first.assignment_id, "reissued to another worker"
    with pytest.raises(FakeMTurkError, match="no more"):
        market.accept("A1", hit)
    events = [one.event for one in market.deliver()]
    assert [e for e in events if e.startswith("Assignment")] == [
        "AssignmentAccepted",
        "AssignmentReturned",
        "AssignmentAccepted",
        "AssignmentAbandoned",
        "AssignmentAccepted",
    ]


def test_what_is_left_unjudged_is_approved_and_a_rejection_can_be_overridden_for_a_while(
    market: FakeMTurk, client: Any
) -> None:
    hit = make_hit(client, 3)
    ids = [market.accept(f"A{n}", hit).assignment_id for n in (1, 2, 3)]
    for id_ in ids:
        market.submit(id_)
    client.reject_assignment(AssignmentId=ids[0], RequesterFeedback="not done")
    client.reject_assignment(AssignmentId=ids[1], RequesterFeedback="not done")
    with refused("InvalidAssignmentState"):
        client.approve_assignment(AssignmentId=ids[0])
    client.approve_assignment(AssignmentId=ids[0], OverrideRejection=True)
    market.advance(timedelta(days=1))
    statuses = client.list_assignments_for_hit(HITId=hit, AssignmentStatuses=["Approved"])["Assignments"]
    assert {one["AssignmentId"] for one in statuses} == {ids[0], ids[2]}
    market.advance(timedelta(days=30))
    with refused("InvalidAssignmentState"):
        client.approve_assignment(AssignmentId=ids[1], OverrideRejection=True)
    assert total(market.ledger(), "reward") == Decimal("3.00")


def test_bonuses(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client)
    held = market.accept("A1", hit)
    bonus = {"WorkerId": "A1", "AssignmentId": held.assignment_id, "BonusAmount": "2.00", "Reason": "thanks"}
    with refused("InvalidAssignmentState"):
        client.send_bonus(**bonus)
    market.submit(held.assignment_id)
    client.send_bonus(**bonus, UniqueRequestToken="bonus-1")
    with pytest.raises(ClientError, match="already been processed"):
        client.send_bonus(**bonus, UniqueRequestToken="bonus-1")
    market.advance(timedelta(days=40))
    with refused("DuplicateRequest"):
        client.send_bonus(**bonus, UniqueRequestToken="bonus-1")
    with refused("AssignmentDoesNotExist"):
        client.send_bonus(**bonus | {"WorkerId": "A2"})
    with refused("InsufficientFunds"):
        client.send_bonus(**bonus | {"BonusAmount": "99.00"})
    for where in ({"HITId": hit}, {"AssignmentId": held.assignment_id}):
        paid = client.list_bonus_payments(**where)["BonusPayments"]
        assert [(one["WorkerId"], one["BonusAmount"]) for one in paid] == [("A1", "2.00")]
    assert [(e.amount, e.reference) for e in market.ledger() if e.kind == "bonus"] == [(Decimal("2.00"), "bonus-1")]


def test_lists_come_in_pages(client: Any) -> None:
    made = [make_hit(client) for _ in range(23)]
    assert len(client.list_hits()["HITs"]) == 10
    pages = list(client.get_paginator("list_hits").paginate(PaginationConfig={"PageSize": 7}))
    assert [len(page["HITs"]) for page in pages] == [7, 7, 7, 2]
    assert [hit["HITId"] for page in pages for hit in page["HITs"]] == made
    with refused("ParameterValidationError"):
        client.list_hits(NextToken="nonsense")
    with refused("ParameterValidationError"):
        client.list_hits(MaxResults=101)


def test_letters_reach_only_those_who_worked(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client)
    market.submit(market.accept("A1", hit).assignment_id)
    letter = {"Subject": "s", "MessageText": "m", "WorkerIds": ["A1"]}
    failed = client.notify_workers(**letter)["NotifyWorkersFailureStatuses"]
    assert [one["NotifyWorkersFailureCode"] for one in failed] == ["HardFailure"]
    market.advance(timedelta(days=1))
    assert client.notify_workers(**letter)["NotifyWorkersFailureStatuses"] == []
    assert market.messages[-1]["WorkerIds"] == ["A1"]


# ------------------------------------------------------------------ faults


def test_a_creation_that_timed_out_after_the_work_is_found_by_its_token(market: FakeMTurk) -> None:
    client = connect(market, attempts=2)
    client.create_hit_type(**TYPE)
    market.fail("CreateHITWithHITType", 1, "timeout_after")
    with refused("HitAlreadyExists"):
        make_hit(client, UniqueRequestToken="batch-1")
    assert len(client.list_hits()["HITs"]) == 1
    client.close()


@pytest.mark.parametrize(("how", "done"), [("throttle", 0), ("fail", 0), ("timeout_before", 0), ("fail_after", 1)])
def test_faults_strike_the_nth_call(market: FakeMTurk, client: Any, how: str, done: int) -> None:
    market.fail("CreateHITWithHITType", 2, how)
    make_hit(client)
    with pytest.raises((ClientError, HTTPClientError)):
        make_hit(client)
    make_hit(client)
    assert len(client.list_hits()["HITs"]) == 2 + done
    assert [call.fault for call in market.calls if call.fault] == [how]


def test_retries_outlast_throttling(market: FakeMTurk) -> None:
    client = connect(market, attempts=2)
    market.fail("GetAccountBalance", 1, "throttle")
    assert client.get_account_balance()["AvailableBalance"] == "100.00"
    assert [call.fault for call in market.calls] == ["throttle", ""]
    client.close()


def test_a_plan_of_faults_follows_from_its_seed() -> None:
    def faults(seed: int) -> list[str]:
        market = FakeMTurk()
        market.fail_at_random(seed, 0.5)
        return [market.faults.next("GetHIT") for _ in range(50)]

    assert faults(1) == faults(1) != faults(2)


def test_a_request_that_arrives_twice_is_done_twice_unless_a_token_forbids(market: FakeMTurk, client: Any) -> None:
    client.create_hit_type(**TYPE)
    market.fail("CreateHITWithHITType", 1, "twice")
    make_hit(client)
    market.fail("CreateHITWithHITType", 1, "twice")
    make_hit(client, UniqueRequestToken="once")
    assert len(client.list_hits()["HITs"]) == 3


def test_who_may_come_in(market: FakeMTurk) -> None:
    elsewhere = _session.client("mturk", endpoint_url=market.url, region_name="eu-central-1")
    with refused("InvalidSignatureException"):
        elsewhere.get_account_balance()
    elsewhere.close()
    target = {"X-Amz-Target": "MTurkRequesterServiceV20170117.GetAccountBalance"}
    assert "MissingAuthenticationToken" in httpx.post(market.url, headers=target, content=b"{}").text
    market.refuse("UnrecognizedClientException")
    client = connect(market)
    with refused("UnrecognizedClientException"):
        client.get_account_balance()
    client.close()


def test_notifications_come_late_twice_and_out_of_order(market: FakeMTurk, client: Any) -> None:
    for _ in range(20):
        make_hit(client)
    first = market.deliver(seed=1, duplicate=0.5, late=0.5)
    rest = market.deliver()
    ids = [one.id for one in first]
    assert len(set(ids)) < len(ids), "some came twice"
    assert ids != sorted(ids)
    assert rest and len(set(ids) | {one.id for one in rest}) == 20, "none is lost"


def test_the_admin_address(market: FakeMTurk, client: Any) -> None:
    post = {"operation": "*", "nth": 1, "how": "AWS.MechanicalTurk.Suspended"}
    assert httpx.post(f"{market.url}/_market/fail", json=post).status_code == 200
    with refused("Suspended"):
        client.get_account_balance()
    httpx.post(f"{market.url}/_market/workers", json={"worker_id": "ANEW", "country": "CA"})
    assert market.workers["ANEW"].country == "CA"
    hit = make_hit(client)
    market.submit(market.accept("A1", hit).assignment_id)
    httpx.post(f"{market.url}/_market/advance", json={"seconds": 86400})
    kinds = [entry["kind"] for entry in httpx.get(f"{market.url}/_market/ledger").json()]
    assert kinds == ["reward", "fee"]
    calls = httpx.get(f"{market.url}/_market/calls").json()
    assert calls[0]["fault"] == "AWS.MechanicalTurk.Suspended"


# ------------------------------------------------------------------ what workers see


def test_a_worker_previews_accepts_and_submits_over_http(market: FakeMTurk, client: Any) -> None:
    hit = make_hit(client)
    with httpx.Client(base_url=market.worker_url, follow_redirects=True) as browser:
        preview = browser.get(f"/projects/{hit}/preview?workerId=A1").text
        assert "?a=1&amp;b=2&amp;assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE&amp;hitId=" in preview
        assert "workerId=A1&amp;" not in preview and "turkSubmitTo" not in preview
        accepted = browser.post(f"/projects/{hit}/accept", data={"workerId": "A1"})
        id_ = accepted.url.path.removeprefix("/tasks/")
        assert f"assignmentId={id_}&amp;hitId={hit}&amp;turkSubmitTo=http%3A%2F%2Flocalhost" in accepted.text
        assert browser.post("/mturk/externalSubmit", data={"assignmentId": id_}).status_code == 400
        form = {"assignmentId": id_, "code": "X"}
        assert "successfully submitted" in browser.post("/mturk/externalSubmit", data=form).text
        assert browser.post("/mturk/externalSubmit", data=form).status_code == 400
    assert client.get_assignment(AssignmentId=id_)["Assignment"]["WorkerId"] == "A1"


def test_an_answer_that_the_service_model_does_not_know_is_found() -> None:
    assert output_problems("GetAccountBalance", {"AvailableBalance": "1.00"}) == []
    assert output_problems("GetAccountBalance", {"AvailableBalance": "one"})
    assert output_problems("GetAccountBalance", {"Available": "1.00"})
    assert output_problems("GetAccountBalance", {"AvailableBalance": 1})
    assert output_problems("DeleteHIT", {"HIT": {}})
