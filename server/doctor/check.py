"""What a check finds, and what it is given to look at.

A finding is `ok`; `look`, for a person to judge; `wrong`, which no study should begin with; or `unknown`, where this
machine cannot tell.
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

State = Literal["ok", "look", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One sentence, and where something is to be done, what."""

    state: State
    text: str
    mend: str = ""


@dataclass(frozen=True)
class DoctorContext:
    """The deployment that is looked at."""

    study: Study
    settings: Settings
    environment: Mapping[str, str]

    @property
    def command(self) -> str:
        """The study's folder, as a command in a mend names it."""
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
