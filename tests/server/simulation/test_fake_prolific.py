"""The local Prolific, asked over the wire, and its money under any sequence of events."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import pytest

from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.prolific_requests import REFUSED_FIELD
from server.simulation.marketplaces.prolific_studies import FakeProlificError, FeeSchedule

CODES = [
    {"code": "C0MPLETE", "code_type": "COMPLETED", "actor": "participant", "actions": [{"action": "MANUALLY_REVIEW"}]},
    {"code": "OURS", "code_type": "OTHER", "actor": "researcher", "actions": [{"action": "MANUALLY_REVIEW"}]},
]
STUDY: dict[str, Any] = {
    "name": "Compare sounds",
    "internal_name": "rootnote test",
    "description": "Listen and compare",
    "external_study_url": "https://study.example.org/take?PROLIFIC_PID={{%PROLIFIC_PID%}}"
    "&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}",
    "prolific_id_option": "url_parameters",
    "completion_codes": CODES,
    "total_available_places": 3,
    "estimated_completion_time": 4,
    "maximum_allowed_time": 60,
    "reward": 150,
}
P = [f"60000000000000000000000{n:x}" for n in range(12)]


class StoppedClock:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def market() -> Iterator[FakeProlific]:
    with FakeProlific(balance="100.00", clock=StoppedClock()) as market:
        for number in P:
            market.participants.add(number)
        yield market


class Client(httpx.Client):
    """A researcher's client; `ask` gives what was answered, or raises with the status."""

    def ask(self, method: str, path: str, **given: Any) -> Any:
        reply = self.request(method, path, **given)
        if reply.is_error:
            error = reply.json()
            error = error.get("error", error)  # some operations wrap it
            assert error["status"] == reply.status_code and {"error_code", "title", "detail"} <= error.keys()
            raise ValueError(f"{reply.status_code}: {error['title']}: {error['detail']}")
        return reply.json() if reply.content else None

    def make(self, publish: bool = True, **changes: Any) -> str:
        study = str(self.ask("POST", "/studies/", json=STUDY | changes)["id"])
        if publish:
            self.move(study, "PUBLISH")
        return study

    def move(self, study: str, action: str) -> str:
        return str(self.ask("POST", f"/studies/{study}/transition/", json={"action": action})["status"])

    def judge(self, submission: str, **asked: Any) -> str:
        return str(self.ask("POST", f"/submissions/{submission}/transition/", json=asked)["status"])

    def bonus(self, study: str, *rows: str) -> str:
        given = {"study_id": study, "csv_bonuses": "\n".join(rows)}
        return str(self.ask("POST", "/submissions/bonus-payments/", json=given)["id"])

    def pay(self, bulk: str) -> None:
        self.ask("POST", f"/bulk-bonus-payments/{bulk}/pay/")

    def study(self, study: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/studies/{study}/"))

    def submission(self, submission: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/submissions/{submission}/"))


def connect(market: FakeProlific, token: str = "") -> Client:
    return Client(base_url=f"{market.url}/api/v1", headers={"Authorization": f"Token {token or market.token}"})


@pytest.fixture
def client(market: FakeProlific) -> Iterator[Client]:
    with connect(market) as client:
        yield client


def refused(words: str) -> Any:
    return pytest.raises(ValueError, match=words)


def test_a_study_from_draft_to_its_end(market: FakeProlific, client: Client) -> None:
    study = client.make(publish=False)
    assert market.balance == Decimal("100.00"), "a draft costs nothing"
    assert client.study(study)["status"] == "UNPUBLISHED"
    with pytest.raises(FakeProlificError, match="no place"):
        market.reserve(P[0], study)
    assert client.move(study, "PUBLISH") == "ACTIVE"
    assert (market.balance, market.on_hold) == (Decimal("94.00"), Decimal("6.00"))
    held = market.take(P[0], study)
    assert held.external_url == (
        f"https://study.example.org/take?PROLIFIC_PID={P[0]}&STUDY_ID={study}&SESSION_ID={held.submission_id}"
    )
    with refused("not AWAITING REVIEW"):
        client.judge(held.submission_id, action="APPROVE")
    market.complete(held.submission_id, "C0MPLETE")
    found = client.submission(held.submission_id)
    assert (found["status"], found["entered_code"], found["participant"]) == ("AWAITING REVIEW", "C0MPLETE", P[0])
    assert client.judge(held.submission_id, action="APPROVE") == "APPROVED"
    assert client.judge(held.submission_id, action="APPROVE") == "APPROVED", "asking again changes nothing"
    assert client.move(study, "STOP") == "COMPLETED"
    assert (market.balance, market.on_hold) == (Decimal("98.00"), Decimal("0.00"))
    assert [(entry.kind, entry.amount) for entry in market.ledger()] == [
        ("reward", Decimal("1.50")),
        ("fee", Decimal("0.50")),
    ]
    cost = client.ask("GET", f"/studies/{study}/cost/")
    usd = {"currency": "USD"}
    assert cost["rewards"] == {
        "rewards": {"amount": 150} | usd,
        "fees": {"amount": 50} | usd,
        "tax": {"amount": 0} | usd,
    }
    assert cost["bonuses"]["rewards"]["amount"] == 0


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"reward": 1.5}, "reward"),
        ({"reward": "150"}, "reward"),
        ({"unknown": 1}, "unknown"),
        ({"external_study_url": STUDY["external_study_url"].replace("https", "http")}, "https"),
        ({"external_study_url": "https://study.example.org/take"}, "PROLIFIC_PID"),
        ({"completion_codes": CODES + CODES}, "unique"),
        ({"completion_codes": []}, "completion_codes"),
        ({"total_available_places": 0}, "total_available_places"),
        ({"maximum_allowed_time": 13}, "must be at least 14"),
        ({"filters": [{"filter_id": "shoe-size", "selected_values": ["1"]}]}, "no filter 'shoe-size'"),
        ({"filters": [{"filter_id": "age", "selected_values": ["1"]}]}, "another kind of value"),
        (
            {
                "completion_codes": [
                    {
                        "code": "S",
                        "code_type": "FIXED_SCREENOUT",
                        "actions": [{"action": "FIXED_SCREEN_OUT_PAYMENT", "fixed_screen_out_reward": 150, "slots": 2}],
                    }
                ]
            },
            "less than the reward",
        ),
    ],
)
def test_a_study_that_is_refused_does_not_exist(client: Client, change: dict[str, Any], where: str) -> None:
    with refused(f"^400: Validation error.*{where}"):
        client.make(publish=False, **change)
    assert client.ask("GET", "/studies/")["results"] == []


def test_a_published_study_changes_only_by_more_places_that_can_be_paid(market: FakeProlific, client: Client) -> None:
    study = client.make()
    assert client.ask("PATCH", f"/studies/{study}/", json={"total_available_places": 5})["total_available_places"] == 5
    assert market.on_hold == Decimal("10.00")
    for change, words in [
        ({"total_available_places": 4}, "only be increased"),
        ({"total_available_places": 51}, "Insufficient funds"),
        ({"external_study_url": STUDY["external_study_url"]}, "cannot be changed once"),
        ({"reward": 160}, "reward"),
        ({"completion_codes": CODES[:1]}, "Only slots can be changed"),
    ]:
        with refused(words):
            client.ask("PATCH", f"/studies/{study}/", json=change)
    assert client.study(study)["total_available_places"] == 5
    with refused("Only a draft"):
        client.ask("DELETE", f"/studies/{study}/")
    draft = client.make(publish=False, total_available_places=45)
    assert client.ask("PATCH", f"/studies/{draft}/", json={"reward": 151})["reward"] == 151, "a draft can be edited"
    with refused("Insufficient funds"):
        client.move(draft, "PUBLISH")
    assert client.study(draft)["status"] == "UNPUBLISHED"
    client.ask("DELETE", f"/studies/{draft}/")
    with refused("^404"):
        client.study(draft)


def test_places_come_back_by_themselves_when_submissions_return_or_time_out(
    market: FakeProlific, client: Client
) -> None:
    study = client.make(total_available_places=2)
    reserved, active = market.reserve(P[0], study), market.take(P[1], study)
    with pytest.raises(FakeProlificError, match="no place"):
        market.reserve(P[2], study)
    market.advance(timedelta(minutes=10))
    assert client.submission(reserved.submission_id)["status"] == "TIMED-OUT"
    again = market.take(P[0], study)
    assert again.submission_id != reserved.submission_id, "a lapsed reservation may be taken again"
    market.return_(active.submission_id)
    with pytest.raises(FakeProlificError, match="no place"):
        market.reserve(P[1], study)
    late = market.take(P[2], study)
    market.advance(timedelta(minutes=60))
    assert client.submission(late.submission_id)["status"] == "TIMED-OUT"
    market.complete(late.submission_id, "C0MPLETE")
    assert client.submission(late.submission_id)["status"] == "AWAITING REVIEW", "a place was free still"
    market.take(P[3], study)
    with pytest.raises(FakeProlificError, match="gone to somebody else"):
        market.complete(again.submission_id, "C0MPLETE")
    assert client.study(study)["total_available_places"] == 2


def test_a_full_study_awaits_review_and_more_places_open_it_again(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=1)
    held = market.take(P[0], study)
    assert client.study(study)["status"] == "ACTIVE"
    market.complete(held.submission_id, "C0MPLETE")
    assert client.study(study)["status"] == "AWAITING REVIEW"
    client.ask("PATCH", f"/studies/{study}/", json={"total_available_places": 2})
    assert client.study(study)["status"] == "ACTIVE"
    with refused("A study that is ACTIVE cannot START"):
        client.move(study, "START")
    assert client.move(study, "PAUSE") == "PAUSED"
    with pytest.raises(FakeProlificError, match="no place"):
        market.reserve(P[1], study)
    with refused("cannot PAUSE"):
        client.move(study, "PAUSE")
    assert client.move(study, "START") == "ACTIVE"


def test_only_those_whom_the_filters_let_in(market: FakeProlific, client: Client) -> None:
    earlier = client.make()
    market.return_(market.take(P[0], earlier).submission_id)
    filters = [
        {"filter_id": "current-country-of-residence", "selected_values": ["1"]},
        {"filter_id": "approval_rate", "selected_range": {"lower": 98, "upper": 100}},
        {"filter_id": "previous_studies_blocklist", "selected_values": [earlier]},
    ]
    study = client.make(filters=filters)
    market.participants.add("abroad", country="0")
    market.participants.add("refused", approval_rate=97)
    for who in ("abroad", "refused", P[0]):
        with pytest.raises(FakeProlificError, match="no place"):
            market.reserve(who, study)
    market.take(P[1], study)
    alone = client.make(filters=[{"filter_id": "custom_allowlist", "selected_values": [P[5]]}])
    market.take(P[5], alone)
    with pytest.raises(FakeProlificError, match="no place"):
        market.take(P[6], alone)


def test_codes_do_what_the_study_says(market: FakeProlific, client: Client) -> None:
    fixed = {"action": "FIXED_SCREEN_OUT_PAYMENT", "fixed_screen_out_reward": 20, "slots": 1}
    codes = [
        *CODES,
        {"code": "AUTO", "code_type": "COMPLETED", "actions": [{"action": "AUTOMATICALLY_APPROVE"}]},
        {"code": "OUT", "code_type": "FIXED_SCREENOUT", "actions": [fixed]},
        {
            "code": "BACK",
            "code_type": "NO_CONSENT",
            "actions": [{"action": "REQUEST_RETURN", "return_reason": "You did not consent."}],
        },
    ]
    study = client.make(completion_codes=codes, total_available_places=10)
    held = [market.take(who, study).submission_id for who in P[:7]]
    for one, code in zip(held, ["AUTO", "OUT", "OUT", "BACK", "WRONG", "OURS", None], strict=True):
        if code:
            market.complete(one, code)
    found = [client.submission(one) for one in held]
    waits = "AWAITING REVIEW"
    assert [one["status"] for one in found] == ["APPROVED", "SCREENED OUT", waits, waits, waits, waits, "ACTIVE"]
    assert client.study(study)["status"] == "PAUSED", "the only paid screen-out is used"
    assert found[3]["return_requested"] is not None
    assert client.judge(held[6], action="COMPLETE", completion_code="OURS") == waits
    client.move(study, "START")
    with refused("cannot use this completion code"):
        client.judge(market.take(P[7], study).submission_id, action="COMPLETE", completion_code="AUTO")
    paid = [(entry.kind, entry.amount) for entry in market.ledger() if entry.kind != "fee"]
    assert paid == [("reward", Decimal("1.50")), ("screen-out", Decimal("0.20"))]


def screen_out_code(slots: int, reward: int = 20) -> dict[str, Any]:
    action = {"action": "FIXED_SCREEN_OUT_PAYMENT", "fixed_screen_out_reward": reward, "slots": slots}
    return {"code": "OUT", "code_type": "FIXED_SCREENOUT", "actions": [action], "actor": "participant"}


def test_a_screen_out_adds_a_place_and_the_last_paid_one_pauses_the_study(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=3, completion_codes=[*CODES, screen_out_code(2)])
    per_place, per_screen_out = Decimal("2.00"), Decimal("0.26666667")
    assert market.on_hold == 3 * per_place + 2 * per_screen_out
    held = [market.take(who, study).submission_id for who in P[:3]]
    market.complete(held[0], "OUT")
    found = client.study(study)
    assert (found["total_available_places"], found["status"]) == (4, "ACTIVE")
    market.complete(held[1], "OUT")
    assert client.study(study)["status"] == "PAUSED"
    with pytest.raises(FakeProlificError, match="no place"):
        market.reserve(P[3], study)
    market.complete(held[2], "OUT")
    assert client.submission(held[2])["status"] == "AWAITING REVIEW", "nothing is left to pay it from"
    codes = [*CODES, screen_out_code(5)]
    with refused("Only slots"):
        client.ask("PATCH", f"/studies/{study}/", json={"completion_codes": [*CODES, screen_out_code(5, reward=30)]})
    client.ask("PATCH", f"/studies/{study}/", json={"completion_codes": codes})
    assert client.move(study, "START") == "ACTIVE"
    assert total(market.ledger(), "screen-out") == Decimal("0.40")


def test_a_study_is_published_after_a_while_or_at_a_set_time(market: FakeProlific, client: Client) -> None:
    market.state.publishing_delay = timedelta(minutes=5)
    study, later = client.make(publish=False), client.make(publish=False)
    assert client.move(study, "PUBLISH") == "PUBLISHING"
    with refused("A study that is PUBLISHING cannot STOP"):
        client.move(study, "STOP")
    with refused("publish_at"):
        client.move(later, "SCHEDULE_PUBLISH")
    at = {"action": "SCHEDULE_PUBLISH", "publish_at": "2026-03-01T13:00:00Z"}
    assert client.ask("POST", f"/studies/{later}/transition/", json=at)["status"] == "SCHEDULED"
    assert client.move(later, "CANCEL_PUBLISH") == "UNPUBLISHED"
    client.ask("POST", f"/studies/{later}/transition/", json=at)
    market.advance(timedelta(minutes=5))
    assert (client.study(study)["status"], client.study(later)["status"]) == ("ACTIVE", "SCHEDULED")
    market.advance(timedelta(minutes=60))
    assert client.study(later)["status"] == "ACTIVE"


def test_a_study_completes_by_itself_and_more_places_open_it_again(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=1)
    one = market.take(P[0], study).submission_id
    market.complete(one, "C0MPLETE")
    with refused("A study that is AWAITING REVIEW cannot STOP"):
        client.move(study, "STOP")
    client.judge(one, action="APPROVE")
    assert client.study(study)["status"] == "COMPLETED"
    assert market.on_hold == 0
    client.ask("PATCH", f"/studies/{study}/", json={"total_available_places": 2})
    assert client.study(study)["status"] == "ACTIVE"
    two = market.take(P[1], study).submission_id
    market.complete(two, "C0MPLETE")
    market.advance(timedelta(days=21))
    assert client.submission(two)["status"] == "APPROVED", "after 21 days by itself"


def test_groups_take_in_who_uses_a_code_and_keep_them_out_of_other_studies(
    market: FakeProlific, client: Client
) -> None:
    given = {"workspace_id": market.state.workspace, "name": "Earlier listeners"}
    group = client.ask("POST", "/participant-groups/", json=given)["id"]
    join = {"action": "ADD_TO_PARTICIPANT_GROUP", "participant_group": group}
    code = CODES[0] | {"actions": [{"action": "MANUALLY_REVIEW"}, join]}
    study = client.make(completion_codes=[code])
    market.complete(market.take(P[0], study).submission_id, "C0MPLETE")
    members = client.ask("GET", f"/participant-groups/{group}/participants/")["results"]
    assert [one["participant_id"] for one in members] == [P[0]]
    other = client.make(filters=[{"filter_id": "participant_group_blocklist", "selected_values": [group]}])
    with pytest.raises(FakeProlificError, match="no place"):
        market.take(P[0], other)
    market.take(P[1], other)


def test_a_share_of_the_reward_is_paid_by_a_researchers_code(market: FakeProlific, client: Client) -> None:
    code = {"code": "PART", "code_type": "OTHER", "actor": "researcher", "actions": [{"action": "DYNAMIC_PAYMENT"}]}
    one = market.take(P[0], client.make(completion_codes=[CODES[0], code])).submission_id
    with refused("completion_code_data"):
        client.judge(one, action="COMPLETE", completion_code="PART")
    share = {"percentage_of_reward": 50}
    client.judge(one, action="COMPLETE", completion_code="PART", completion_code_data=share)
    assert client.submission(one)["status"] == "PARTIALLY APPROVED"
    assert total(market.ledger(), "reward") == Decimal("0.75")


def test_test_participants_take_test_studies_at_no_cost(market: FakeProlific, client: Client) -> None:
    study = client.make(publish=False)
    with refused("no test participant"):
        client.ask("POST", f"/studies/{study}/test-study")
    tester = client.ask("POST", "/researchers/participants/", json={"email": "tester@example.org"})["participant_id"]
    copy = client.ask("POST", f"/studies/{study}/test-study")
    with pytest.raises(FakeProlificError, match="no place"):
        market.take(P[0], copy["study_id"])
    one = market.take(tester, copy["study_id"]).submission_id
    market.complete(one, "C0MPLETE")
    client.judge(one, action="APPROVE")
    assert market.ledger() == () and market.on_hold == 0


def test_lists_keep_to_their_parameters(market: FakeProlific, client: Client) -> None:
    study, _ = client.make(), client.make(publish=False)
    gone, held = (market.take(who, study).submission_id for who in P[:2])
    market.return_(gone)

    def listed(query: str) -> list[str]:
        return [one["id"] for one in client.ask("GET", f"/submissions/?study={study}&{query}")["results"]]

    assert listed("returned=true") == listed("status=RETURNED") == listed("active=0") == [gone]
    assert listed("returned=f") == listed("completeoractive=YES") == [held]
    assert [one["id"] for one in client.ask("GET", "/studies/?state=ACTIVE")["results"]] == [study]
    assert len(client.ask("GET", "/studies/?state=(active|unpublished)")["results"]) == 2
    counts = client.ask("GET", f"/studies/{study}/submissions/counts/")
    assert (counts["RETURNED"], counts["ACTIVE"], counts["TOTAL"]) == (1, 1, 2)
    assert client.ask("GET", "/users/me")["email"], "the last slash may be missing"
    workspace = client.ask("GET", "/workspaces/?limit=1000")["results"][0]["id"]
    project = client.ask("POST", f"/workspaces/{workspace}/projects/", json={"title": "Pilot"})["id"]
    mine = client.make(project=project)
    listed_there = client.ask("GET", f"/projects/{project}/studies/?page=1&page_size=10&ordering=-date_created")
    assert [one["id"] for one in listed_there["results"]] == [mine]


def test_old_screening_is_refused_by_its_own_error(client: Client) -> None:
    reply = client.post("/studies/", json=STUDY | {REFUSED_FIELD: False})
    assert (reply.status_code, reply.json()["error_code"]) == (400, 140003), "not wrapped, for this operation"
    reply = client.patch(f"/studies/{client.make(publish=False)}/", json={"unknown": 1})
    assert reply.json()["error"]["detail"] == {"unknown": ["Extra inputs are not permitted"]}


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("fixed_screen_out", {"completion_codes": [*CODES, screen_out_code(3)]}),
        ("secure_urls", {"is_external_study_url_secure": True}),
    ],
)
def test_a_workspace_without_a_feature_is_refused(
    market: FakeProlific, client: Client, feature: str, change: dict[str, Any]
) -> None:
    client.make(publish=False, **change)
    market.state.features.discard(feature)
    with refused("not available for this workspace"):
        client.make(publish=False, **change)


def test_signed_arrivals_can_be_checked_with_the_published_keys(market: FakeProlific, client: Client) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    def decoded(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    held = market.take(P[0], client.make(is_external_study_url_secure=True))
    address, _, token = held.external_url.partition("&prolific_token=")
    header, claims, signature = token.split(".")
    found = json.loads(decoded(claims))
    now = int(StoppedClock.now.timestamp())
    assert (found["aud"], found["sub"], found["exp"]) == (address, held.submission_id, now + 120)
    assert found["prolific"]["PROLIFIC_PID"] == P[0]
    [key] = httpx.get(f"{market.url}/.well-known/study/jwks.json").json()["keys"]
    assert key["kid"] == json.loads(decoded(header))["kid"]
    numbers = rsa.RSAPublicNumbers(int.from_bytes(decoded(key["e"])), int.from_bytes(decoded(key["n"])))
    numbers.public_key().verify(decoded(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())


def test_bonuses_are_prepared_then_paid_and_paid_again_when_asked_again(market: FakeProlific, client: Client) -> None:
    study = client.make()
    held = market.take(P[0], study)
    reserved = market.reserve(P[1], study)
    for rows in (["nobody,1.00"], [f"{P[0]},0"], [f"{P[0]},1.005"], [f"{P[0]}"], [f"{reserved.submission_id},1.00"]):
        with refused("csv_bonuses"):
            client.bonus(study, *rows)
    bulk = client.bonus(study, f"{held.submission_id},0.85")
    assert market.ledger() == ()
    market.state.bonus_delay = timedelta(minutes=2)
    client.pay(bulk)
    assert client.submission(held.submission_id)["bonus_payments"] == []
    assert market.balance == Decimal("100.00") - market.on_hold
    market.advance(timedelta(minutes=2))
    assert client.submission(held.submission_id)["bonus_payments"] == [85]
    client.pay(bulk)
    market.advance(timedelta(minutes=2))
    assert client.submission(held.submission_id)["bonus_payments"] == [85, 85]
    assert [(e.kind, e.amount, e.reference) for e in market.ledger()][:2] == [
        ("bonus", Decimal("0.85"), bulk),
        ("fee", Decimal("0.28333333"), bulk),
    ]
    with refused("Insufficient funds"):
        client.pay(client.bonus(study, f"{P[0]},99.00"))
    with refused("^404"):
        client.pay("0" * 24)


@pytest.mark.parametrize(("fee", "tax", "cents"), [("1/3", "0", 200), ("0.428", "0", 214.2), ("1/3", "0.2", 210)])
def test_the_calculator_says_what_is_charged_in_the_end(fee: str, tax: str, cents: float) -> None:
    with FakeProlific("100.00", StoppedClock(), fee_rate=Fraction(fee), tax_rate=Fraction(tax)) as market:
        with connect(market) as client:
            asked = {"reward": 150, "total_available_places": 3}
            shown = client.ask("POST", "/study-cost-calculator/", json=asked)
            assert shown == {"total_cost": pytest.approx(3 * cents)}
            study = client.make()
            for who in P[:3]:
                market.participants.add(who)
                held = market.take(who, study)
                market.complete(held.submission_id, "C0MPLETE")
                client.judge(held.submission_id, action="APPROVE")
        assert float(100 * total(market.ledger())) == pytest.approx(3 * cents)


def test_lists_come_in_pages_and_there_is_none_past_the_last(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=45)
    for number in range(45):
        market.participants.add(f"person{number}")
        market.take(f"person{number}", study)
    seen, address, sizes = [], f"/submissions/?study={study}", []
    while address:
        page = client.ask("GET", address)
        seen += [one["participant_id"] for one in page["results"]]
        sizes.append(len(page["results"]))
        address = page["_links"]["next"]["href"]
    assert seen == [f"person{number}" for number in range(45)] and sizes == [20, 20, 5]
    assert page["meta"]["count"] == 45
    assert len(client.ask("GET", f"/submissions/?study={study}&page_size=100")["results"]) == 45
    with refused("^404"):
        client.ask("GET", f"/submissions/?study={study}&page=4")
    with refused("study"):
        client.ask("GET", "/submissions/")


def test_many_are_approved_at_once_or_none(market: FakeProlific, client: Client) -> None:
    study = client.make()
    done, under_way = (market.take(who, study).submission_id for who in P[:2])
    market.complete(done, "C0MPLETE")
    asked: dict[str, Any] = {"submission_ids": [done, under_way]}
    with refused("is ACTIVE"):
        client.ask("POST", "/submissions/bulk-approve/", json=asked)
    assert client.submission(done)["status"] == "AWAITING REVIEW"
    client.ask("POST", "/submissions/bulk-approve/", json={"submission_ids": [done, done]})
    client.ask("POST", "/submissions/bulk-approve/", json={"study_id": study, "participant_ids": [P[0]]})
    assert total(market.ledger(), "reward") == Decimal("1.50")


def test_a_rejection_needs_a_reason_of_some_length(market: FakeProlific, client: Client) -> None:
    one = market.take(P[0], client.make()).submission_id
    market.complete(one, "C0MPLETE")
    with refused("message"):
        client.judge(one, action="REJECT", message="no", rejection_category="LOW_EFFORT")
    assert client.judge(one, action="REJECT", message="x" * 100, rejection_category="LOW_EFFORT") == "REJECTED"
    assert market.ledger() == ()


# ------------------------------------------------------------------ what participants see


def test_a_participant_goes_in_and_comes_back_over_http(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=1)
    with httpx.Client(base_url=market.worker_url) as browser:
        assert browser.get("/studies").status_code == 400
        browser.get(f"/signin?participant={P[0]}")
        assert "Compare sounds $1.50" in browser.get("/studies").text
        page = browser.post(f"/studies/{study}/reserve").headers["location"]
        assert "RESERVED" in browser.get(page).text
        way_in = browser.get(f"{page}/open").headers["location"]
        submission = page.removeprefix("/submissions/")
        assert way_in.endswith(f"PROLIFIC_PID={P[0]}&STUDY_ID={study}&SESSION_ID={submission}")
        assert "AWAITING REVIEW" in browser.get("/submissions/complete?cc=C0MPLETE").text
        assert browser.get("/submissions/complete?cc=C0MPLETE").status_code == 400
    with httpx.Client(base_url=market.worker_url) as other:
        other.get(f"/signin?participant={P[1]}")
        assert "Compare sounds" not in other.get("/studies").text
        assert other.post(f"{page}/return").status_code == 400
    assert client.submission(submission)["entered_code"] == "C0MPLETE"


def test_fees_have_fractions_of_a_cent() -> None:
    tariff = FeeSchedule(Fraction("0.428"), Fraction(1, 5))
    assert (tariff.fee(Decimal("0.85")), tariff.tax(Decimal("0.85"))) == (Decimal("0.3638"), Decimal("0.07276"))
    assert FeeSchedule().fee(Decimal("8.50")) == Decimal("2.83333333")
