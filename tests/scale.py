"""How much a test does: small counts in `make test`, full counts in `make soak` (pytest --soak)."""

from __future__ import annotations

import os

VARIABLE = "ROOTNOTE_TEST_SOAK"  # set by tests/conftest.py before any test module is imported


def is_soak() -> bool:
    """Whether this run does full counts."""
    return os.environ.get(VARIABLE) == "1"


def count(small: int, soak: int) -> int:
    """A number of examples, crash points, listeners, simulations ...: `small` in `make test`, `soak` in `make soak`."""
    return soak if is_soak() else small
