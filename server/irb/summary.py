"""The first page: the study in brief, and what is missing for the board."""

from __future__ import annotations

import re
from collections.abc import Mapping

from embeddings.wording import counted
from server.irb.blocks import Block, BlockTable, Heading, Points, Section, Text
from server.irb.compensation import outcomes
from server.irb.context import PacketContext
from server.irb.formatting import listing, minutes, money
from study.check import PLACEHOLDER
from study.consent_check import missing_elements
from study.languages import LANGUAGES

# What no file of the study contains.
ALWAYS = (
    "the institution, the board's protocol number, funding and conflicts of interest",
    "the study team, with their training in research ethics",
    "where the server is (country, provider), who has access to it, and who holds the keys",
    "when responses and backups will be destroyed, if there is a date (the software deletes identities, see “Stored "
    "data”)",
    "for people in the European Union: the legal basis and the data protection officer",
    "whether any clip contains distressing words or sounds, and the right to play the music",
)


def summary(facts: PacketContext) -> Section:
    """The study in ten lines, and what is missing."""
    config, check = facts.config, facts.check
    info = config.study
    rows = [
        ["Study", info.name],
        ["Researcher", info.researcher or "not given in study.toml"],
        ["Contact", info.contact or "not given in study.toml"],
        ["Task", f"listen to music and compare; {counted(facts.trials, 'trial')}, {minutes(check.minutes)}"],
        ["Participants", f"{check.listeners:,} who finish"],
        ["Recruited from", facts.advert.where],
        ["Languages", listing([LANGUAGES[code].english for code in info.languages])],
        ["Pay", f"{money(check.reward_usd, config)}, {money(check.hourly_usd, config)} per hour as planned"],
        ["Identifying data", _identifying(facts)],
        ["Recording of participants", "none: the pages block camera, microphone and location"],
    ]
    blocks: list[Block] = [
        BlockTable("The study in brief", ("", ""), rows),
        Heading("Still missing for the board"),
    ]
    if found := missing(facts):
        blocks += [Text("Missing in the study's files:"), Points(found)]
    blocks += [Text("Not in any file of the study; please attach:"), Points(ALWAYS)]
    return Section("The study in brief", blocks)


def _identifying(facts: PacketContext) -> str:
    if not facts.config.recruiter.has_arrivals:
        return (
            "no names or ids; a keyed hash of the id in the link, if there is one; free text as participants write it"
        )
    return "the marketplace's worker id, encrypted and stored separately; free text as participants write it"


def missing(facts: PacketContext) -> list[str]:
    """The gaps in the study's files, one sentence each."""
    config, info = facts.config, facts.config.study
    found = []
    if not info.researcher:
        found.append("The responsible researcher: study.researcher in study.toml is empty.")
    if not info.contact:
        found.append("A contact for participants: study.contact in study.toml is empty.")
    for code, text in facts.texts.items():
        found += _missing_in(text, code, facts)
    if facts.check.hourly_usd < config.pay.floor_per_hour:
        found.append("Pay: the planned hourly wage is below the study's own minimum.")
    if not any(one.source != "simulation" for one in facts.measured):
        found.append("The real duration: it has not been measured with people yet; a pilot with five people is enough.")
    if facts.frozen is None:
        found.append("The analysis plan: it has not been frozen yet (rootnote study freeze).")
    return found


def _missing_in(text: str, code: str, facts: PacketContext) -> list[str]:
    """The gaps in a consent text."""
    found, language = [], LANGUAGES[code].english
    if left := list(dict.fromkeys(PLACEHOLDER.findall(text))):
        found.append(f"Consent ({language}): {listing(left)} must be filled in.")
    if unsaid := missing_elements(text, code):
        found.append(f"Consent ({language}): it does not seem to mention {listing(unsaid)}.")
    if unnamed := [f"{money(usd, facts.config)} ({how})" for how, usd in _unnamed(text, facts).items()]:
        found.append(f"Consent ({language}): it does not mention these amounts of study.toml: {listing(unnamed)}.")
    return found


def _unnamed(text: str, facts: PacketContext) -> Mapping[str, float]:
    """The amounts that a text does not mention, by what they are paid for."""
    named = {float(number.replace(",", ".")) for number in re.findall(r"\d+(?:[.,]\d{1,2})?", text)}
    return {how.lower(): usd for how, usd in outcomes(facts.config) if usd and round(usd, 2) not in named}
