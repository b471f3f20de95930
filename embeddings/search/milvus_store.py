"""A Milvus store: opens, fills and queries the collection of one file of vectors.

Conventions: entity `row` is row i of the file, `vector` its float32 values; FLAT index, inner product. A collection
is filled under its name with the suffix `_part` and renamed when complete. Errors from Milvus become a `RootnoteError`
of one sentence; addresses are shown without their password.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embeddings.audio.corpus import Progress
from embeddings.errors import ConfigError, DataError, MissingPackageError, ResourceError, RootnoteError
from embeddings.models.base import Vectors
from embeddings.provenance import Provenance, digest
from embeddings.search.exact import Neighbours

_PREFIX = "milvus:"
_CONNECT_SECONDS, _CALL_SECONDS, _SEARCH_SECONDS = 5, 60, 120
_INSERT_BYTES = 16 << 20  # Milvus accepts up to 64 MB per insertion


class Collection:
    """The collection of one file of vectors, in an open store."""

    def __init__(self, client: Any, address: str, name: str, shape: tuple[int, int]) -> None:
        self._client, self._address, self._name = client, address, name
        self._rows, self._dim = shape

    def mismatch(self) -> RootnoteError:
        """The error for a collection that does not contain these vectors."""
        return ResourceError(
            f"the collection {self._name} of Milvus at {self._address} does not contain these vectors; drop "
            "it, or use another store."
        )

    def fill(self, vectors: npt.NDArray[Any], progress: Progress | None) -> None:
        """Complete the collection and load it for searching."""
        if not self._client.has_collection(self._name, timeout=_CALL_SECONDS):
            part = f"{self._name}_part"
            begin = self._resume(part)
            self._copy(part, vectors, begin, progress)
            self._client.rename_collection(part, self._name, timeout=_CALL_SECONDS)
        self._require_same_schema(self._name)
        self._client.load_collection(self._name, timeout=_CALL_SECONDS)

    def propose(self, queries: Vectors, limit: int) -> Neighbours:
        """The nearest `limit` rows of each query according to Milvus, with its scores."""
        hits = self._client.search(
            self._name,
            data=list(queries),
            limit=limit,
            anns_field="vector",
            output_fields=["row"],
            search_params={"metric_type": "IP"},
            consistency_level="Strong",
            timeout=_SEARCH_SECONDS,
        )
        if [len(one) for one in hits] != [limit] * len(queries):
            raise self.mismatch()
        rows = np.array([one.ids for one in hits], np.int64)
        return Neighbours(np.array([one.distances for one in hits], np.float32), rows)

    @property
    def _block(self) -> int:
        return max(1, _INSERT_BYTES // (4 * self._dim))

    def _resume(self, part: str) -> int:
        """Create the collection to fill, or find the row from which to continue filling it."""
        if self._client.has_collection(part, timeout=_CALL_SECONDS):
            self._require_same_schema(part)
            self._client.load_collection(part, timeout=_CALL_SECONDS)
            # The last block may be incomplete: it is written again.
            begin = max(0, self._count(part) // self._block - 1) * self._block
            if self._count(part, f"row < {begin}") == begin:
                return begin
            self._client.drop_collection(part, timeout=_CALL_SECONDS)
        self._create(part)
        return 0

    def _create(self, name: str) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dim)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            name, schema=schema, index_params=index, consistency_level="Strong", timeout=_CALL_SECONDS
        )

    def _copy(self, part: str, vectors: npt.NDArray[Any], begin: int, progress: Progress | None) -> None:
        torn = begin + 2 * self._block if self._count(part, f"row >= {begin}") else begin
        for first in range(begin, len(vectors), self._block):
            block = np.asarray(vectors[first : first + self._block], dtype=np.float32)
            if not np.isfinite(block).all():
                raise DataError(f"the vectors have a value that is not finite, at row {first} or later.")
            entities = [{"row": first + place, "vector": row} for place, row in enumerate(block)]
            # Rows that may exist already are replaced, because Milvus would store them twice.
            write = self._client.upsert if first < torn else self._client.insert
            write(part, entities, timeout=_CALL_SECONDS)
            if progress:
                progress(first + len(block), len(vectors))
        self._client.flush(part, timeout=_CALL_SECONDS)
        if (there := self._count(part)) != self._rows:
            self._client.drop_collection(part, timeout=_CALL_SECONDS)
            raise ResourceError(
                f"Milvus at {self._address} kept {there:,} of {self._rows:,} rows, perhaps because two commands "
                "filled it at once; run the command again."
            )

    def _count(self, name: str, rows: str = "") -> int:
        answer = self._client.query(
            name, filter=rows, output_fields=["count(*)"], consistency_level="Strong", timeout=_CALL_SECONDS
        )
        return int(answer[0]["count(*)"])

    def _require_same_schema(self, name: str) -> None:
        described = self._client.describe_collection(name, timeout=_CALL_SECONDS)
        dims = {field["name"]: field["params"].get("dim") for field in described["fields"]}
        index = self._client.describe_index(name, "vector", timeout=_CALL_SECONDS) if "vector" in dims else None
        kind = (index or {}).get("index_type"), (index or {}).get("metric_type")
        if sorted(dims) != ["row", "vector"] or int(dims["vector"]) != self._dim or kind != ("FLAT", "IP"):
            raise self.mismatch()


@contextlib.contextmanager
def opened(store: str, vectors: npt.NDArray[Any], provenance: Provenance) -> Iterator[Collection]:
    """Open the store; errors from Milvus become one sentence."""
    uri = _uri(store)
    try:
        import grpc
        from pymilvus import MilvusClient, MilvusException
    except ImportError:
        raise MissingPackageError(
            f"--store {_shown(store)}: pymilvus is missing; run `pip install 'rootnote[cluster]'`."
        ) from None
    for name in ("pymilvus", "milvus_lite", "grpc._server"):  # they log every exception with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    address = _shown(uri)
    token = os.environ.get("ROOTNOTE_MILVUS_TOKEN", "")
    try:
        client = MilvusClient(uri, token=token, timeout=_CONNECT_SECONDS)
    except (MilvusException, grpc.RpcError) as error:
        raise ResourceError(_unreachable(address, error)) from error
    try:
        yield Collection(client, address, _name(vectors, provenance), (len(vectors), vectors.shape[1]))
    except (MilvusException, grpc.RpcError) as error:
        raise ResourceError(
            f"Milvus at {address} stopped answering ({_reason(error)}); run the command again; copied rows are kept."
        ) from error
    finally:
        client.close()
        _release(uri)


def _name(vectors: npt.NDArray[Any], provenance: Provenance) -> str:
    """A name unique to these vectors, from a hash of some rows (two backends differ in the last bits of every row)."""
    sample = vectors[np.linspace(0, max(0, len(vectors) - 1), min(64, len(vectors)), dtype=np.int64)]
    content = hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()
    shape = [*map(int, vectors.shape), str(vectors.dtype)]
    return "rootnote_" + digest({"vectors": provenance.fingerprint, "shape": shape, "sample": content})[:24]


def _uri(store: str) -> str:
    """The URI of the store for pymilvus; creates the folder of an embedded store."""
    uri = store.removeprefix(_PREFIX)
    if store == uri or not (uri.endswith(".db") or re.match(r"(https?|tcp)://[^/]", uri)):
        raise ConfigError(f"--store {_shown(store)}: give milvus:FILE.db or milvus:http://HOST:PORT.")
    if not _embedded(uri):
        return uri
    path = Path(uri).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{path.parent} cannot be created ({error.strerror}); choose another folder.") from error
    return str(path)


def _embedded(uri: str) -> bool:
    return "://" not in uri


def _release(uri: str) -> None:
    """Release an embedded store, so that other processes can open it."""
    if _embedded(uri):
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)


def _shown(uri: str) -> str:
    """The URI without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _unreachable(address: str, error: Exception) -> str:
    if "milvus-lite is required" in str(error):
        return f"{address}: milvus-lite is missing; run `pip install 'rootnote[cluster]'`."
    if _embedded(address):
        return (
            f"{address} cannot be opened as a Milvus store: another process has it open, or it is another kind of file."
        )
    return f"Milvus at {address} does not answer; start it, or correct the address in --store."


def _reason(error: Any) -> str:
    """The first line of Milvus's error message."""
    message = str(getattr(error, "message", "") or error).strip().splitlines()[0]
    return message.rstrip(".")[:200]
