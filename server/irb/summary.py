"""The first page: the study in short, and what the board will still ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.irb.blocks import Block, BlockTable, Heading, Points, Section, Text
from server.irb.compensation import outcomes
from server.irb.context import PacketContext
from server.irb.formatting import count, listing, minutes, money
from study.check import PLACEHOLDER
from study.consent_check import missing_elements
from study.languages import LANGUAGES

# What no file of the study tells.
ALWAYS = (
    "the institution, the protocol's number at the board, funding and conflicts of interest",
    "who works on the study, with their training in research ethics",
    "where the server stands (country, provider), who may enter it, and who holds the keys",
    "when answers and backups are destroyed, if there is a date (identities are deleted by the software, see “What "
    "is stored”)",
    "for people in the European Union: the legal basis and the data protection officer",
    "whether any clip has words or sounds that may distress, and the right to play the music",
)


def summary(facts: PacketContext) -> Section:
    """What the study is, in ten lines, and what is missing."""
    config, check = facts.config, facts.check
    info = config.study
    rows = [
        ["Study", info.name],
        ["Researcher", info.researcher or "not said in study.toml"],
        ["Contact", info.contact or "not said in study.toml"],
        ["What people do", f"listen to music and compare; {count(facts.trials, 'trial')}, {minutes(check.minutes)}"],
        ["How many", f"{check.listeners} who finish"],
        ["Where from", facts.advert.where],
        ["Languages", listing([LANGUAGES[code].english for code in info.languages])],
        ["Pay", f"{money(check.reward_usd, config)}, {money(check.hourly_usd, config)} an hour as planned"],
        ["Identifying data", _identifying(facts)],
        ["Recording of participants", "none: no camera, no microphone, no location (the pages forbid them)"],
    ]
    blocks: list[Block] = [
        BlockTable("The study in short", ("", ""), rows),
        Heading("What the board will still ask for"),
    ]
    if found := missing(facts):
        blocks += [Text("Left open by the study's own files:"), Points(found)]
    blocks += [Text("In no file of the study, so to be attached:"), Points(ALWAYS)]
    return Section("The study in short", blocks)


def _identifying(facts: PacketContext) -> str:
    if not facts.config.recruiter.has_arrivals:
        return "no names or ids; a keyed hash of the id in the link, if it has one; free text as participants write it"
    return "the marketplace's worker id, encrypted and apart; free text as participants write it"


def missing(facts: PacketContext) -> list[str]:
    """What the study's files leave open, each in a sentence."""
    config, info = facts.config, facts.config.study
    found = []
    if not info.researcher:
        found.append("Who is responsible: study.researcher in study.toml is empty.")
    if not info.contact:
        found.append("Whom participants can write to: study.contact in study.toml is empty.")
    for code, text in facts.texts.items():
        found += _missing_in(text, code, facts)
    if facts.check.hourly_usd < config.pay.floor_usd_per_hour:
        found.append("Pay: the planned wage is below the study's own floor.")
    if not any(one.source != "simulation" for one in facts.measured):
        found.append("How long it really takes: no time with people was measured yet; a pilot of five tells.")
    if facts.frozen is None:
        found.append("The plan of analysis: it has not been frozen yet (rootnote study freeze).")
    return found


def _missing_in(text: str, code: str, facts: PacketContext) -> list[str]:
    """What a consent text leaves open."""
    found, language = [], LANGUAGES[code].english
    if left := list(dict.fromkeys(PLACEHOLDER.findall(text))):
        found.append(f"Consent ({language}): {listing(left)} to be filled in.")
    if unsaid := missing_elements(text, code):
        found.append(f"Consent ({language}): it seems to say nothing of {listing(unsaid)}.")
    if unnamed := [f"{money(usd, facts.config)} ({how})" for how, usd in _unnamed(text, facts).items()]:
        found.append(f"Consent ({language}): it does not name the pay of study.toml: {listing(unnamed)}.")
    return found


def _unnamed(text: str, facts: PacketContext) -> Mapping[str, float]:
    """The amounts that are paid and that a text does not name, by what they are paid for."""
    named = {float(number.replace(",", ".")) for number in re.findall(r"\d+(?:[.,]\d{1,2})?", text)}
    return {how.lower(): usd for how, usd in outcomes(facts.config) if usd and round(usd, 2) not in named}
