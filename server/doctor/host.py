"""What the machine itself shows: secrets, the study's files, backups, disks, the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from server.db.backup import BY_PROVIDER, SUFFIXES, find_backups
from server.doctor.check import DoctorContext, Finding
from server.settings import read_settings
from study.check import check_study

BACKUP_HOURS = 26  # a day, and time to make one
FEW_CHARACTERS = 10
LEAST_BYTES, LEAST_SHARE, LOW_SHARE = 500 * 2**20, 0.05, 0.15
CLOCK_ERROR = 5  # adjtimex: the clock is not synchronised


def check_secrets(case: DoctorContext) -> Iterator[Finding]:
    """ROOTNOTE_SECRET is there, long and no word."""
    mend = "make one with `openssl rand -hex 32`, before the study begins: links and pseudonyms hang on it"
    secret = read_settings(case.study, case.environment).secret
    if len(set(secret)) < FEW_CHARACTERS:
        yield Finding("wrong", "ROOTNOTE_SECRET repeats a few characters and can be guessed.", mend)
    else:
        yield Finding("ok", f"ROOTNOTE_SECRET has {len(secret)} characters.")
    if case.environment.get("ROOTNOTE_DESK_PASSWORD"):
        mend = "unset it: only `rootnote server user` reads it, and whoever reads the environment has it"
        yield Finding("look", "ROOTNOTE_DESK_PASSWORD stands in the server's environment.", mend)


def check_study_files(case: DoctorContext) -> Iterator[Finding]:
    """The study is built, not stale, and its texts are complete."""
    trials = sum(len(trials) for trials in case.plan.lists.values())
    yield Finding("ok", f"{len(case.plan.lists)} lists with {trials:,} trials are built of the present study.toml.")
    for warning in check_study(case.study).warnings:
        unfinished = " is missing" in warning or " to fill in" in warning or "study.contact" in warning
        yield Finding("wrong" if unfinished else "look", warning)


def check_backups(case: DoctorContext) -> Iterator[Finding]:
    """The newest backup is a day old at most, lies elsewhere and is its owner's alone."""
    told = case.environment.get("ROOTNOTE_BACKUPS", "")
    if told == BY_PROVIDER:
        yield Finding("look", "The provider makes the backups, as ROOTNOTE_BACKUPS says.", "restore one, as a trial")
        return
    mend = f"run `rootnote server backup {case.command} --to FOLDER` daily (deploy/systemd has the timer)"
    if not told:
        yield Finding("wrong", "ROOTNOTE_BACKUPS names no folder of backups.", mend)
        return
    folder = Path(told)
    suffix = SUFFIXES[case.settings.database.drivername]
    backups = [path for path in find_backups(folder) if path.suffix == suffix]
    if not backups:
        yield Finding("wrong", f"{folder} holds no backup.", mend)
        return
    newest = backups[0].stat()
    hours = (time.time() - newest.st_mtime) / 3600
    state = "ok" if hours <= BACKUP_HOURS and newest.st_size else "wrong"
    number = "1 backup" if len(backups) == 1 else f"{len(backups)} backups"
    text = f"{number}; the newest, {backups[0].name}, is {_age(hours)} old ({newest.st_size:,} bytes)."
    yield Finding("ok", text) if state == "ok" else Finding("wrong", text, mend)
    if newest.st_mode & 0o077 or folder.stat().st_mode & 0o007:
        yield Finding("wrong", f"Others on this machine may read {folder}.", f"chmod -R go= {folder}")
    if case.on_sqlite and _device(folder) == _device(Path(str(case.settings.database.database)).parent):
        yield Finding("look", "The backups lie on the disk of the answers.", "copy them to another machine too")


def _age(hours: float) -> str:
    if hours < 1:
        return "less than an hour"
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"


def _device(path: Path) -> int | None:
    return path.stat().st_dev if path.exists() else None


def check_disk(case: DoctorContext) -> Iterator[Finding]:
    """There is room where answers, backups and the study lie."""
    folders = {"the study": case.study.folder}
    if case.on_sqlite:
        folders["the answers"] = Path(str(case.settings.database.database)).parent
    if case.environment.get("ROOTNOTE_BACKUPS", BY_PROVIDER) != BY_PROVIDER:
        folders["the backups"] = Path(case.environment["ROOTNOTE_BACKUPS"])
    by_disk = {_device(path): (what, path) for what, path in folders.items() if path.exists()}
    for what, path in by_disk.values():
        usage = shutil.disk_usage(path)
        share = usage.free / usage.total
        text = f"{usage.free / 2**30:.1f} GB ({share:.0%}) are free on the disk of {what}."
        if usage.free < LEAST_BYTES or share < LEAST_SHARE:
            yield Finding("wrong", text, "make room: a full disk stops the study, though no acknowledged answer goes")
        else:
            yield Finding("look" if share < LOW_SHARE else "ok", text)
    if not case.on_sqlite:
        yield Finding("unknown", "The disk of PostgreSQL is not seen from here.", "let its host warn you")


def check_clock(case: DoctorContext) -> Iterator[Finding]:
    """The kernel keeps the clock by others'."""
    if not sys.platform.startswith("linux"):
        yield Finding("unknown", "Whether the clock is kept right is not told on this system.")
        return
    # struct timex, modes 0: only reads; larger than on any architecture.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if state == CLOCK_ERROR:
        mend = "switch on systemd-timesyncd or chrony; leases, sign-ins and signed addresses go by the clock"
        yield Finding("look", "Nothing keeps this machine's clock right, as far as the kernel knows.", mend)
    elif state < 0:
        yield Finding("unknown", f"The clock cannot be asked ({os.strerror(ctypes.get_errno())}).")
    else:
        yield Finding("ok", "The kernel says that the clock is synchronised.")
