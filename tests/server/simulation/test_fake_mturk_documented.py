"""What AWS documents and another client relies on: scores of qualifications, their deletion, questions in HTML."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.simulation.fake_mturk import FakeMTurk
from tests.server.simulation.test_fake_mturk import TYPE, _session, client, gate, market, refused

__all__ = ["client", "market"]
HTML = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2011-11-11/HTMLQuestion.xsd"
PAGE = "<!DOCTYPE html><html><body><h1>Payment</h1><form></form></body></html>"


def html_question(content: str, before: str = "") -> str:
    return (
        f'{before}<HTMLQuestion xmlns="{HTML}"><HTMLContent>{content}</HTMLContent>'
        "<FrameHeight>600</FrameHeight></HTMLQuestion>"
    )


def test_a_revoked_qualification_has_no_score_and_a_deleted_type_is_gone(market: FakeMTurk, client: Any) -> None:
    made = client.create_qualification_type(Name="Took part", Description="d", QualificationTypeStatus="Active")
    kind = made["QualificationType"]["QualificationTypeId"]
    worker = {"QualificationTypeId": kind, "WorkerId": "A1"}
    with refused("QualificationDoesNotExist"):
        client.get_qualification_score(**worker)
    client.associate_qualification_with_worker(**worker, IntegerValue=7, SendNotification=False)
    assert client.get_qualification_score(**worker)["Qualification"]["IntegerValue"] == 7
    client.disassociate_qualification_from_worker(**worker)
    with refused("InvalidQualificationState"):
        client.get_qualification_score(**worker)
    client.associate_qualification_with_worker(**worker, IntegerValue=8, SendNotification=False)
    client.delete_qualification_type(QualificationTypeId=kind)
    assert client.list_qualification_types(MustBeRequestable=False)["QualificationTypes"] == []
    for gone in (client.get_qualification_score, client.associate_qualification_with_worker):
        with refused("QualificationTypeDoesNotExist"):
            gone(**worker)
    with refused("QualificationTypeDoesNotExist"):
        client.delete_qualification_type(QualificationTypeId=kind)
    with refused("QualificationTypeDoesNotExist"):
        client.create_hit_type(**TYPE, QualificationRequirements=[gate(kind, "Exists")])
    client.create_qualification_type(Name="Took part", Description="d", QualificationTypeStatus="Active")


def test_a_question_in_html_is_shown_in_the_frame(market: FakeMTurk, client: Any) -> None:
    kind = client.create_hit_type(**TYPE)["HITTypeId"]
    question = html_question(f"<![CDATA[{PAGE}]]>")
    made = client.create_hit_with_hit_type(HITTypeId=kind, LifetimeInSeconds=7200, Question=question)
    held = market.accept("A1", made["HIT"]["HITId"])
    assert f"assignmentId={held.assignment_id}" in held.external_url
    assert httpx.get(held.external_url).text == PAGE


@pytest.mark.parametrize(
    "question",
    [
        html_question("x", before='<!DOCTYPE a [<!ENTITY e "x">]>'),
        html_question("&unknown;"),
        html_question("x").replace("600", "high"),
        html_question("x").replace("HTMLContent", "ExternalURL"),
    ],
)
def test_a_question_that_is_not_valid(client: Any, question: str) -> None:
    kind = client.create_hit_type(**TYPE)["HITTypeId"]
    with refused("XMLParseError"):
        client.create_hit_with_hit_type(HITTypeId=kind, LifetimeInSeconds=7200, Question=question)
    assert client.list_hits()["HITs"] == []


def test_a_key_that_cannot_be_one(market: FakeMTurk) -> None:
    other = _session.client(
        "mturk", endpoint_url=market.url, aws_access_key_id="no key", aws_secret_access_key="no secret"
    )
    with refused("UnrecognizedClientException"):
        other.get_account_balance()
    other.close()
