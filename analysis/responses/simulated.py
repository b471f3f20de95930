"""Rehearsed responses: those of simulated listeners, which say nothing of people, so every report of them says so.

They are told by the export's own account (export.json), or by where `rootnote server export --rehearsal` writes: the
folder `rehearsal` of a study.
"""

from __future__ import annotations

from pathlib import Path

from embeddings.errors import RootnoteError
from study.export_manifest import read_manifest

FOLDER = "rehearsal"
SAID = (
    "These responses come from a rehearsal: the listeners are simulated, and nothing here says anything of people. "
    "It shows what a report of this study would look like."
)


def is_simulated(responses: Path) -> bool:
    """Whether the answers in this file are of simulated listeners."""
    folder = responses.resolve().parent
    try:
        exported = read_manifest(folder)
    except RootnoteError:
        exported = None  # a damaged account is told of elsewhere
    in_rehearsal = folder.name == FOLDER and (folder.parent / "study.toml").is_file()
    return in_rehearsal or (exported is not None and exported.rehearsal)
