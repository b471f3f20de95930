"""Shards: ranges of rows that several machines embed, each in a file of its own until it is merged.

They lie in one folder a run, on storage that all machines see. A shard's file holds its rows and behind them a
SHA-256 of run, range and rows; it is written under a temporary name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embeddings.embed import Dtype
from embeddings.errors import ResourceError
from embeddings.models.base import Vectors
from embeddings.provenance import replacing

_DIGEST_BYTES = 32


@dataclass(frozen=True, order=True)
class Shard:
    """The rows from `begin` to `end`."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"rows {self.begin} to {self.end}"


def shards_of(rows: int, shard_rows: int) -> Iterator[Shard]:
    """All shards of so many rows, in their order; the last may be shorter."""
    return (Shard(begin, min(begin + shard_rows, rows)) for begin in range(0, rows, shard_rows))


@dataclass(frozen=True)
class ShardFolder:
    """The shards of the run `run`, with rows of `dim` values of type `dtype`."""

    path: Path
    run: str
    dim: int
    dtype: Dtype

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder and a mark in it, by which another machine knows that it sees the same one.

        It stays for as long as it holds shards.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self._mark) as temporary:
            temporary.write_text(self.run)
        try:
            yield
        finally:
            if not any(self.path.glob("*.rows")):
                shutil.rmtree(self.path, ignore_errors=True)

    def is_seen(self) -> bool:
        """Whether this machine sees the folder that was made."""
        try:
            return self._mark.read_text() == self.run
        except OSError:
            return False

    def has(self, shard: Shard) -> bool:
        """Whether the shard is there, as its size tells."""
        with contextlib.suppress(OSError):
            return self._file(shard).stat().st_size == self._bytes(shard)
        return False

    def write(self, shard: Shard, vectors: Vectors) -> None:
        """Keep the shard's rows `[rows, dim]`."""
        rows = np.ascontiguousarray(vectors, dtype=self.dtype).tobytes()
        with replacing(self._file(shard)) as temporary, temporary.open("wb") as file:
            file.write(rows)
            file.write(self._digest(shard, rows))

    def read(self, shard: Shard) -> npt.NDArray[np.floating] | None:
        """The shard's rows; `None`, and the file is removed, where it is spoilt."""
        try:
            content = self._file(shard).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResourceError(f"{self._file(shard)} cannot be read ({error.strerror}); run again.") from error
        rows, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if len(content) != self._bytes(shard) or digest != self._digest(shard, rows):
            self.remove(shard)
            return None
        return np.frombuffer(rows, dtype=self.dtype).reshape(-1, self.dim)

    def remove(self, shard: Shard) -> None:
        """Forget the shard, and how often it was tried."""
        self._file(shard).unlink(missing_ok=True)
        for tries in self.path.glob(f"{self._file(shard).stem}.*.tries"):
            tries.unlink(missing_ok=True)

    def count_try(self, shard: Shard, command: str) -> int:
        """Note that the shard is tried now, and say how often it has been since this `command` began."""
        tries = self._file(shard).with_suffix(f".{command}.tries")
        with tries.open("ab") as file:
            file.write(b".")
        return tries.stat().st_size

    @property
    def _mark(self) -> Path:
        return self.path / "run"

    def _file(self, shard: Shard) -> Path:
        return self.path / f"{shard.begin:012}-{shard.end:012}.rows"

    def _bytes(self, shard: Shard) -> int:
        return (shard.end - shard.begin) * self.dim * np.dtype(self.dtype).itemsize + _DIGEST_BYTES

    def _digest(self, shard: Shard, rows: bytes) -> bytes:
        return hashlib.sha256(f"{self.run} {shard.begin} {shard.end} ".encode() + rows).digest()
