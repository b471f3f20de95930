"""Fetching checkpoints: a published file of weights, from its official address into the cache.

A file is put in its place only when it is complete and its SHA-256 is the published one. If none is published, the
SHA-256 of the first file fetched is recorded in `FILE.json`, and a later file that differs is refused.
Conventions: ROOTNOTE_FETCH_BASE is the address of a mirror that has the files under their names here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embeddings.checkpoints.catalogue import CHECKPOINTS, Checkpoint, cache_folder, named
from embeddings.checkpoints.download import Progress, discard, download
from embeddings.errors import CheckpointError, ResourceError, RootnoteError
from embeddings.provenance import replacing


@dataclass(frozen=True)
class Fetched:
    """A fetched checkpoint. `already_there`: the file existed, so nothing was fetched."""

    name: str
    path: Path
    address: str
    sha256: str
    pinned: bool
    licence: str
    already_there: bool

    @property
    def next_command(self) -> str:
        """A command that uses the checkpoint."""
        embedder = CHECKPOINTS[self.name].embedder
        return (
            f"rootnote embeddings embed --corpus corpus.parquet --embedder {embedder} "
            f"--checkpoint '{self.path}' --out {embedder}.npy"
        )


def fetch(
    name: str,
    to: Path | None = None,
    *,
    base: str | None = None,
    progress: Progress | None = None,
    attempts: int = 6,
    wait: float = 1.0,
    timeout: float = 30.0,
) -> Fetched:
    """Put a checkpoint into the folder `to` (default: the cache), fetching what is not there yet.

    Args:
        base: a mirror that has the file under its name here; default: ROOTNOTE_FETCH_BASE, else the official
            address. It must speak https unless it is on this machine.
        attempts, wait, timeout: as for `download`.

    Raises:
        RootnoteError: if the name is not known, the file cannot be fetched, or it is not the published one.
    """
    checkpoint = named(name)
    path = (to or cache_folder()) / checkpoint.file
    base = base or os.environ.get("ROOTNOTE_FETCH_BASE")
    address = f"{base.rstrip('/')}/{checkpoint.file}" if base else checkpoint.address
    with _locked(path):
        already_there = path.is_file()
        if already_there:
            digest = _verify(path, path, checkpoint)
        else:
            part = path.with_name(f"{path.name}.part")
            download(
                address,
                part,
                size=checkpoint.size,
                progress=progress,
                attempts=attempts,
                wait=wait,
                timeout=timeout,
            )
            digest = _put_in_place(part, path, checkpoint, address)
    return Fetched(name, path, address, digest, checkpoint.sha256 is not None, checkpoint.licence, already_there)


def cached(sha256: str) -> Path | None:
    """The file of the cache that was fetched with this SHA-256, if there is one."""
    for checkpoint in CHECKPOINTS.values():
        path = cache_folder() / checkpoint.file
        if path.is_file() and sha256 == (checkpoint.sha256 or _read_record(path).get("sha256")):
            return path
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file against other processes."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    except OSError as error:
        raise ResourceError(
            f"{path.parent} cannot be written ({error.strerror}); choose another folder with --to."
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"{path} is being fetched by another process; wait until it finishes.") from None
        yield


def _put_in_place(part: Path, path: Path, checkpoint: Checkpoint, address: str) -> str:
    try:
        digest = _verify(part, path, checkpoint)
        # A page that says "sign in first" also comes with status 200.
        if checkpoint.sha256 is None and path.suffix == ".zip" and not zipfile.is_zipfile(part):
            raise CheckpointError(f"{address} sent a file that is not a zip file; it was deleted.")
    except RootnoteError:
        discard(part)
        raise
    _write_record(path, checkpoint, address, digest)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    discard(part)
    return digest


def _verify(found: Path, path: Path, checkpoint: Checkpoint) -> str:
    """The SHA-256 of `found`, which is `path` or will become it.

    Raises:
        CheckpointError: if it differs from the published one or, if none is published, from that of the first fetch.
    """
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = checkpoint.sha256 or _read_record(path).get("sha256")
    if expected in (None, digest):
        if found == path and expected is None:
            _write_record(path, checkpoint, None, digest)
        return digest
    first = f"that of the first fetch, recorded in {_record_path(path)}"
    reference = "the published one" if checkpoint.sha256 else first
    if found == path:
        raise CheckpointError(f"{path} exists, but its SHA-256 is not {reference}; move it away and fetch again.")
    accept = f", or delete {_record_path(path).name} to accept a new version"
    fix = "fetch again" + ("" if checkpoint.sha256 else accept)
    raise CheckpointError(f"the file fetched for {path} was deleted: its SHA-256 is not {reference}; {fix}.")


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_record(path: Path, checkpoint: Checkpoint, address: str | None, digest: str) -> None:
    record = {
        "file": path.name,
        "address": address,
        "sha256": digest,
        "licence": checkpoint.licence,
        "noted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with replacing(_record_path(path)) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_record(path: Path) -> dict[str, Any]:
    """The record written when the file was fetched; empty if there is none."""
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{_record_path(path)} cannot be read; delete it and fetch again.") from error
    return record if isinstance(record, dict) else {}
