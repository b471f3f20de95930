"""The registry of embedders: one list, entry points of other packages, and the error for a missing library."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner

import rootnote
from embeddings.checkpoints.catalogue import CHECKPOINTS
from embeddings.errors import ConfigError, MissingPackageError
from embeddings.models import registry
from embeddings.models.base import ModelOptions
from embeddings.models.registry import EMBEDDERS, embedder_names, load_embedder
from study.config import load_study
from study.config_sections import EmbeddingConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An embedder `mfcc` of another package, whose library is not installed."""
    (tmp_path / "their_package.py").write_text("def load(options):\n    import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mfcc", "their_package:load", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_installed", lambda: {"mfcc": point})
    return "mfcc"


def test_everything_keyed_by_embedder_is_in_the_registry() -> None:
    assert {checkpoint.embedder for checkpoint in CHECKPOINTS.values()} <= set(EMBEDDERS)
    assert set(EmbeddingConfig.model_fields) - {"embedders", "dtype"} <= set(EMBEDDERS)


def test_the_table_of_models_lists_every_embedder() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    (table,) = [
        text.partition("| name | what it measures | input |")[2]
        for text in texts
        if "| name | what it measures | input |" in text
    ]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert {match[1] for row in rows if (match := re.match(r"\| `(\w+)`", row))} == set(EMBEDDERS)


def test_a_new_study_names_every_embedder(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    made = CliRunner().invoke(rootnote.cli, ["study", "init", str(tmp_path / "s"), "--audio", str(tmp_path / "music")])
    assert made.exit_code == 0, made.output
    (line,) = [line for line in (tmp_path / "s/study.toml").read_text().splitlines() if line.startswith("embedders")]
    assert set(EMBEDDERS) <= set(re.findall(r"\w+", line))


@pytest.mark.parametrize("name", sorted(EMBEDDERS))
def test_the_module_of_an_embedder_exists(name: str) -> None:
    module, _, function = EMBEDDERS[name].partition(":")
    assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def test_an_entry_point_adds_an_embedder(entry_point: str, tmp_path: Path) -> None:
    assert embedder_names() == [*EMBEDDERS, entry_point]
    (tmp_path / "study.toml").write_text(
        '[study]\nname = "T"\n[corpus]\naudio = "m"\n[embedding]\nembedders = ["mfcc"]\n'
        '[embedding.mfcc]\ncheckpoint = "weights.bin"\n'
    )
    assert load_study(tmp_path).config.embedding.models["mfcc"].checkpoint == "weights.bin"


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    entry_point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingPackageError, match=r"'mfcc' needs the package 'no_such_library': pip install"):
        load_embedder(entry_point)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "embeddings.models.clmr", raising=False)
    with pytest.raises(MissingPackageError, match=r"'clmr' needs the package 'torch': pip install"):
        load_embedder("clmr", ModelOptions("weights.pt"))


def test_an_unknown_section_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        '[study]\nname = "T"\n[corpus]\naudio = "m"\n[embedding.musicn]\ncheckpoint = "x"\n'
    )
    with pytest.raises(ConfigError, match=r"study\.toml: unknown key 'embedding\.musicn'; did you mean 'musicnn'\?"):
        load_study(tmp_path)
