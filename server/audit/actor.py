"""The person who runs a command, as named in the audit log."""

from __future__ import annotations

import getpass


def current_actor() -> str:
    """The name of the operating system's user who runs this process."""
    try:
        return f"{getpass.getuser()} (command line)"[:64]
    except (OSError, KeyError):
        return "command line"
