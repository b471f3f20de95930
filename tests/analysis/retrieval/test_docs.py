"""The commands in docs/retrieval.md run unchanged on a small study."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.analysis.retrieval.corpus import call, make_corpus
from tests.embeddings.sounds import melody, write
from tests.test_readme import ROOT, commands


@pytest.mark.slow
def test_commands_of_the_page(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_corpus(tmp_path, tracks=3, seconds=7.6)
    (tmp_path / "music").rename(tmp_path / "MUSIC")
    assert call("study", "init", "STUDY", "--audio", "MUSIC").exit_code == 0
    build = tmp_path / "STUDY" / "build"
    build.mkdir()
    corpus = ("--corpus", build / "corpus.parquet")
    assert call("embeddings", "cut", "MUSIC", "--out", build / "corpus.parquet").exit_code == 0
    assert call("embeddings", "embed", *corpus, "--embedder", "logmel", "--out", build / "logmel.npy").exit_code == 0
    write(tmp_path / "GENERATED" / "one.flac", melody(3.1, 9))
    lines = commands(ROOT / "docs" / "retrieval.md")
    assert [line.split()[2] for line in lines] == ["robustness", "attribution", "replication", "beside"]
    for line in lines:
        done = call(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert len(json.loads((tmp_path / "robustness" / "robustness.json").read_text())["cells"]) == 104
    assert (tmp_path / "attribution" / "attribution.html").is_file()
    assert (tmp_path / "replication" / "replication.html").is_file()
    assert "Figure 1" in (tmp_path / "paper.html").read_text(encoding="utf-8")
