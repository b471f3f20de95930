"""Keeping: where data flow, what is stored for how long, and how it is secured."""

from __future__ import annotations

from typing import get_args

from server.commands.backup import KEPT_BACKUPS
from server.irb.blocks import Block, BlockTable, Drawing, Heading, Points, Section, Text
from server.irb.context import PacketContext
from server.irb.data_flow import draw, in_words
from server.privacy.data_inventory import Retention, retention_period
from server.privacy.storage_locations import storage_locations
from server.privacy.table_inventory import TABLES
from study.config import StudyConfig


def data_flow(facts: PacketContext) -> Section:
    """The diagram, and the same in words."""
    config = facts.config
    return Section("Data flow", [Drawing(draw(config)), Text("The same in words:"), Points(in_words(config))])


def stored(facts: PacketContext) -> Section:
    """Every table with every column, and what lies elsewhere."""
    config = facts.config
    blocks: list[Block] = [
        Text(
            "This list is complete: a test of the software compares it with the tables that the program makes. Every "
            "column of them is in the appendix. The software calls participants listeners. All "
            "tables lie in one database, on the host of the study."
        ),
        BlockTable(
            "Tables of the database",
            ("Table", "What it holds", "About", "Kept as", "Seen by"),
            [[name, table.content, table.subject, table.retention, table.readers] for name, table in TABLES.items()],
        ),
        BlockTable(
            "How long",
            ("Kept as", "What, and how long"),
            [[retention, retention_period(retention, config)] for retention in get_args(Retention)],
        ),
        BlockTable(
            "Outside the database",
            ("Where", "What", "Tells who", "Kept", "Seen by"),
            [
                [place.name, place.content, place.identifiability.description, place.retention, place.readers]
                for place in storage_locations(config)
            ],
        ),
    ]
    return Section("What is stored, where and for how long", blocks)


def columns(facts: PacketContext) -> Section:
    """Every column of every table."""
    rows = [
        [f"{name}.{column}", about.content, about.identifiability.description]
        for name, table in TABLES.items()
        for column, about in table.columns.items()
    ]
    return Section(
        "Appendix: every column of the database",
        [
            Text("“Identifies a person, or may” marks what identifies by itself, or may do so, like free text."),
            BlockTable("Columns", ("Table and column", "What it holds", "Tells who"), rows, dense=True),
        ],
    )


def security(facts: PacketContext) -> Section:
    """What the code does; what the host does is for who runs it to say."""
    return Section(
        "Data security",
        [
            Heading("What the software does"),
            Points(_built_in(facts.config)),
            Heading("What the place where it runs must do"),
            Points(
                [
                    "Serve by https only (rootnote server doctor looks at certificate, headers and redirects).",
                    "Keep the server's secret and the vault's key outside the database, readable by few.",
                    f"Make backups and keep them as safe as the database (rootnote server backup keeps "
                    f"{KEPT_BACKUPS}).",
                    "Use the two database roles that come with it, so that the web server can neither drop nor alter "
                    "tables.",
                ]
            ),
            Text(
                "docs/security.md has the threat model, and every item of OWASP ASVS 5.0, levels 1 and 2, with the "
                "test that shows it or the reason why it is not met."
            ),
        ],
    )


def _built_in(config: StudyConfig) -> list[str]:
    points = [
        "Everything is kept under random pseudonyms; the address of a participant's page is a random secret of 256 "
        "bits, of which the database has only a hash.",
        "No cookies for participants, nothing loaded from elsewhere, no network addresses in the database or logs, a "
        "content security policy without exceptions.",
        "Researchers sign in with a password (argon2id) and a second factor where it is set up or required; attempts "
        "are limited. Each has a role: a monitor sees progress, and neither listeners nor results.",
        "What researchers and commands do is written to a log that the database lets nobody change; each entry is "
        "chained to the one before and sealed, so that any edit is found (rootnote server audit --verify).",
        "Exports hold pseudonyms only, no completion codes, and carry hashes by which an edited file is told.",
    ]
    if config.recruiter.has_arrivals:
        points.insert(
            1,
            "Worker ids, which paying needs, lie in one table, encrypted (Fernet: AES-128-CBC with HMAC-SHA-256) under "
            "a key that is not in the database.",
        )
    if config.storage.stimuli:
        points.append(
            f"The clips lie in a private bucket; the address of one works for {config.storage.seconds} seconds."
        )
    return points
