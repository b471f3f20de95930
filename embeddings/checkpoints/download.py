"""Downloads: one file over HTTP, resumed when the connection breaks.

Bytes are appended to a part file; a small JSON file next to it records the address, the length and the validator
(strong ETag or Last-Modified) that the server gave. A broken download is resumed with Range and If-Range, so that
bytes of two versions never mix; if the server cannot resume, the file starts from its first byte.
docs/decisions/0010-downloads.md says why no library does this.
Conventions: lengths are in bytes; only https is used, except for addresses on this machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from embeddings.errors import CheckpointError, ConfigError, ResourceError

Progress = Callable[[int, int], None]  # bytes done, total

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_LARGEST = 20 << 30  # for a file of unknown length
_GAIN = 1 << 20  # an attempt that fetched this much does not count as failed
_LONGEST_WAIT = 30.0
_AGAIN = "run the same command again to continue"


@dataclass(frozen=True)
class _Kept:
    """The state of a part file: `length` of `total` bytes of the version with this `validator`."""

    address: str
    validator: str | None = None
    total: int | None = None
    length: int = 0


class _BrokenError(Exception):
    """The attempt failed, but another one may succeed."""


def check_address(address: str) -> None:
    """Check that an address uses https or is on this machine.

    Raises:
        ConfigError: naming the address, if it does not.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ConfigError(f"'{address}' is not an address ({error}); give one that begins with https://.") from error
    if not url.host or not (url.scheme == "https" or _on_this_machine(url)):
        raise ConfigError(f"'{address}' is not an https address; files are fetched over https only.")


def download(
    address: str,
    part: Path,
    *,
    size: int | None = None,
    progress: Progress | None = None,
    attempts: int = 6,
    wait: float = 1.0,
    timeout: float = 30.0,
) -> None:
    """Complete `part`, starting from what it contains.

    Args:
        size: the expected length, if known.
        attempts: how many attempts in a row may fail without fetching another mebibyte.
        wait: seconds before the second attempt; doubled for each further one, up to 30 seconds.
        timeout: seconds without data after which a connection counts as broken.

    Raises:
        RootnoteError: if the server has no such file or states another length, if the disk is full, or after the
            last attempt failed; the bytes fetched so far stay in `part`.
    """
    check_address(address)
    failures, furthest = 0, _length(part)
    with _client(address, timeout) as client:
        while True:
            try:
                _attempt(client, address, part, size, progress)
                return
            except _BrokenError as broken:
                # Only progress beyond the furthest point counts; otherwise a faulty server would be asked forever.
                failures = 1 if _length(part) - furthest >= _GAIN else failures + 1
                furthest = max(furthest, _length(part))
                if failures >= attempts:
                    kept = f"{_length(part):,} bytes are kept; " if _length(part) else ""
                    raise ResourceError(
                        f"{address} could not be fetched in {attempts} attempts ({broken}); {kept}{_AGAIN}."
                    ) from broken
            time.sleep(min(wait * 2 ** (failures - 1), _LONGEST_WAIT))


def discard(part: Path) -> None:
    """Remove a part file and its record."""
    part.unlink(missing_ok=True)
    _record_path(part).unlink(missing_ok=True)


def _client(address: str, timeout: float) -> httpx.Client:
    local = _on_this_machine(httpx.URL(address))

    def check(request: httpx.Request) -> None:
        if request.url.scheme != "https" and not (local and _on_this_machine(request.url)):
            raise ConfigError(
                f"{address} redirects to {request.url}, which is not https; nothing was fetched from there."
            )

    return httpx.Client(
        follow_redirects=True,
        timeout=timeout,
        event_hooks={"request": [check]},
        # With compression in transit, lengths and ranges would not be those of the file.
        headers={"Accept-Encoding": "identity", "User-Agent": "rootnote"},
    )


def _on_this_machine(url: httpx.URL) -> bool:
    return url.scheme == "http" and url.host in _THIS_MACHINE


def _attempt(client: httpx.Client, address: str, part: Path, size: int | None, progress: Progress | None) -> None:
    kept = _read_notes(part, address)
    if kept.length and kept.length == kept.total:
        return
    resuming = bool(kept.length and kept.validator)
    headers = {"Range": f"bytes={kept.length}-", "If-Range": kept.validator or ""} if resuming else {}
    try:
        with client.stream("GET", address, headers=headers) as response:
            if resuming and response.status_code == 416:
                if _stated_total(response) == kept.length and kept.total is None:
                    return
                discard(part)
                raise _BrokenError("the server could not resume the download")
            _check_status(response, address)
            now = _resume(response, kept, part) if response.status_code == 206 else _begin(response, address)
            _check_length(now, address, part, size)
            _write_notes(part, now)
            _write(response, part, now, size, progress)
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol) as error:
        raise ResourceError(f"{address} redirects to no file ({error}).") from error
    except httpx.TransportError as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _check_status(response: httpx.Response, address: str) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    answer = f"{code} {response.reason_phrase}".strip()
    if code >= 500 or code in (408, 425, 429):
        raise _BrokenError(f"the server answered {answer}")
    raise ResourceError(f"{address} cannot be fetched: the server answered {answer}.")


def _begin(response: httpx.Response, address: str) -> _Kept:
    """The state at the start of a file that is sent from its first byte."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ResourceError(f"{address} cannot be fetched: the server sent it compressed, which was not accepted.")
    stated = response.headers.get("Content-Length", "")
    return _Kept(address, _validator(response), int(stated) if stated.isdecimal() else None)


def _resume(response: httpx.Response, kept: _Kept, part: Path) -> _Kept:
    """Check that the response continues the part file with the same version."""
    begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    fits = begin is not None and int(begin[1]) == kept.length and kept.length > 0
    same_length = kept.total is None or _stated_total(response) in (None, kept.total)
    same_version = _validator(response) in (None, kept.validator)
    if not (fits and same_length and same_version):
        discard(part)
        raise _BrokenError("the file changed on the server between two attempts")
    return kept


def _check_length(now: _Kept, address: str, part: Path, size: int | None) -> None:
    if size is not None and now.total not in (None, size):
        discard(part)
        raise CheckpointError(
            f"{address} has {now.total:,} bytes, but the published file has {size:,}; it was not fetched."
        )
    missing = (now.total or size or 0) - now.length
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise ResourceError(
            f"{part.parent} has {free:,} bytes free, but {missing:,} are needed; free some space and {_AGAIN}."
        )


def _write(response: httpx.Response, part: Path, now: _Kept, size: int | None, progress: Progress | None) -> None:
    total = now.total if now.total is not None else size
    done = now.length
    with _disk_errors(part), part.open("r+b" if done else "wb") as file:
        file.seek(done)
        file.truncate()
        for block in response.iter_raw():
            done += len(block)
            if done > (_LARGEST if total is None else total):
                discard(part)
                raise CheckpointError(
                    f"{now.address} sent more than the expected {total or _LARGEST:,} bytes; it was deleted."
                )
            file.write(block)
            if progress and total:
                progress(done, total)
    if total is not None and done < total:
        raise _BrokenError(f"the connection ended after {done:,} of {total:,} bytes")


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"the disk of {part.parent} is full; free some space and {_AGAIN}.") from error
        raise ResourceError(f"{part} cannot be written ({error.strerror}); {_AGAIN}.") from error


def _validator(response: httpx.Response) -> str | None:
    """A strong ETag, else Last-Modified; a weak ETag does not guarantee equal bytes."""
    etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return (etag if etag.startswith('"') else modified) or None


def _stated_total(response: httpx.Response) -> int | None:
    found = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _record_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_notes(part: Path, now: _Kept) -> None:
    with _disk_errors(part):
        _record_path(part).write_text(json.dumps(asdict(now)), encoding="utf-8")


def _read_notes(part: Path, address: str) -> _Kept:
    """The part file that can be resumed; empty if its record is missing, damaged, or for another address."""
    try:
        record = json.loads(_record_path(part).read_text(encoding="utf-8"))
        kept = _Kept(record["address"], record["validator"], record["total"], _length(part))
        usable = kept.address == address and (kept.total is None or kept.length <= kept.total)
    except (OSError, ValueError, KeyError, TypeError):
        return _Kept(address)
    return kept if usable else _Kept(address)
