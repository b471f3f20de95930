"""The input of a check, and its findings.

A finding is `ok`; a `warning`, for a person to judge; an `error`, which must be fixed before listeners come; or
`unknown`, if this machine cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sqlalchemy import Engine

from server.db import database
from server.settings import Settings
from study.config import Study
from study.stimuli.storage import Storage, open_storage
from study.trial_plan import Plan, read_plan

Level = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The finding of a check, as one sentence, and how to fix it ("" if there is nothing to do)."""

    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True)
class DoctorContext:
    """The deployment to check."""

    study: Study
    settings: Settings
    environment: Mapping[str, str]

    @property
    def folder(self) -> str:
        """The study's folder, as an argument in suggested commands."""
        return str(self.study.folder)

    @cached_property
    def plan(self) -> Plan:
        return read_plan(self.study)

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.study)

    @cached_property
    def engine(self) -> Engine:
        return database.connect(self.settings.database)

    @property
    def on_sqlite(self) -> bool:
        return self.settings.database.drivername == "sqlite"


Check = Callable[[DoctorContext], Iterator[Finding]]
