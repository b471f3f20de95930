"""Shards: ranges of rows that several machines embed, each in its own file until it is merged.

Each run has one folder, on storage that all machines see. A shard's file has its rows followed by a SHA-256 of run,
range and rows. It is written under a temporary name and renamed, so it is either complete or absent.
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
    """All shards of `rows` rows, in order; the last may be shorter."""
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
        """Create the folder with a marker file, by which other machines check that they see the same folder.

        On exit the folder is removed if it is empty.
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
        """Whether this machine sees the folder that the driver created."""
        try:
            return self._mark.read_text() == self.run
        except OSError:
            return False

    def has(self, shard: Shard) -> bool:
        """Whether the shard's file exists with the right size."""
        with contextlib.suppress(OSError):
            return self._file(shard).stat().st_size == self._bytes(shard)
        return False

    def write(self, shard: Shard, vectors: Vectors) -> None:
        """Write the shard's rows `[rows, dim]`."""
        rows = np.ascontiguousarray(vectors, dtype=self.dtype).tobytes()
        with replacing(self._file(shard)) as temporary, temporary.open("wb") as file:
            file.write(rows)
            file.write(self._digest(shard, rows))

    def read(self, shard: Shard) -> npt.NDArray[np.floating] | None:
        """The shard's rows; if the file is damaged, it is removed and the result is `None`."""
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
        """Remove the shard's file and its count of tries."""
        self._file(shard).unlink(missing_ok=True)
        for tries in self.path.glob(f"{self._file(shard).stem}.*.tries"):
            tries.unlink(missing_ok=True)

    def count_try(self, shard: Shard, command: str) -> int:
        """Record a try of the shard and return the number of tries since this `command` began."""
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
