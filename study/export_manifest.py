"""An export's own account: export.json beside the files of an export, with their SHA-256.

The server writes it, the analysis reads it: a file whose hash differs was edited since.
Conventions: hashes are hex; `arrived` counts not persons but how often the information was shown ("informed") or
somebody was not let in ("not_let_in"); `withheld` are settings of study.toml, dotted, that a public release leaves out.
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
    """What was exported: the study, its schedule, its frozen plan ("" where there is none), files and their SHA-256.

    `erased`: listeners who had their answers erased, and are in no file; `log`: the end of the server's log then, as
    `rootnote server audit --noted` takes it ("" in exports of before). `rehearsal`: the answers are of simulated
    listeners.
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
) -> Path:
    """Write export.json for files that lie in `folder`."""
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    content: dict[str, Any] = {"study": study, "arrived": dict(arrived), "erased": erased, "log": log}
    if withheld:
        content["withheld"] = list(withheld)
    if rehearsal:
        content["rehearsal"] = True
    write_json(
        folder / MANIFEST, content, Provenance("export", content, {"schedule": schedule, "plan": plan, **hashes})
    )
    return folder / MANIFEST


def read_manifest(folder: Path) -> ExportManifest | None:
    """The account of the export in `folder`, None where there is none.

    Raises:
        RootnoteError: where it is damaged, or its own hash shows that it was edited.
    """
    if not (folder / MANIFEST).is_file():
        return None
    _, provenance = read_json(folder / MANIFEST, "export", EXPORT)
    made_from = dict(provenance.made_from)
    try:
        schedule, plan = made_from.pop("schedule"), made_from.pop("plan")
        arrived = {str(name): int(number) for name, number in provenance.settings["arrived"].items()}
        told = provenance.settings
        name, erased, log = str(told["study"]), int(told.get("erased", 0)), str(told.get("log", ""))
        withheld = tuple(str(key) for key in told.get("withheld", ()))
        rehearsal = bool(told.get("rehearsal", False))
        return ExportManifest(name, schedule, plan, made_from, arrived, erased, log, withheld, rehearsal)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RootnoteError(f"{folder / MANIFEST} lacks or misstates {error}; run `{EXPORT}`.") from error
