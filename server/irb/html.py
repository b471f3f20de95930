"""The packet as one self-contained HTML document, for screen and print."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from server.irb.blocks import Section
from server.irb.compensation import compensation
from server.irb.context import PacketContext
from server.irb.data_protection import columns, data_flow, security, stored
from server.irb.protocol import participants, protocol
from server.irb.recruitment_consent import consent, recruitment
from server.irb.risks import risks, withdrawal
from server.irb.screen_list import Picture
from server.irb.screenshot_pages import screens
from server.irb.summary import summary
from server.irb.templating import environment

SHORT = 12  # characters of a hash that distinguish two packets


def sections(facts: PacketContext, pictures: Sequence[Picture]) -> list[Section]:
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


def header(facts: PacketContext) -> str:
    """The header of every page."""
    return (
        f"{facts.config.study.name} · study {facts.fingerprint[:SHORT]} · consent {facts.consent_hash[:SHORT]} · "
        f"Rootnote {facts.version}"
    )


def footer(facts: PacketContext) -> str:
    """The footer of every page."""
    return f"Board packet of {facts.made_at:%Y-%m-%d}, made with rootnote study irb. To change it, change the study."


def render(facts: PacketContext, pictures: Sequence[Picture]) -> str:
    """The packet as HTML; the same facts and pictures give the same text."""
    template = environment().get_template("packet.html")
    return template.render(
        facts=facts,
        sections=sections(facts, pictures),
        header=header(facts),
        footer=footer(facts),
        data_uri=_data_uri,
    )


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.data).decode()
