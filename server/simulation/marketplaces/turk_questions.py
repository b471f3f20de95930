"""The question of a HIT: an address that workers see in a frame, or HTML that Mechanical Turk itself shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.parsers import expat

from server.simulation.marketplaces.turk_places import FakeMTurkError
from server.web.loopback import is_loopback

QUESTION_BYTES = 65_535
SCHEMAS = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas"
CONTENTS = {
    f"{{{SCHEMAS}/2006-07-14/ExternalQuestion.xsd}}ExternalQuestion": "ExternalURL",
    f"{{{SCHEMAS}/2011-11-11/HTMLQuestion.xsd}}HTMLQuestion": "HTMLContent",
}


@dataclass(frozen=True)
class HitQuestion:
    """What the frame of a HIT shows: the page at `url`, or `html`; one of them is empty."""

    url: str = ""
    html: str = ""


def read_question(text: str) -> HitQuestion:
    """Read an ExternalQuestion or HTMLQuestion.

    Raises:
        FakeMTurkError: if the question is not valid, is too long, or its address is not https (or on this machine).
    """
    if len(text.encode()) > QUESTION_BYTES:
        raise FakeMTurkError("ParameterValidationError", f"Question must not be longer than {QUESTION_BYTES} bytes.")
    root = _parse(text)
    kind, schema = root.tag.rpartition("}")[2], root.tag.rpartition("}")[0] + "}"
    content = CONTENTS.get(root.tag)
    if content is None or [element.tag for element in root] != [f"{schema}{content}", f"{schema}FrameHeight"]:
        raise FakeMTurkError("XMLParseError", f"The question is not a valid {kind}.")
    shown, height = (str(element.text or "").strip() for element in root)
    if not re.fullmatch(r"[0-9]{1,5}", height):
        raise FakeMTurkError("XMLParseError", "FrameHeight must be a number of pixels.")
    if content == "HTMLContent":
        return HitQuestion(html=shown)
    parts = urlsplit(shown)
    if not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))) or not parts.netloc:
        raise FakeMTurkError("ParameterValidationError", "ExternalURL must be an https address.")
    return HitQuestion(url=shown)


def _parse(text: str) -> ElementTree.Element:
    """The XML of a question; a document type is refused, so there are no entities (in CDATA it is only text)."""

    def refuse(*_: Any) -> None:
        raise FakeMTurkError("XMLParseError", "The question must not have a document type.")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
        return ElementTree.fromstring(text)  # noqa: S314 (no document type, so no entities)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise FakeMTurkError("XMLParseError", f"There was an error parsing the XML question: {error}.") from None
