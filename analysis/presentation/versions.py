"""Versions: the software that computed the numbers of a report."""

from __future__ import annotations

import platform
from importlib.metadata import version

from embeddings.version import VERSION


def versions(*packages: str) -> dict[str, str]:
    """The versions of Rootnote, Python, the packages that every analysis uses, and the packages named."""
    names = ("numpy", "pandas", "scipy", "matplotlib", *packages)
    return {"Rootnote": VERSION, "Python": platform.python_version()} | {name: version(name) for name in names}
