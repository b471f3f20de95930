"""`rootnote server`: run a study on the web, recruit and pay listeners, export responses."""

from __future__ import annotations

import click

from embeddings.lazy_group import LazyGroup

_COMMANDS = "server.commands"
SECTIONS = {
    "Launch": {
        "migrate": (f"{_COMMANDS}.serve:migrate", "Create or update the database tables."),
        "run": (f"{_COMMANDS}.serve:run", "Serve the study to listeners."),
        "links": (f"{_COMMANDS}.serve:links", "Print links, one for each listener."),
        "rehearse": ("server.simulation.cli:rehearse", "Send simulated listeners through the study."),
        "open": (f"{_COMMANDS}.recruiting:open_", "Open the study at the marketplace."),
        "status": (f"{_COMMANDS}.status:status", "Show how many listeners are at each stage, and what was paid."),
        "sync": (f"{_COMMANDS}.recruiting:sync_", "Fetch submissions from the marketplace; approve complete ones."),
        "close": (f"{_COMMANDS}.recruiting:close", "Stop recruiting."),
        "webhooks": (f"{_COMMANDS}.webhooks:webhooks", "Let the marketplace tell the server at once what changed."),
    },
    "Money": {
        "approve": (f"{_COMMANDS}.recruiting:approve", "Approve submissions at the marketplace."),
        "pay": (f"{_COMMANDS}.recruiting:pay", "Send outstanding payments and bonuses."),
        "callbacks": (
            f"{_COMMANDS}.callbacks:callbacks",
            "List the calls to a panel's server.",
        ),
        "confirm": (f"{_COMMANDS}.recruiting:confirm", "Confirm a run that the marketplace has not listed."),
        "codes": (f"{_COMMANDS}.data:codes", "Print completion codes with outcome and pay, as CSV."),
    },
    "Data": {
        "export": (f"{_COMMANDS}.data:export", "Write the responses as CSV and Parquet, under pseudonyms."),
        "anonymize": ("server.public_release.cli:anonymize", "Make an anonymous public release of the data."),
        "audit": (f"{_COMMANDS}.audit:audit", "Show or verify the log of what researchers did."),
    },
    "Privacy": {
        "erase": (f"{_COMMANDS}.privacy:erase", "Delete one listener's answers on request."),
        "disclose": (f"{_COMMANDS}.privacy:disclose", "Write everything stored about one person, as JSON."),
        "purge": (f"{_COMMANDS}.privacy:purge", "Delete listeners' identities when that is due."),
        "consents": (f"{_COMMANDS}.audit:consents_", "List the versions of the consent text that were shown."),
        "vault": (f"{_COMMANDS}.vault:vault", "Manage the key that encrypts marketplace ids."),
    },
    "Maintenance": {
        "user": (f"{_COMMANDS}.users:user", "Manage who may sign in to the researcher's desk."),
        "backup": (f"{_COMMANDS}.backup:backup", "Back up the database into one verified file."),
        "restore": (f"{_COMMANDS}.backup:restore", "Restore a backup into an empty database."),
        "doctor": ("server.doctor.cli:doctor", "Check this deployment and show how to fix what is wrong."),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def cli() -> None:
    """Serve the study to listeners, recruit and pay them, export responses."""
