"""A Milvus store: the collection of one file of vectors, opened, filled and asked.

Conventions: entity `row` is row i of the file, `vector` its float32 values; FLAT index, inner product. A collection
is filled under its name with `_part` behind and renamed when it is whole. All that Milvus has to say against what
is asked becomes a `RootnoteError` of one sentence; addresses are shown without the password in them.
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
_INSERT_BYTES = 16 << 20  # an insertion may have 64 MB


class Collection:
    """The collection of one file of vectors, in a store that is open."""

    def __init__(self, client: Any, address: str, name: str, shape: tuple[int, int]) -> None:
        self._client, self._address, self._name = client, address, name
        self._rows, self._dim = shape

    def foreign(self) -> RootnoteError:
        return ResourceError(
            f"the collection {self._name} of Milvus at {self._address} does not hold these vectors; drop it, "
            "or take another store."
        )

    def fill(self, vectors: npt.NDArray[Any], progress: Progress | None) -> None:
        """Make the collection whole, and ready to be searched."""
        if not self._client.has_collection(self._name, timeout=_CALL_SECONDS):
            part = f"{self._name}_part"
            begin = self._resume(part)
            self._copy(part, vectors, begin, progress)
            self._client.rename_collection(part, self._name, timeout=_CALL_SECONDS)
        self._require_ours(self._name)
        self._client.load_collection(self._name, timeout=_CALL_SECONDS)

    def propose(self, queries: Vectors, limit: int) -> Neighbours:
        """What Milvus takes for the nearest `limit` rows of each query, with its scores."""
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
            raise self.foreign()
        rows = np.array([one.ids for one in hits], np.int64)
        return Neighbours(np.array([one.distances for one in hits], np.float32), rows)

    @property
    def _block(self) -> int:
        return max(1, _INSERT_BYTES // (4 * self._dim))

    def _resume(self, part: str) -> int:
        """Make a collection to fill, or find the row from which one has to be filled."""
        if self._client.has_collection(part, timeout=_CALL_SECONDS):
            self._require_ours(part)
            self._client.load_collection(part, timeout=_CALL_SECONDS)
            # The last block may be torn: it is written again.
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
                raise DataError(f"the vectors hold a value that is not finite in rows {first} and on.")
            entities = [{"row": first + place, "vector": row} for place, row in enumerate(block)]
            # What may be there already is replaced, for Milvus would keep a row twice.
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

    def _require_ours(self, name: str) -> None:
        described = self._client.describe_collection(name, timeout=_CALL_SECONDS)
        dims = {field["name"]: field["params"].get("dim") for field in described["fields"]}
        index = self._client.describe_index(name, "vector", timeout=_CALL_SECONDS) if "vector" in dims else None
        kind = (index or {}).get("index_type"), (index or {}).get("metric_type")
        if sorted(dims) != ["row", "vector"] or int(dims["vector"]) != self._dim or kind != ("FLAT", "IP"):
            raise self.foreign()


@contextlib.contextmanager
def opened(store: str, vectors: npt.NDArray[Any], provenance: Provenance) -> Iterator[Collection]:
    """Open the store; what Milvus has to say against it becomes one sentence."""
    uri = _uri(store)
    try:
        import grpc
        from pymilvus import MilvusClient, MilvusException
    except ImportError:
        raise MissingPackageError(
            f"--store {_shown(store)}: pymilvus is missing; run `pip install 'rootnote[cluster]'`."
        ) from None
    for name in ("pymilvus", "milvus_lite", "grpc._server"):  # they log what they raise, with its traceback
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
            f"Milvus at {address} stopped answering ({_reason(error)}); run the command again, what was copied is kept."
        ) from error
    finally:
        client.close()
        _release(uri)


def _name(vectors: npt.NDArray[Any], provenance: Provenance) -> str:
    """A name that no other vectors have: some rows stand for all, for backends differ in the last bits of each."""
    sample = vectors[np.linspace(0, max(0, len(vectors) - 1), min(64, len(vectors)), dtype=np.int64)]
    content = hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()
    shape = [*map(int, vectors.shape), str(vectors.dtype)]
    return "rootnote_" + digest({"vectors": provenance.fingerprint, "shape": shape, "sample": content})[:24]


def _uri(store: str) -> str:
    """What pymilvus calls the store; the folder of an embedded one is made."""
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
    """Let go of an embedded store, so that other processes can open it."""
    if _embedded(uri):
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)


def _shown(uri: str) -> str:
    """Without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _unreachable(address: str, error: Exception) -> str:
    if "milvus-lite is required" in str(error):
        return f"{address}: milvus-lite is missing; run `pip install 'rootnote[cluster]'`."
    if _embedded(address):
        return f"{address} cannot be opened as a Milvus store: another process has it open, or it is no such store."
    return f"Milvus at {address} does not answer; start it, or correct the address in --store."


def _reason(error: Any) -> str:
    """The first line of what Milvus says."""
    message = str(getattr(error, "message", "") or error).strip().splitlines()[0]
    return message.rstrip(".")[:200]
