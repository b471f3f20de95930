"""CLMR compared with a plain reimplementation of the published layers in float64, for every form of the weights.

The weights are random, with statistics taken from music so that no layer saturates.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

import rootnote
from embeddings.audio.corpus import cut, write_corpus
from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions, Vectors, unit
from embeddings.models.clmr import Clmr
from embeddings.models.registry import load_embedder
from embeddings.vectors import read_vectors
from tests.embeddings.sounds import melody, write

pytestmark = pytest.mark.network

Weights = dict[str, torch.Tensor]

RATE, WINDOW = 22_050, 59_049
CHANNELS = [1, 128, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512]


def published_layers(weights: Weights, samples: torch.Tensor, calibrate: bool = False) -> torch.Tensor:
    """The network as published, layer by layer; with `calibrate`, statistics are written instead of used."""
    x = samples[:, None]
    for index in range(11):
        conv, norm = f"sequential.{index}.0", f"sequential.{index}.1"
        first = index == 0
        x = functional.conv1d(
            x, weights[f"{conv}.weight"], weights[f"{conv}.bias"], stride=3 if first else 1, padding=0 if first else 1
        )
        if calibrate:
            weights[f"{norm}.running_mean"] = x.mean((0, 2))
            weights[f"{norm}.running_var"] = x.var((0, 2))
        statistics = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = functional.batch_norm(x, *statistics, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        x = functional.relu(x)
        if 0 < index < 10:
            x = functional.max_pool1d(x, 3)
    return x.flatten(1)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random weights under the names `sequential.N.…`."""
    rng = torch.Generator().manual_seed(7)
    made: Weights = {}
    for index in range(11):
        wide, high = CHANNELS[index], CHANNELS[index + 1]
        made[f"sequential.{index}.0.weight"] = torch.randn(high, wide, 3, generator=rng) * (2 / (3 * wide)) ** 0.5
        made[f"sequential.{index}.0.bias"] = torch.randn(high, generator=rng) / 10
        made[f"sequential.{index}.1.weight"] = 0.7 + torch.rand(high, generator=rng) * 0.6
        made[f"sequential.{index}.1.bias"] = torch.randn(high, generator=rng) * 0.3
        made[f"sequential.{index}.1.num_batches_tracked"] = torch.tensor(100)
    with torch.inference_mode():
        published_layers(made, torch.from_numpy(sounds(8)[:, :WINDOW]), calibrate=True)
    return {name: tensor.clone() for name, tensor in made.items()}


def sounds(count: int, seconds: float = 3.0, seed: int = 0) -> Vectors:
    """Melodies and noises of many levels."""
    rng = np.random.default_rng(seed)
    tones = [melody(seconds, seed + index, RATE) for index in range((count + 1) // 2)]
    noises = [rng.standard_normal(len(tones[0])).astype(np.float32) for _ in range(count // 2)]
    levels = 10 ** rng.uniform(-1.5, 0, count).astype(np.float32)
    return np.stack([*tones, *noises]) * levels[:, None]


def plain(weights: Weights) -> dict[str, Any]:
    """Version 2: the encoder with its last layer, and the projector."""
    projector = {"projector.0.weight": torch.zeros(512, 512), "projector.2.weight": torch.zeros(64, 512)}
    last = {"encoder.fc.weight": torch.zeros(50, 512), "encoder.fc.bias": torch.zeros(50)}
    return {**{f"encoder.{name}": tensor for name, tensor in weights.items()}, **last, **projector}


def version_1(weights: Weights) -> dict[str, Any]:
    """Blocks are called conv1 … conv11."""
    numbered = {}
    for name, tensor in weights.items():
        _, block, rest = name.split(".", 2)
        numbered[f"encoder.conv{int(block) + 1}.{rest}"] = tensor
    return {**numbered, "encoder.fc.weight": torch.zeros(50, 512)}


def lightning(weights: Weights) -> dict[str, Any]:
    """A trainer's checkpoint: weights of the whole model with everything else that it stores."""
    callback = sys.modules["pytorch_lightning.callbacks"].ModelCheckpoint
    return {
        "epoch": 10_000,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": {f"model.{name}": tensor for name, tensor in plain(weights).items()},
        "callbacks": {callback: {"best_model_path": "clmr.ckpt"}},
        "hyper_parameters": {"supervised": 0, "dataset": "magnatagatune"},
    }


@pytest.fixture(scope="module")
def saved(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of the checkpoint in a form."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def path_of(form: str) -> Path:
        path = folder / {"lightning": "last.ckpt", "zip": "clmr_checkpoint_10000.zip"}.get(form, f"{form}.pt")
        if path.exists():
            return path
        if form == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("__MACOSX/runs/._clmr_checkpoint_10000.pt", b"attributes")
                archive.write(path_of("plain"), "runs/clmr_checkpoint_10000/clmr_checkpoint_10000.pt")
        elif form == "lightning":
            with pytest.MonkeyPatch.context() as patch:
                names = ["pytorch_lightning", "pytorch_lightning.callbacks"]
                modules = {name: types.ModuleType(name) for name in names}
                modules[names[1]].ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": names[1]})  # type: ignore[attr-defined]
                for name in names:
                    patch.setitem(sys.modules, name, modules[name])
                torch.save(lightning(weights), path)
        else:
            content = version_1(weights) if form == "version 1" else plain(weights)
            torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
        return path

    return path_of


def embedder(path: Path, windows: str | None = None, backend: str = "torch") -> Clmr:
    made = load_embedder("clmr", ModelOptions(str(path), windows, backend))
    assert isinstance(made, Clmr)
    return made


def cosines(own: Vectors, theirs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = np.sum(unit(own) * unit(theirs), axis=1)
    return found


def reference(weights: Weights, clips: Vectors) -> npt.NDArray[np.float64]:
    """The published layers in float64, which does not show differences in the order of summation."""
    exact = {name: tensor.double() for name, tensor in weights.items()}
    with torch.inference_mode():
        parts = [published_layers(exact, torch.from_numpy(clip[None, :WINDOW]).double()) for clip in clips]
    return torch.cat(parts).numpy()


BACKENDS = ["torch", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
# How far float32 may be from float64, in lengths of the vector: the errors of a sum of n products, in whatever order a
# processor adds them, come to a few times sqrt(n) roundings of 2^-24; there are eleven layers, and the widest adds
# 3 x 512. Float32 was seen to come to a tenth of this, bfloat16 to two hundred times as much.
ROUNDING = 4 * 11 * np.sqrt(3 * 512) * 2.0**-24


def distances(own: Vectors, theirs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The relative distance of each vector from the true one."""
    found: npt.NDArray[Any] = np.linalg.norm(own - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    return found


@pytest.fixture(scope="module")
def many(weights: Weights) -> tuple[Vectors, npt.NDArray[np.float64]]:
    """Clips and their true vectors."""
    clips = sounds(24)
    return clips, reference(weights, clips)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_vectors_are_those_of_the_published_layers(
    backend: str, saved: Callable[[str], Path], many: tuple[Vectors, npt.NDArray[np.float64]]
) -> None:
    clips, expected = many
    found = embedder(saved("plain"), backend=backend).embed(clips)
    assert found.shape == (24, 512) and found.dtype == np.float32
    assert distances(found, expected).max() <= ROUNDING
    # The clips do differ, so the agreement says something.
    assert np.quantile(unit(expected) @ unit(expected).T, 0.5) < 0.9


@pytest.mark.parametrize("form", ["plain", "legacy", "version 1", "lightning", "zip"])
def test_every_published_form_gives_the_same_vectors(form: str, saved: Callable[[str], Path], weights: Weights) -> None:
    clips = sounds(2)
    path = saved(form)
    made = embedder(path)
    assert distances(made.embed(clips), reference(weights, clips)).max() <= ROUNDING
    assert made.settings()["checkpoint"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_is_the_same_in_every_batch_and_every_run(backend: str, saved: Callable[[str], Path]) -> None:
    clips = sounds(6)
    made = embedder(saved("plain"), backend=backend)
    together = made.embed(clips)
    assert (together == np.concatenate([made.embed(clip[None]) for clip in clips])).all()
    assert (together == embedder(saved("plain"), backend=backend).embed(clips)).all()
    assert made.embed(clips[:0]).shape == (0, 512)


@pytest.mark.slow
@pytest.mark.skipif("openvino" not in BACKENDS, reason="OpenVINO is not installed")
def test_openvino_finds_the_same_neighbours(saved: Callable[[str], Path]) -> None:
    clips = sounds(60, seed=500)
    made = [embedder(saved("plain"), backend=backend) for backend in BACKENDS]
    slow, fast = (unit(one.embed(clips)) for one in made)
    assert cosines(slow, fast).min() >= 0.9995
    tops = [np.argsort(-(one @ one.T), axis=1)[:, 1:11] for one in (slow, fast)]
    assert np.mean(tops[0] == tops[1]) >= 0.99
    # Which of two runs made a file is noted, and makes no other file stale.
    assert made[0].settings() == made[1].settings()
    assert made[1].runtime()["backend"] == "openvino"


def test_only_the_first_window_is_used(saved: Callable[[str], Path]) -> None:
    made = embedder(saved("plain"))
    clips = sounds(2)
    changed = clips.copy()
    changed[:, WINDOW:] = 0.5
    assert (made.embed(clips) == made.embed(changed)).all()
    assert made.settings()["windows"] == "first"


def test_the_mean_uses_the_first_and_last_windows(saved: Callable[[str], Path]) -> None:
    first, mean = embedder(saved("plain")), embedder(saved("plain"), "mean")
    clips = sounds(3)
    expected = (unit(first.embed(clips)) + unit(first.embed(clips[:, -WINDOW:]))) / 2
    np.testing.assert_allclose(mean.embed(clips), expected, atol=1e-6)
    assert mean.settings() != first.settings()
    assert cosines(mean.embed(clips), first.embed(clips)).max() < 0.99999


@pytest.mark.parametrize("windows", ["first", "mean"])
def test_a_short_clip_is_followed_by_silence(windows: str, saved: Callable[[str], Path], weights: Weights) -> None:
    short = sounds(2, seconds=1.0)
    padded = np.pad(short, [(0, 0), (0, WINDOW - RATE)])
    found, expected = embedder(saved("plain"), windows).embed(short), reference(weights, padded)
    assert distances(unit(found), unit(expected)).max() <= ROUNDING


def test_silence_has_a_vector(saved: Callable[[str], Path]) -> None:
    assert np.isfinite(embedder(saved("plain")).embed(np.zeros((1, 3 * RATE), np.float32))).all()


def test_no_component_is_negative(saved: Callable[[str], Path]) -> None:
    vectors = embedder(saved("plain")).embed(sounds(4))
    assert vectors.min() == 0 < vectors.max()


def refusal(content: Any, path: Path) -> str:
    torch.save(content, path)
    with pytest.raises(RootnoteError) as caught:
        embedder(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_other_checkpoints_are_refused_by_name(weights: Weights, tmp_path: Path) -> None:
    other = {"spec_bn.weight": torch.ones(1), "layers.0.conv.weight": torch.ones(204, 1, 67, 7)}
    assert "is not a checkpoint of clmr: it has no encoder" in refusal(other, tmp_path / "musicnn.pth")
    assert "it has no encoder" in refusal([1, 2], tmp_path / "list.pt")
    assert "it has no encoder" in refusal({"pytorch-lightning_version": "1.0"}, tmp_path / "bare.ckpt")
    lacking = plain(weights)
    del lacking["encoder.sequential.3.0.weight"]
    assert "it lacks 'sequential.3.0.weight'" in refusal(lacking, tmp_path / "lacking.pt")
    narrow = {**plain(weights), "encoder.sequential.5.0.bias": torch.ones(17)}
    assert "it has another shape of 'sequential.5.0.bias'" in refusal(narrow, tmp_path / "narrow.pt")
    deeper = {**plain(weights), "encoder.sequential.11.0.bias": torch.ones(17)}
    assert "it has also 'sequential.11.0.bias'" in refusal(deeper, tmp_path / "deeper.pt")
    damaged = {**plain(weights), "encoder.sequential.5.0.bias": torch.full((256,), float("inf"))}
    assert "not finite" in refusal(damaged, tmp_path / "spoilt.pt")


def test_options_without_a_meaning_are_refused(saved: Callable[[str], Path]) -> None:
    with pytest.raises(RootnoteError, match=r"rootnote embeddings fetch clmr.*--checkpoint PATH"):
        load_embedder("clmr")
    with pytest.raises(RootnoteError, match="clmr has no windows 'last'; choose 'first' or 'mean'"):
        embedder(saved("plain"), "last")


def test_a_corpus_is_embedded_from_the_command_line(saved: Callable[[str], Path], tmp_path: Path) -> None:
    for track in range(2):
        write(tmp_path / "music" / f"{track}.flac", melody(6.5, track))
    write_corpus(tmp_path / "corpus.parquet", cut(tmp_path / "music"))
    options = [
        "--corpus",
        "corpus.parquet",
        "--embedder",
        "clmr",
        "--checkpoint",
        str(saved("zip")),
        "--windows",
        "mean",
    ]
    options = [str(tmp_path / one) if one == "corpus.parquet" else one for one in options]
    out = tmp_path / "clmr.npy"
    result = CliRunner().invoke(rootnote.cli, ["embeddings", "embed", *options, "--out", str(out)])
    assert result.exit_code == 0, result.output
    vectors, provenance = read_vectors(out)
    assert vectors.shape == (4, 512)
    assert provenance.settings["windows"] == "mean"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
