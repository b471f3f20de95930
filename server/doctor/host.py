"""Checks of the machine: secrets, the study's files, backups, disks, the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from embeddings.wording import counted
from server.db.backup import BY_PROVIDER, SUFFIXES, find_backups
from server.doctor.check import DoctorContext, Finding, Level
from server.settings import read_settings
from study.check import check_study

MAX_BACKUP_HOURS = 26  # a day, and time to make one
MIN_DISTINCT_CHARACTERS = 10
MIN_FREE_BYTES, MIN_FREE_SHARE, LOW_FREE_SHARE = 500 * 2**20, 0.05, 0.15
UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def check_secrets(deployment: DoctorContext) -> Iterator[Finding]:
    """ROOTNOTE_SECRET is set, long and random."""
    fix = "make one with `openssl rand -hex 32` before the study starts; links and pseudonyms depend on it"
    secret = read_settings(deployment.study, deployment.environment).secret
    if len(set(secret)) < MIN_DISTINCT_CHARACTERS:
        yield Finding("error", "ROOTNOTE_SECRET repeats a few characters and can be guessed.", fix)
    else:
        yield Finding("ok", f"ROOTNOTE_SECRET has {len(secret)} characters.")
    if deployment.environment.get("ROOTNOTE_DESK_PASSWORD"):
        fix = "unset it: only `rootnote server user` needs it, and anyone who reads the environment can read it"
        yield Finding("warning", "ROOTNOTE_DESK_PASSWORD is set in the server's environment.", fix)


def check_study_files(deployment: DoctorContext) -> Iterator[Finding]:
    """The study is built and up to date, and its texts are complete."""
    trials = sum(len(trials) for trials in deployment.plan.lists.values())
    yield Finding(
        "ok",
        f"{counted(len(deployment.plan.lists), 'list')} with {counted(trials, 'trial')}, "
        "built from the current study.toml.",
    )
    for warning in check_study(deployment.study).warnings:
        unfinished = " is missing" in warning or " to fill in" in warning or "study.contact" in warning
        yield Finding("error" if unfinished else "warning", warning)


def check_backups(deployment: DoctorContext) -> Iterator[Finding]:
    """The newest backup is at most a day old, on another disk, and readable by its owner only."""
    setting = deployment.environment.get("ROOTNOTE_BACKUPS", "")
    if setting == BY_PROVIDER:
        yield Finding(
            "warning", "ROOTNOTE_BACKUPS says that the database provider makes the backups.", "try to restore one"
        )
        return
    fix = f"run `rootnote server backup {deployment.folder} --to FOLDER` daily (deploy/systemd has the timer)"
    if not setting:
        yield Finding("error", "ROOTNOTE_BACKUPS is not set, so the folder for backups is unknown.", fix)
        return
    folder = Path(setting)
    suffix = SUFFIXES[deployment.settings.database.drivername]
    backups = [path for path in find_backups(folder) if path.suffix == suffix]
    if not backups:
        yield Finding("error", f"{folder} contains no backup.", fix)
        return
    newest = backups[0].stat()
    hours = (time.time() - newest.st_mtime) / 3600
    level: Level = "ok" if hours <= MAX_BACKUP_HOURS and newest.st_size else "error"
    backups_text, size = counted(len(backups), "backup"), counted(newest.st_size, "byte")
    text = f"{backups_text}; the newest, {backups[0].name}, is {_age(hours)} old ({size})."
    yield Finding(level, text, "" if level == "ok" else fix)
    if newest.st_mode & 0o077 or folder.stat().st_mode & 0o007:
        yield Finding("error", f"Other users of this machine can read {folder}.", f"chmod -R go= {folder}")
    if deployment.on_sqlite and _device(folder) == _device(Path(str(deployment.settings.database.database)).parent):
        yield Finding(
            "warning", "The backups are on the same disk as the answers.", "copy them to another machine as well"
        )


def _age(hours: float) -> str:
    if hours < 1:
        return "less than an hour"
    return counted(round(hours), "hour") if hours < 72 else counted(round(hours / 24), "day")


def _device(path: Path) -> int | None:
    return path.stat().st_dev if path.exists() else None


def check_disk(deployment: DoctorContext) -> Iterator[Finding]:
    """The disks of the study, the answers and the backups have free space."""
    folders = {"the study": deployment.study.folder}
    if deployment.on_sqlite:
        folders["the answers"] = Path(str(deployment.settings.database.database)).parent
    if deployment.environment.get("ROOTNOTE_BACKUPS", BY_PROVIDER) != BY_PROVIDER:
        folders["the backups"] = Path(deployment.environment["ROOTNOTE_BACKUPS"])
    by_disk = {_device(path): (what, path) for what, path in folders.items() if path.exists()}
    for what, path in by_disk.values():
        usage = shutil.disk_usage(path)
        share = usage.free / usage.total
        text = f"{usage.free / 2**30:.1f} GB ({share:.0%}) free on the disk of {what}."
        if usage.free < MIN_FREE_BYTES or share < MIN_FREE_SHARE:
            yield Finding(
                "error", text, "make room: a full disk stops the study, although no acknowledged answer is lost"
            )
        else:
            yield Finding("warning" if share < LOW_FREE_SHARE else "ok", text)
    if not deployment.on_sqlite:
        yield Finding("unknown", "PostgreSQL's disk cannot be checked from here.", "monitor it on its host")


def check_clock(deployment: DoctorContext) -> Iterator[Finding]:
    """The kernel reports that the clock is synchronised."""
    if not sys.platform.startswith("linux"):
        yield Finding("unknown", "This system does not report whether the clock is synchronised.")
        return
    # A struct timex with modes 0 only reads; the buffer is larger than the struct on any architecture.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if state == UNSYNCHRONISED:
        fix = "enable systemd-timesyncd or chrony; reservations, sign-ins and signed addresses depend on the clock"
        yield Finding("warning", "The kernel reports that the clock is not synchronised.", fix)
    elif state < 0:
        yield Finding("unknown", f"The state of the clock cannot be read ({os.strerror(ctypes.get_errno())}).")
    else:
        yield Finding("ok", "The kernel reports that the clock is synchronised.")
