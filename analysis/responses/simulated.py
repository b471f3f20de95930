"""Responses of simulated listeners, which every report must mark as such.

They are recognised by export.json or by their location: `rootnote server export --rehearsal` writes into the folder
`rehearsal` of a study.
"""

from __future__ import annotations

from pathlib import Path

from embeddings.errors import RootnoteError
from study.export_manifest import read_manifest

FOLDER = "rehearsal"
SIMULATED_NOTICE = (
    "These responses come from a rehearsal: the listeners are simulated. They show what a report of this study looks "
    "like, but tell you nothing about real people."
)


def is_simulated(responses: Path) -> bool:
    """Whether the listeners of this file are simulated."""
    folder = responses.resolve().parent
    try:
        exported = read_manifest(folder)
    except RootnoteError:
        exported = None  # analysis.preregistration.deviations reports a damaged manifest
    in_rehearsal = folder.name == FOLDER and (folder.parent / "study.toml").is_file()
    return in_rehearsal or (exported is not None and exported.rehearsal)
