"""The page: the sections as one HTML document that needs no other file, on a screen and on paper."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from server.packet.blocks import Section
from server.packet.compensation import compensation
from server.packet.facts import Facts
from server.packet.keeping import columns, data_flow, security, stored
from server.packet.people import consent, recruitment
from server.packet.plates import screens
from server.packet.protocol import participants, protocol
from server.packet.rights import risks, withdrawal
from server.packet.screens import Picture
from server.packet.summary import summary

SHORT = 12  # characters of a hash, where it only tells two packets apart


def sections(facts: Facts, pictures: Sequence[Picture]) -> list[Section]:
    """The packet's sections in their order."""
    return [
        summary(facts),
        protocol(facts),
        participants(facts),
        recruitment(facts),
        consent(facts),
        compensation(facts),
        risks(facts),
        withdrawal(facts),
        data_flow(facts),
        stored(facts),
        security(facts),
        screens(pictures),
        columns(facts),
    ]


def header(facts: Facts) -> str:
    """What stands above every page."""
    return (
        f"{facts.config.study.name} · study {facts.fingerprint[:SHORT]} · consent {facts.consent_hash[:SHORT]} · "
        f"Rootnote {facts.version}"
    )


def footer(facts: Facts) -> str:
    """What stands below every page."""
    return f"Board packet of {facts.made_at:%Y-%m-%d}, made by rootnote study irb; regenerate it, do not edit it"


def render(facts: Facts, pictures: Sequence[Picture]) -> str:
    """The packet as HTML; the same facts and pictures give the same text."""
    environment = Environment(
        loader=PackageLoader("server.packet"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("packet.html").render(
        facts=facts, sections=sections(facts, pictures), header=header(facts), footer=footer(facts)
    )


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.data).decode()
