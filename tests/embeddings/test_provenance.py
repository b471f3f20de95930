"""Artefacts: provenance is stored in the file, stale files are named, and no file is half-written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings import provenance
from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance

MADE = Provenance("corpus", {"clip_seconds": 3.0}, {"audio": "abc"})


def test_table_returns_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "corpus.parquet"
    provenance.write_table(path, pa.table({"clip": [0, 1]}), MADE)
    table, found = provenance.read_table(path, "corpus", "rootnote study build")
    assert table["clip"].to_pylist() == [0, 1]
    assert found == MADE
    assert [p.name for p in path.parent.iterdir()] == ["corpus.parquet"]


def test_json_returns_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    provenance.write_json(path, {"µ": 0.8}, MADE)
    assert provenance.read_json(path, "corpus", "cmd") == ({"µ": 0.8}, MADE)


@pytest.mark.parametrize("content", [None, b"", b"not parquet", b"PAR1" + bytes(40)])
def test_missing_and_damaged_tables_name_the_command(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "corpus.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RootnoteError, match=r"corpus\.parquet.*`rootnote study build`"):
        provenance.read_table(path, "corpus", "rootnote study build")


@pytest.mark.parametrize("content", [None, "", "[1]", "{", '{"a": 1}', '{"provenance": 3}', '{"provenance": {}}'])
def test_missing_and_damaged_json_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bins.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RootnoteError, match=r"bins\.json"):
        provenance.read_json(path, "bins", "rootnote study build")


def test_a_parquet_file_without_provenance_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RootnoteError, match="provenance"):
        provenance.read_table(path, "corpus", "cmd")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    provenance.write_table(path, pa.table({"a": [1]}), MADE)
    with pytest.raises(RootnoteError, match="contains corpus, not schedule"):
        provenance.read_table(path, "schedule", "cmd")


def test_edited_provenance_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    provenance.write_json(path, {}, MADE)
    path.write_text(path.read_text().replace("3.0", "4.0"))
    with pytest.raises(RootnoteError, match="edited"):
        provenance.read_json(path, "corpus", "cmd")


def test_staleness_names_what_changed() -> None:
    now = Provenance("corpus", {"clip_seconds": 2.0}, {"audio": "abc"})
    with pytest.raises(RootnoteError, match=r"stale \(clip_seconds changed since\); run `cmd`"):
        provenance.require_fresh(Path("c.parquet"), MADE, now, "cmd")
    provenance.require_fresh(
        Path("c.parquet"), MADE, Provenance("corpus", {"clip_seconds": 3.0}, {"audio": "abc"}), "cmd"
    )


def test_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), provenance.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()))
def test_fingerprint_does_not_depend_on_order(settings: dict[str, object]) -> None:
    backwards = dict(reversed(list(settings.items())))
    assert Provenance("k", settings).fingerprint == Provenance("k", backwards).fingerprint
