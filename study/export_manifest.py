"""The manifest of an export: export.json, next to the exported files, with their SHA-256.

The server writes it and the analysis reads it; a file with another hash was edited after the export.
Conventions: hashes are hex; `arrived` counts page views, not people: of the information ("informed") or of the notice
that no place is free ("not_let_in"); `withheld` are dotted settings of study.toml that a public release leaves out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance, read_json, write_json

MANIFEST = "export.json"
EXPORT = "rootnote server export"


@dataclass(frozen=True)
class ExportManifest:
    """The manifest of an export.

    Attributes:
        study: name of the study.
        schedule: fingerprint of the schedule.
        plan: hash of the frozen plan, "" if there is none.
        files: SHA-256 of each file, by name.
        erased: number of listeners who erased their answers and are in no file.
        log: the end of the server's log at the time, for `rootnote server audit --noted` ("" in older exports).
        rehearsal: whether the listeners were simulated.
        leaks: what the study's build revealed to listeners; names in study.leaks.LEAKS.
    """

    study: str
    schedule: str
    plan: str
    files: Mapping[str, str]
    arrived: Mapping[str, int]
    erased: int = 0
    log: str = ""
    withheld: tuple[str, ...] = ()
    rehearsal: bool = False
    leaks: tuple[str, ...] = ()


def write_manifest(
    folder: Path,
    study: str,
    schedule: str,
    plan: str,
    files: Sequence[Path],
    arrived: Mapping[str, int],
    erased: int = 0,
    log: str = "",
    withheld: Sequence[str] = (),
    rehearsal: bool = False,
    leaks: Sequence[str] = (),
) -> Path:
    """Write export.json for files in `folder`."""
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    content: dict[str, Any] = {"study": study, "arrived": dict(arrived), "erased": erased, "log": log}
    if withheld:
        content["withheld"] = list(withheld)
    if rehearsal:
        content["rehearsal"] = True
    if leaks:
        content["leaks"] = list(leaks)
    write_json(
        folder / MANIFEST, content, Provenance("export", content, {"schedule": schedule, "plan": plan, **hashes})
    )
    return folder / MANIFEST


def read_manifest(folder: Path) -> ExportManifest | None:
    """The manifest of the export in `folder`, None if there is none.

    Raises:
        RootnoteError: if it is damaged, or its hash shows that it was edited.
    """
    if not (folder / MANIFEST).is_file():
        return None
    _, provenance = read_json(folder / MANIFEST, "export", EXPORT)
    made_from = dict(provenance.made_from)
    try:
        schedule, plan = made_from.pop("schedule"), made_from.pop("plan")
        arrived = {str(name): int(number) for name, number in provenance.settings["arrived"].items()}
        settings = provenance.settings
        name, erased, log = str(settings["study"]), int(settings.get("erased", 0)), str(settings.get("log", ""))
        withheld = tuple(str(key) for key in settings.get("withheld", ()))
        rehearsal = bool(settings.get("rehearsal", False))
        leaks = tuple(str(leak) for leak in settings.get("leaks", ()))
        return ExportManifest(name, schedule, plan, made_from, arrived, erased, log, withheld, rehearsal, leaks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RootnoteError(f"{folder / MANIFEST} is not complete ({error}); run `{EXPORT}`.") from error
