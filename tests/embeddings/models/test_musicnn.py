"""MusiCNN compared with a plain reimplementation of the published layers.

The weights are random, with statistics taken from music so that no layer saturates, in the older torch format that the
public checkpoints have.
"""

from __future__ import annotations

import hashlib
import importlib.util
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
from embeddings.models.musicnn import Musicnn, window_starts
from embeddings.models.registry import load_embedder
from embeddings.vectors import read_vectors
from tests.embeddings.sounds import melody, write

pytestmark = pytest.mark.network

Weights = dict[str, torch.Tensor]

RATE, WINDOW = 16_000, 48_000
SHAPES = {
    **{f"layers.{index}": (204, 1, bands, 7) for index, bands in enumerate((67, 38))},
    **{f"layers.{index + 2}": (51, 1, frames) for index, frames in enumerate((129, 65, 33))},
    "layer1": (64, 561, 7),
    "layer2": (64, 64, 7),
    "layer3": (64, 64, 7),
}
BACKENDS = ["torch", *(["openvino"] if importlib.util.find_spec("openvino") else [])]


def decibels(weights: Weights, samples: Vectors) -> npt.NDArray[np.float64]:
    """Mel power in dB `[N, 96, 188]`, from the definition, in float64."""
    window = weights["spec.spectrogram.window"].double().numpy()
    padded = np.pad(samples.astype(np.float64), [(0, 0), (256, 256)], mode="reflect")
    frames = [padded[:, begin : begin + 512] * window for begin in range(0, padded.shape[1] - 511, 256)]
    power = np.abs(np.fft.rfft(np.stack(frames, axis=1))) ** 2
    mel = power @ weights["spec.mel_scale.fb"].double().numpy()
    return 10 * np.log10(np.maximum(mel, 1e-10)).transpose(0, 2, 1)


class Rebuilt:
    """The network as published, layer by layer; with `calibrate`, statistics are written instead of used."""

    def __init__(self, weights: Weights, calibrate: bool = False) -> None:
        self.weights, self.calibrate = weights, calibrate

    def __call__(self, samples: Vectors) -> torch.Tensor:
        with torch.inference_mode():
            level = torch.from_numpy(decibels(self.weights, samples)).float()
            return self.vectors(self.norm("spec_bn", level[:, None]))

    def vectors(self, picture: torch.Tensor) -> torch.Tensor:
        tall = [self.block(f"layers.{index}", picture, (0, 3)).amax(2) for index in (0, 1)]
        mean = picture.mean(2)
        front = torch.cat([*tall, *(self.block(f"layers.{index}", mean) for index in (2, 3, 4))], 1)
        one = self.block("layer1", front)
        two = self.block("layer2", one) + one
        three = self.block("layer3", two) + two
        every = torch.cat([front, one, two, three], 1)
        pooled = torch.cat([every.max(2).values, every.mean(2)], 1)
        dense = functional.linear(pooled, self.weights["dense1.weight"], self.weights["dense1.bias"])
        return self.norm("bn", dense)

    def block(self, name: str, x: torch.Tensor, padding: tuple[int, int] | None = None) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.conv.weight"], self.weights[f"{name}.conv.bias"]
        if padding is None:
            x = functional.conv1d(x, weight, bias, padding=weight.shape[2] // 2)
        else:
            x = functional.conv2d(x, weight, bias, padding=padding)
        return functional.relu(self.norm(f"{name}.bn", x))

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        own = self.weights
        if self.calibrate:
            other = [axis for axis in range(x.dim()) if axis != 1]
            own[f"{name}.running_mean"], own[f"{name}.running_var"] = x.mean(other), x.var(other)
        statistics = own[f"{name}.running_mean"], own[f"{name}.running_var"]
        return functional.batch_norm(x, *statistics, own[f"{name}.weight"], own[f"{name}.bias"])


@pytest.fixture(scope="module")
def weights() -> Weights:
    rng = torch.Generator().manual_seed(7)
    mel = torch.rand(257, 96, generator=rng) * (torch.rand(257, 96, generator=rng) < 0.05)
    made: Weights = {"spec.spectrogram.window": torch.hann_window(512), "spec.mel_scale.fb": mel}
    for name, shape in SHAPES.items():
        made[f"{name}.conv.weight"] = torch.randn(*shape, generator=rng) * np.prod(shape[1:]) ** -0.5
        made[f"{name}.conv.bias"] = torch.randn(shape[0], generator=rng) / 10
    made["dense1.weight"] = torch.randn(200, 1506, generator=rng) * 1506**-0.5
    made["dense1.bias"] = torch.randn(200, generator=rng) / 10
    made["dense2.weight"], made["dense2.bias"] = torch.zeros(50, 200), torch.zeros(50)
    for name, channels in {
        "spec_bn": 1,
        "bn": 200,
        **{f"{name}.bn": shape[0] for name, shape in SHAPES.items()},
    }.items():
        made[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=rng)
        made[f"{name}.bias"] = torch.randn(channels, generator=rng) * 0.3
        made[f"{name}.num_batches_tracked"] = torch.tensor(100)
    Rebuilt(made, calibrate=True)(sounds(6))
    return {name: tensor.clone() for name, tensor in made.items()}


@pytest.fixture(scope="module")
def checkpoint(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best_model.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


def sounds(count: int, seconds: float = 3.0, seed: int = 0) -> Vectors:
    """Melodies and noises of many levels."""
    rng = np.random.default_rng(seed)
    tones = [melody(seconds, seed + index, RATE) for index in range((count + 1) // 2)]
    noises = [rng.standard_normal(len(tones[0])).astype(np.float32) for _ in range(count // 2)]
    levels = 10 ** rng.uniform(-1.5, 0, count).astype(np.float32)
    return np.stack([*tones, *noises]) * levels[:, None]


def embedder(path: Path, backend: str = "torch") -> Musicnn:
    made = load_embedder("musicnn", ModelOptions(str(path), None, backend))
    assert isinstance(made, Musicnn)
    return made


def cosines(ours: Vectors, reference: Vectors) -> Vectors:
    return np.sum(unit(ours) * unit(reference), axis=1)


@pytest.fixture(scope="module")
def many(weights: Weights) -> tuple[Vectors, Vectors]:
    """Clips and their vectors as published."""
    clips, rebuilt = sounds(30), Rebuilt(weights)
    return clips, np.concatenate([rebuilt(clip[None]).numpy() for clip in clips])


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_vectors_are_those_of_the_published_layers(
    backend: str, checkpoint: Path, many: tuple[Vectors, Vectors]
) -> None:
    clips, expected = many
    found = embedder(checkpoint, backend).embed(clips)
    assert found.shape == (30, 200) and found.dtype == np.float32
    assert cosines(found, expected).min() >= 0.99999
    # Both signs: it is the vector before the rectifier; and the clips differ, so the agreement says something.
    assert found.min() < 0 < found.max()
    assert np.quantile(unit(expected) @ unit(expected).T, 0.5) < 0.9


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_is_the_same_in_every_batch_and_every_run(backend: str, checkpoint: Path) -> None:
    clips = sounds(6)
    made = embedder(checkpoint, backend)
    together = made.embed(clips)
    assert (together == np.concatenate([made.embed(clip[None]) for clip in clips])).all()
    assert (together == embedder(checkpoint, backend).embed(clips)).all()
    assert made.embed(clips[:0]).shape == (0, 200)


@pytest.mark.slow
@pytest.mark.skipif("openvino" not in BACKENDS, reason="OpenVINO is not installed")
def test_openvino_finds_the_same_neighbours(checkpoint: Path) -> None:
    clips = sounds(60, seed=500)
    made = [embedder(checkpoint, backend) for backend in BACKENDS]
    slow, fast = (unit(one.embed(clips)) for one in made)
    assert cosines(slow, fast).min() >= 0.9995
    tops = [np.argsort(-(one @ one.T), axis=1)[:, 1:11] for one in (slow, fast)]
    assert np.mean(tops[0] == tops[1]) >= 0.99
    assert made[0].settings() == made[1].settings()
    assert made[1].runtime()["backend"] == "openvino"


def test_a_short_clip_is_followed_by_silence(checkpoint: Path, weights: Weights) -> None:
    short = sounds(2, seconds=1.0)
    padded = np.pad(short, [(0, 0), (0, WINDOW - RATE)])
    assert cosines(embedder(checkpoint).embed(short), Rebuilt(weights)(padded).numpy()).min() >= 0.99999


def test_a_long_clip_is_the_mean_of_windows(checkpoint: Path) -> None:
    made = embedder(checkpoint)
    clips = sounds(2, seconds=8.0)
    assert window_starts(clips.shape[1]) == [0, 40_000, 80_000]
    parts = [unit(made.embed(clips[:, start : start + WINDOW])) for start in (0, 40_000, 80_000)]
    np.testing.assert_allclose(made.embed(clips), np.mean(parts, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(WINDOW, [0]), (WINDOW + 1, [0, 1]), (2 * WINDOW, [0, WINDOW]), (100_000, [0, 26_000, 52_000])],
)
def test_windows_cover_a_clip(samples: int, starts: list[int]) -> None:
    assert window_starts(samples) == starts


def test_silence_has_a_vector(checkpoint: Path) -> None:
    assert np.isfinite(embedder(checkpoint).embed(np.zeros((1, WINDOW), np.float32))).all()


def test_settings_contain_the_checkpoint(checkpoint: Path) -> None:
    made = embedder(checkpoint)
    assert made.settings()["checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert made.runtime()["precision"] == "fp32"


def test_the_number_of_tags_does_not_matter(checkpoint: Path, weights: Weights, tmp_path: Path) -> None:
    torch.save({**weights, "dense2.weight": torch.zeros(7, 200), "dense2.bias": torch.zeros(7)}, tmp_path / "7.pth")
    clips = sounds(1)
    assert (embedder(tmp_path / "7.pth").embed(clips) == embedder(checkpoint).embed(clips)).all()


def refusal(content: Any, path: Path) -> str:
    torch.save(content, path)
    with pytest.raises(RootnoteError) as caught:
        embedder(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_other_checkpoints_are_refused_by_name(weights: Weights, tmp_path: Path) -> None:
    clmr = {"encoder.sequential.0.0.weight": torch.ones(128, 1, 3)}
    assert "is not a checkpoint of musicnn: it lacks 'bn.bias'" in refusal(clmr, tmp_path / "clmr.pt")
    assert "is not a checkpoint of musicnn" in refusal(torch.ones(3), tmp_path / "tensor.pt")
    wide = {**weights, "layer2.conv.weight": torch.ones(64, 64, 9)}
    assert "it has another shape of 'layer2.conv.weight'" in refusal(wide, tmp_path / "wide.pt")
    damaged = {**weights, "bn.running_var": torch.full((200,), float("nan"))}
    assert "not finite" in refusal(damaged, tmp_path / "spoilt.pt")


def test_options_without_a_meaning_are_refused(checkpoint: Path) -> None:
    with pytest.raises(RootnoteError, match=r"rootnote embeddings fetch musicnn.*--checkpoint PATH"):
        load_embedder("musicnn")
    with pytest.raises(RootnoteError, match="musicnn takes no windows; leave it out"):
        load_embedder("musicnn", ModelOptions(str(checkpoint), "mean"))


def test_a_corpus_is_embedded_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    for track in range(2):
        write(tmp_path / "music" / f"{track}.flac", melody(6.5, track))
    write_corpus(tmp_path / "corpus.parquet", cut(tmp_path / "music"))
    out = tmp_path / "musicnn.npy"
    given = ["--corpus", str(tmp_path / "corpus.parquet"), "--checkpoint", str(checkpoint), "--out", str(out)]
    result = CliRunner().invoke(rootnote.cli, ["embeddings", "embed", "--embedder", "musicnn", *given])
    assert result.exit_code == 0, result.output
    vectors, provenance = read_vectors(out)
    assert vectors.shape == (4, 200)
    assert provenance.settings["checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
