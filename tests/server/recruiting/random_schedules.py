"""What both tests of random schedules share: a database that commits fast, and the limits of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


@pytest.fixture
def database_url() -> Iterator[str]:
    """In memory where the machine has such a folder: a thousand schedules commit very often."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield f"sqlite:///{folder}/answers.sqlite3"


def run_schedules(machine: type[RuleBasedStateMachine], schedules: int) -> None:
    health: Any = list(HealthCheck)
    limits = settings(max_examples=schedules, stateful_step_count=30, deadline=None, suppress_health_check=health)
    run_state_machine_as_test(machine, settings=limits)
