"""All checks, by name, one after the other; one that breaks down is a finding too."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from embeddings.errors import RootnoteError
from server.doctor.accounts import check_desk
from server.doctor.check import Check, DoctorContext, Finding
from server.doctor.database import check_database, check_role
from server.doctor.host import check_backups, check_clock, check_disk, check_secrets, check_study_files
from server.doctor.privacy import check_log, check_rights
from server.doctor.vault import check_identities
from server.doctor.web import check_address, check_stimuli

CHECKS: dict[str, Check] = {
    "secrets": check_secrets,
    "study": check_study_files,
    "stimuli": check_stimuli,
    "database": check_database,
    "role": check_role,
    "desk": check_desk,
    "identities": check_identities,
    "rights": check_rights,
    "log": check_log,
    "backups": check_backups,
    "address": check_address,
    "clock": check_clock,
    "disk": check_disk,
}


def run_checks(case: DoctorContext, skip: Collection[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Every finding with the name of its check, as it is found."""
    try:
        for name, check in CHECKS.items():
            if name not in skip:
                yield from ((name, finding) for finding in _findings(case, check))
    finally:
        case.engine.dispose()


def _findings(case: DoctorContext, check: Check) -> Iterator[Finding]:
    try:
        yield from check(case)
    except RootnoteError as error:
        yield Finding("wrong", _sentence(str(error)))
    except Exception as error:
        # One check that cannot be made must not hide what the others find; a driver's words may hold a password.
        yield Finding("wrong", f"This could not be looked at ({type(error).__name__}).")


def _sentence(message: str) -> str:
    return message[0].upper() + message[1:]
