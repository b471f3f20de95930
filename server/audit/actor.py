"""The commander: who gives a command, as the log names them."""

from __future__ import annotations

import getpass


def current_actor() -> str:
    """The name of the user who runs this process."""
    try:
        return f"{getpass.getuser()} (command line)"[:64]
    except (OSError, KeyError):
        return "command line"
