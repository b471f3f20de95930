"""Data protection: where data flow, what is stored for how long, and how it is secured."""

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
    """The diagram, and the same in sentences."""
    config = facts.config
    return Section("Data flow", [Drawing(draw(config)), Text("The diagram in words:"), Points(in_words(config))])


def stored(facts: PacketContext) -> Section:
    """Every table, and the data outside the database."""
    config = facts.config
    blocks: list[Block] = [
        Text(
            "This list is complete: an automated test compares it with the tables that the program creates. The "
            "appendix lists every column. The software calls participants listeners. All tables are in one database "
            "on the study's host."
        ),
        BlockTable(
            "Tables of the database",
            ("Table", "Content", "About", "Retention class", "Access"),
            [[name, table.content, table.subject, table.retention, table.readers] for name, table in TABLES.items()],
        ),
        BlockTable(
            "Retention",
            ("Retention class", "Data and period"),
            [[retention, retention_period(retention, config)] for retention in get_args(Retention)],
        ),
        BlockTable(
            "Outside the database",
            ("Place", "Content", "Identifiability", "Retention", "Access"),
            [
                [place.name, place.content, place.identifiability.description, place.retention, place.readers]
                for place in storage_locations(config)
            ],
        ),
    ]
    return Section("Stored data", blocks)


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
            Text(
                "“Identifies or can identify a person” marks data that identify a person directly, and free text, "
                "which can."
            ),
            BlockTable("Columns", ("Table and column", "Content", "Identifiability"), rows, dense=True),
        ],
    )


def security(facts: PacketContext) -> Section:
    """The measures in the software, and those that the host needs."""
    return Section(
        "Data security",
        [
            Heading("Measures in the software"),
            Points(_built_in(facts.config)),
            Heading("Measures that the host needs"),
            Points(
                [
                    "Serve the study over HTTPS only (rootnote server doctor checks certificate, headers and "
                    "redirects).",
                    "Keep the server's secret and the vault key outside the database, and limit access to them.",
                    f"Make backups and protect them like the database (rootnote server backup keeps {KEPT_BACKUPS}).",
                    "Use the two database roles that Rootnote provides, so that the web server cannot drop or alter "
                    "tables.",
                ]
            ),
            Text(
                "docs/security.md contains the threat model and lists every item of OWASP ASVS 5.0, levels 1 and 2, "
                "with the test that verifies it or the reason why it is not met."
            ),
        ],
    )


def _built_in(config: StudyConfig) -> list[str]:
    points = [
        "All data are stored under random pseudonyms. The address of a participant's page contains a random 256-bit "
        "secret; the database stores only its hash.",
        "Participants get no cookies. Pages load nothing from other sites, no IP addresses are stored in the database "
        "or logs, and the content security policy has no exceptions.",
        "Researchers sign in with a password (argon2id) and a second factor where it is set up or required. Sign-in "
        "attempts are limited. Each researcher has a role: a monitor sees progress, but neither listeners nor results.",
        "The actions of researchers and commands are recorded in a log that the database protects from changes. Each "
        "entry is chained to the previous one and sealed, so any edit is detected (rootnote server audit --verify).",
        "Each saved answer is sealed, so an edited, moved or deleted one is detected by the same command.",
        "Exports contain pseudonyms and no completion codes, and include hashes that reveal an edited file.",
    ]
    if config.recruiter.has_arrivals:
        points.insert(
            1,
            "Worker ids, which payments need, are in one table, encrypted (Fernet: AES-128-CBC with HMAC-SHA-256) with "
            "a key that is not in the database.",
        )
    if config.storage.stimuli:
        points.append(
            f"The clips are in a private bucket. The address of a clip is valid for {config.storage.seconds} seconds."
        )
    return points
