"""Artefacts: the files that one stage writes and the next one reads.

Every artefact has a provenance: its kind, the settings that shaped it and the fingerprints of its inputs. The
artefact's own fingerprint is the SHA-256 of these three, so a changed setting or input makes everything downstream
stale. A stale artefact is refused with an error that names it. Files are written under a temporary name in the same
folder and renamed, so no file is ever half-written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embeddings.errors import ArtefactError, StaleArtefactError

FORMAT = 1
_KEY = b"rootnote"


@dataclass(frozen=True)
class Provenance:
    """The kind of an artefact, the settings that shaped it and its inputs (role -> fingerprint)."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return digest({"kind": self.kind, "format": FORMAT, "settings": self.settings, "made_from": self.made_from})

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
            "made_from": dict(self.made_from),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path) -> Provenance:
        try:
            found = cls(str(data["kind"]), dict(data["settings"]), dict(data["made_from"]))
            stated = data["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} has no provenance; build it again.") from error
        if stated != found.fingerprint:
            raise StaleArtefactError(f"{path} was edited or made by another version; build it again.")
        return found


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, delete it on failure.

    Args:
        private: whether only its owner may read the file. One that root writes belongs to the owner of its folder,
            so that a server that runs as that user can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        if private:
            give_to_folder_owner(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def give_to_folder_owner(path: Path) -> None:
    """Give a file that root has made to the owner of its folder; no effect for other users."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, content: Mapping[str, Any], provenance: Provenance) -> None:
    """Write `content` and its provenance (under the key "provenance") as JSON."""
    with replacing(path) as temporary:
        text = json.dumps({**content, "provenance": provenance.as_dict()}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, kind: str, made_by: str) -> tuple[dict[str, Any], Provenance]:
    """Read a file written by `write_json`. `made_by` is the command to suggest if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; run `{made_by}`.") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); run `{made_by}`.") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path} is not a {kind} file; run `{made_by}`.")
    provenance = Provenance.from_dict(content.pop("provenance", {}), path)
    _check_kind(provenance, kind, path, made_by)
    return content, provenance


def write_table(path: Path, table: pa.Table, provenance: Provenance, *, private: bool = False) -> None:
    """Write a table as Parquet with its provenance in the schema's metadata; `private` as in `replacing`."""
    meta = {**(table.schema.metadata or {}), _KEY: json.dumps(provenance.as_dict()).encode()}
    with replacing(path, private=private) as temporary:
        pq.write_table(table.replace_schema_metadata(meta), temporary, compression="zstd")


def read_table(path: Path, kind: str, made_by: str) -> tuple[pa.Table, Provenance]:
    """Read a file written by `write_table`. `made_by` is the command to suggest if it is missing or damaged."""
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; run `{made_by}`.") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(f"{path} is not a readable Parquet file; run `{made_by}`.") from error
    raw = (table.schema.metadata or {}).get(_KEY)
    provenance = Provenance.from_dict(json.loads(raw) if raw else {}, path)
    _check_kind(provenance, kind, path, made_by)
    return table, provenance


def _check_kind(provenance: Provenance, kind: str, path: Path, made_by: str) -> None:
    if provenance.kind != kind:
        raise ArtefactError(f"{path} contains {provenance.kind}, not {kind}; run `{made_by}`.")


def require_fresh(path: Path, found: Provenance, expected: Provenance, made_by: str) -> None:
    """Check that an artefact has the settings and inputs expected now.

    Raises:
        StaleArtefactError: naming what changed and the command that rebuilds the artefact.
    """
    if found.fingerprint == expected.fingerprint:
        return
    changed = sorted(
        {
            key
            for key in {**found.settings, **expected.settings}
            if found.settings.get(key) != expected.settings.get(key)
        }
        | {
            key
            for key in {**found.made_from, **expected.made_from}
            if found.made_from.get(key) != expected.made_from.get(key)
        }
    )
    raise StaleArtefactError(f"{path} is stale ({', '.join(changed) or 'format'} changed since); run `{made_by}`.")
