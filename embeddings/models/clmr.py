"""CLMR: contrastive learning of musical representations, from the published checkpoints.

The vector is the output of the encoder, a SampleCNN on raw samples (Spijkervet and Burgoyne, 2021), without the
projector it was trained with and without a classifier. It ends in a ReLU, so no component is negative. The vectors
of *Exploring Musical Roots* came from another port of CLMR (a Towhee operator) and have negative ones; similarity bins
are therefore fitted to these vectors and never taken from the paper.

Conventions: mono at 22,050 Hz, samples are not scaled. The network's input is 59,049 samples (2.678 s):

- `windows = "first"` (default, as in the original): the first window of the clip; the rest is not used;
- `windows = "mean"`: the mean of the unit vectors of the clip's first and last windows.

A shorter clip is padded with silence.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from embeddings.checkpoints.load import (
    Weights,
    checkpoint_path,
    fold,
    load_into,
    read_checkpoint,
    sha256_of,
    tensors_in,
)
from embeddings.errors import CheckpointError, ConfigError
from embeddings.models.backends import Backend, choose_backend
from embeddings.models.base import ModelOptions
from embeddings.models.windows import WindowedNetwork

SAMPLE_RATE = 22_050
WINDOW = 3**10
DIM = 512
WINDOWS = ("first", "mean")
_CHANNELS = (128, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512)


class Clmr(WindowedNetwork):
    """The embedder `clmr`; see the module."""

    name = "clmr"
    dim = DIM
    sample_rate = SAMPLE_RATE
    window = WINDOW

    def __init__(self, encoder: nn.Module, checkpoint: str, windows: str, backend: Backend) -> None:
        super().__init__(backend.compile(SampleCNN(encoder), torch.zeros(2, WINDOW)), backend, checkpoint)
        self._windows = windows

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "windows": self._windows}

    def window_starts(self, samples: int) -> list[int]:
        """The first window, or the first and the last."""
        return [0] if self._windows == "first" else [0, samples - WINDOW]


def load(options: ModelOptions | None = None) -> Clmr:
    """The embedder, ready.

    Raises:
        RootnoteError: if there is no checkpoint, it is not a CLMR checkpoint, or an option has an unknown value.
    """
    given = options or ModelOptions()
    windows = given.windows or "first"
    if windows not in WINDOWS:
        raise ConfigError(f"clmr has no windows '{windows}'; choose 'first' or 'mean'.")
    # In bfloat16, random filters (with statistics from music) gave cosines with float32 down to 0.989 and changed one
    # in nine of the ten nearest of 2,000 clips. It depends on the weights, so bfloat16 is not the default.
    backend = choose_backend(given.backend, bf16=False)
    path = checkpoint_path("clmr", given)
    encoder = published_encoder()
    load_into(encoder, encoder_weights(read_checkpoint(path), path), path, "clmr")
    return Clmr(encoder, sha256_of(path), windows, backend)


def published_encoder() -> nn.ModuleDict:
    """The encoder with the names of the published weights: eleven blocks of convolution and batch normalisation."""
    blocks = [nn.Sequential(nn.Conv1d(1, 128, 3, stride=3), nn.BatchNorm1d(128))]
    for before, after in itertools.pairwise(_CHANNELS):
        blocks.append(nn.Sequential(nn.Conv1d(before, after, 3, padding=1), nn.BatchNorm1d(after)))
    return nn.ModuleDict({"sequential": nn.Sequential(*blocks)})


def encoder_weights(content: Any, path: Path) -> Weights:
    """The encoder's weights from a Lightning or plain checkpoint of either version, under version 2's names.

    Raises:
        RootnoteError: if the checkpoint has no encoder.
    """
    lightning = isinstance(content, dict) and "pytorch-lightning_version" in content
    prefix = "model.encoder." if lightning else "encoder."
    named = tensors_in(content.get("state_dict") if lightning else content)
    weights = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    weights = {_version_2(name): tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    if not weights:
        raise CheckpointError(f"{path} is not a checkpoint of clmr: it has no encoder.")
    return weights


def _version_2(name: str) -> str:
    """`conv3.0.weight` -> `sequential.2.0.weight`."""
    return re.sub(r"^conv(\d+)\.", lambda match: f"sequential.{int(match[1]) - 1}.", name)


class SampleCNN(nn.Module):
    """The encoder, optimised for speed: the same function up to rounding.

    Normalisation is folded into the convolutions. The convolutions are two-dimensional with channels last, for which
    CPU kernels are fastest. The ReLU comes after max pooling over three, where only a third of the values remain.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        blocks = encoder.get_submodule("sequential")
        self.convolutions = nn.ModuleList(_in_two_dimensions(*block.children()) for block in blocks.children())

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """`[N, 59049]` -> `[N, 512]`."""
        first, *middle, last = self.convolutions
        x = functional.relu(first(samples[:, None, None, :]))
        for convolution in middle:
            x = functional.relu(functional.max_pool2d(convolution(x), (1, 3)))
        return functional.relu(last(x)).flatten(1)


def _in_two_dimensions(convolution: Any, norm: Any) -> nn.Conv2d:
    weight, bias = fold(convolution, norm)
    stride, padding = (1, *convolution.stride), (0, *convolution.padding)
    flat = nn.Conv2d(weight.shape[1], weight.shape[0], (1, 3), stride=stride, padding=padding)
    flat.weight.data, flat.bias.data = weight[:, :, None], bias  # type: ignore[union-attr]
    return flat.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
