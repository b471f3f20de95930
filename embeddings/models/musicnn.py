"""MusiCNN: a small network for music tagging, from the public checkpoints of its PyTorch port.

The vector is the output of the penultimate layer (Pons and Serra, 2019; the port is minzwon/sota-music-tagging-models):
200 values, after batch normalisation and before the last ReLU, so they can be negative.

Conventions: mono at 16,000 Hz, samples are not scaled; the network's input is exactly 3 s. A shorter clip is padded
with silence. A longer clip is covered by the fewest windows of 3 s, evenly spread, and its vector is the mean of their
unit vectors. The spectrogram (power, 512 samples every 256, 96 mel bands, decibels) uses the window and the filter bank
stored with the weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from embeddings.checkpoints.load import checkpoint_path, fold, load_into, read_checkpoint, sha256_of, tensors_in
from embeddings.models.backends import Backend, choose_backend
from embeddings.models.base import ModelOptions, refuse_options
from embeddings.models.windows import WindowedNetwork

SAMPLE_RATE = 16_000
WINDOW = 3 * SAMPLE_RATE
DIM = 200
_FFT, _HOP, _BANDS = 512, 256, 96
_FRAMES = WINDOW // _HOP + 1
_TALL, _LONG = (67, 38), (129, 65, 33)  # filters over frequency (67 and 38 bands) and over time (frames)


class Musicnn(WindowedNetwork):
    """The embedder `musicnn`; see the module."""

    name = "musicnn"
    dim = DIM
    sample_rate = SAMPLE_RATE
    window = WINDOW

    def __init__(self, published: MusicnnCheckpoint, checkpoint: str, backend: Backend) -> None:
        example = torch.zeros(2, _FRAMES, _BANDS)
        network = backend.compile(Penultimate(published), example, MusicnnSpectrogram(published))
        super().__init__(network, backend, checkpoint)

    def window_starts(self, samples: int) -> list[int]:
        return window_starts(samples)


def load(options: ModelOptions | None = None) -> Musicnn:
    """The embedder, ready.

    Raises:
        RootnoteError: if there is no checkpoint, it is not a MusiCNN checkpoint, or `windows` is given.
    """
    given = options or ModelOptions()
    refuse_options("musicnn", given, "checkpoint")
    # In bfloat16, cosines with float32 stay above 0.9998, but more than 1 % of the ten nearest of 2,000 clips change.
    backend = choose_backend(given.backend, bf16=False)
    path = checkpoint_path("musicnn", given)
    weights = tensors_in(read_checkpoint(path))
    published = MusicnnCheckpoint()
    # The output layer, whose size depends on the tags used in training, is not needed.
    load_into(published, {name: weights[name] for name in weights if not name.startswith("dense2.")}, path, "musicnn")
    return Musicnn(published, sha256_of(path), backend)


def window_starts(samples: int) -> list[int]:
    """The start samples of a clip's windows: the fewest that cover it, evenly spread."""
    return [round(start) for start in np.linspace(0, samples - WINDOW, math.ceil(samples / WINDOW))]


class _Block(nn.Module):
    def __init__(self, conv: nn.Conv1d | nn.Conv2d, bn: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.bn = conv, bn


class MusicnnCheckpoint(nn.Module):
    """The layers under the names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = nn.ModuleDict({"spectrogram": nn.Module(), "mel_scale": nn.Module()})
        self.spec["spectrogram"].register_buffer("window", torch.zeros(_FFT))
        self.spec["mel_scale"].register_buffer("fb", torch.zeros(_FFT // 2 + 1, _BANDS))
        self.spec_bn = nn.BatchNorm2d(1)
        tall = [_Block(nn.Conv2d(1, 204, (bands, 7)), nn.BatchNorm2d(204)) for bands in _TALL]
        long = [_Block(nn.Conv1d(1, 51, frames), nn.BatchNorm1d(51)) for frames in _LONG]
        self.layers = nn.ModuleList([*tall, *long])
        self.layer1, self.layer2, self.layer3 = (
            _Block(nn.Conv1d(channels, 64, 7), nn.BatchNorm1d(64)) for channels in (561, 64, 64)
        )
        self.dense1, self.bn = nn.Linear(1506, DIM), nn.BatchNorm1d(DIM)


class MusicnnSpectrogram(nn.Module):
    """Samples `[N, 48000]` to normalised decibels `[N, 188, 96]`."""

    window: torch.Tensor
    filters: torch.Tensor
    gain: torch.Tensor
    shift: torch.Tensor

    def __init__(self, published: MusicnnCheckpoint) -> None:
        super().__init__()
        stated = published.state_dict()
        norm = published.spec_bn
        gain = stated["spec_bn.weight"].double() / torch.sqrt(stated["spec_bn.running_var"].double() + norm.eps)
        self.register_buffer("window", stated["spec.spectrogram.window"])
        self.register_buffer("filters", stated["spec.mel_scale.fb"])
        self.register_buffer("gain", (10 * gain).float())
        self.register_buffer("shift", (stated["spec_bn.bias"] - stated["spec_bn.running_mean"] * gain).float())

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(samples, _FFT, _HOP, window=self.window, pad_mode="reflect", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        bands = power.transpose(1, 2) @ self.filters
        return torch.log10(bands.clamp(min=1e-10)) * self.gain + self.shift


class Penultimate(nn.Module):
    """The network up to the vector, optimised for speed: the same function up to rounding.

    Normalisation is folded into the layer before it. The bands under a tall filter become channels, last in memory, so
    the filter runs over time only and the CPU multiplies whole blocks. ReLUs come after max pooling.
    """

    def __init__(self, published: MusicnnCheckpoint) -> None:
        super().__init__()
        layers = [*published.layers, published.layer1, published.layer2, published.layer3]
        folded = [_over_time(*fold(block.conv, block.bn)) for block in layers]
        self.tall, self.long, self.deep = (nn.ModuleList(folded[a:b]) for a, b in ((0, 2), (2, 5), (5, 8)))
        self.dense = nn.Linear(1506, DIM)
        self.dense.weight.data, self.dense.bias.data = fold(published.dense1, published.bn)
        for index, bands in enumerate(_TALL):
            under = torch.arange(_BANDS - bands + 1)[:, None] + torch.arange(bands)
            self.register_buffer(f"under{index}", under.flatten(), persistent=False)

    def forward(self, decibels: torch.Tensor) -> torch.Tensor:
        """`[N, 188, 96]` -> `[N, 200]`; within, `[N, channels, frames, 1]`."""
        mean = decibels.mean(2)[:, None, :, None]
        front = torch.cat([*self._tall(decibels), *(functional.relu(layer(mean)) for layer in self.long)], 1)
        first, second, third = self.deep
        one = functional.relu(first(front))
        two = functional.relu(second(one)) + one
        three = functional.relu(third(two)) + two
        every = torch.cat([front, one, two, three], 1)
        vectors: torch.Tensor = self.dense(torch.cat([every.amax((2, 3)), every.mean((2, 3))], 1))
        return vectors

    def _tall(self, decibels: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for index, layer in enumerate(self.tall):
            bands, places = _TALL[index], _BANDS - _TALL[index] + 1
            under = decibels.index_select(2, self.get_buffer(f"under{index}"))
            under = under.view(-1, _FRAMES, places, bands).permute(0, 3, 1, 2)
            found.append(functional.relu(functional.max_pool2d(layer(under), (1, places))))
        return found


def _over_time(weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    """A convolution over time (the third axis) with weights `[out, 1, bands, frames]` or `[out, in, frames]`."""
    kernel = weight[:, 0] if weight.dim() == 4 else weight
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], (kernel.shape[2], 1), padding=(kernel.shape[2] // 2, 0))
    layer.weight.data, layer.bias.data = kernel[..., None], bias  # type: ignore[union-attr]
    return layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
