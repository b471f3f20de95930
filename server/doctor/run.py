"""All checks by name. A check that fails to run is a finding as well."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from server.doctor.check import Check, DoctorContext, Finding

# Check -> "module:function", in the order in which they run.
CHECKS = {
    "secrets": "server.doctor.host:check_secrets",
    "study": "server.doctor.host:check_study_files",
    "stimuli": "server.doctor.web:check_stimuli",
    "database": "server.doctor.database:check_database",
    "role": "server.doctor.database:check_role",
    "desk": "server.doctor.accounts:check_desk",
    "identities": "server.doctor.vault:check_identities",
    "rights": "server.doctor.privacy:check_rights",
    "log": "server.doctor.privacy:check_log",
    "backups": "server.doctor.host:check_backups",
    "address": "server.doctor.web:check_address",
    "clock": "server.doctor.host:check_clock",
    "disk": "server.doctor.host:check_disk",
}


def run_checks(deployment: DoctorContext, skip: Collection[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Run the checks; yields every finding with the name of its check."""
    try:
        for name, target in CHECKS.items():
            if name not in skip:
                yield from ((name, finding) for finding in _findings(deployment, _load(target)))
    finally:
        deployment.engine.dispose()


def _load(target: str) -> Check:
    module, _, function = target.partition(":")
    check: Check = getattr(importlib.import_module(module), function)
    return check


def _findings(deployment: DoctorContext, check: Check) -> Iterator[Finding]:
    from server.doctor.check import Finding

    try:
        yield from check(deployment)
    except RootnoteError as error:
        yield Finding("error", _sentence(str(error)))
    except Exception as error:
        # A check that fails must not hide what the others find; a driver's message may contain a password.
        yield Finding("error", f"This check failed ({type(error).__name__}).")


def _sentence(message: str) -> str:
    return message[0].upper() + message[1:]
