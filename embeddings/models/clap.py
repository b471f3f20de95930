"""CLAP: the audio branch of LAION's contrastive language-audio models (Wu et al., 2023).

Weights come from LAION's own .pt files (`630k-audioset-best.pt` is HTSAT-tiny, which the paper used; the `music_*`
files are HTSAT-base) or from a Hugging Face folder or id. The network is the audio part of `transformers`' CLAP.

Conventions, as in LAION's code: mono at 48,000 Hz, clipped to ±1 and quantised to 16 bits; a clip shorter than 10 s is
repeated as often as it fits in full, then padded with silence; the spectrogram is power (1,024 samples every 480, 64
Slaney mel bands from 50 to 14,000 Hz) in decibels. A longer clip is cut into segments of 10 s (a remainder of less
than 1 s is dropped), and the vector is the mean of their unit vectors; LAION's own code crops such a clip at random.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from embeddings.checkpoints.load import Weights, checkpoint_path, load_into, read_checkpoint, sha256_of, tensors_in
from embeddings.errors import CheckpointError, ResourceError
from embeddings.models.backends import Backend, Network, choose_backend
from embeddings.models.base import ModelOptions, Vectors, refuse_options
from embeddings.models.windows import mean_direction, run_network

SAMPLE_RATE = 48_000
PIECE = 10 * SAMPLE_RATE
DIM = 512
_FFT, _HOP, _BANDS = 1024, 480, 64
_FRAMES = PIECE // _HOP + 1
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 14_000.0
# The width of the first layer distinguishes HTSAT-tiny from -base.
_ARCHITECTURES: dict[int, dict[str, Any]] = {
    96: {},
    128: {
        "patch_embeds_hidden_size": 128,
        "depths": [2, 2, 12, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "hidden_size": 1024,
    },
}
_RENAMED = (
    ("audio_branch.", "audio_model.audio_encoder."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.self."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".bn0.", ".batch_norm."),
    ("audio_projection.0.", "audio_projection.linear1."),
    ("audio_projection.2.", "audio_projection.linear2."),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Clap:
    """The embedder `clap`; see the module."""

    name = "clap"
    dim = DIM
    sample_rate = SAMPLE_RATE
    fits = False
    light = False
    batch_size = 32

    def __init__(self, network: nn.Module, checkpoint: str, backend: Backend) -> None:
        self._checkpoint, self._backend = checkpoint, backend
        example = torch.zeros(2, 1, _FRAMES, _BANDS)
        self._network: Network = backend.compile(_Vectors(network), example, ClapSpectrogram())

    def settings(self) -> dict[str, Any]:
        return {"version": 1, "checkpoint": self._checkpoint, "piece": PIECE}

    def runtime(self) -> dict[str, str]:
        import transformers

        return {**self._backend.settings(), "transformers": transformers.__version__}

    def embed(self, batch: Vectors) -> Vectors:
        """Vectors `[N, 512]` of clips `[N, samples]`."""
        if not len(batch):
            return np.zeros((0, DIM), np.float32)
        return mean_direction([self._vectors(batch[:, begin:end]) for begin, end in pieces(batch.shape[1])])

    def fit(self, features: Vectors) -> None:
        """Nothing is fitted."""

    def _vectors(self, clips: Vectors) -> Vectors:
        return run_network(self._network, self._backend, filled(quantised(clips)))


def load(options: ModelOptions | None = None) -> Clap:
    """The embedder, ready.

    Raises:
        RootnoteError: if there is no checkpoint, it is not a CLAP checkpoint, or `windows` is given.
    """
    given = options or ModelOptions()
    refuse_options("clap", given, "checkpoint")
    # As with the other networks, bfloat16 is used only if it is requested by name.
    backend = choose_backend(given.backend, bf16=False)
    path = checkpoint_path("clap", given)
    if not path.exists() and _HUB_ID.fullmatch(str(given.checkpoint)):
        path = _from_hub(str(given.checkpoint))
    network, digest = _from_folder(path) if path.is_dir() else _from_laion(path)
    return Clap(network, digest, backend)


def pieces(samples: int) -> list[tuple[int, int]]:
    """(begin, end) of the segments of 10 s of a clip; the last may be shorter, but a later one has at least 1 s."""
    ends = [(begin, min(begin + PIECE, samples)) for begin in range(0, samples, PIECE)]
    return [piece for piece in ends if piece[1] - piece[0] >= SAMPLE_RATE] or ends[:1]


def quantised(clips: Vectors) -> Vectors:
    """Samples rounded to 16-bit integers and converted back to floats."""
    return (np.clip(clips, -1, 1) * np.float32(32767)).astype(np.int16).astype(np.float32) / np.float32(32767)


def filled(clips: Vectors) -> Vectors:
    """Clips `[N, samples]` repeated as often as they fit in 10 s in full, then padded with silence: `[N, 480000]`."""
    out = np.zeros((len(clips), PIECE), np.float32)
    repeated = np.tile(clips, (1, PIECE // clips.shape[1]))
    out[:, : repeated.shape[1]] = repeated
    return out


class ClapSpectrogram(nn.Module):
    """Log-mel spectrograms `[N, 1, 1001, 64]` of samples `[N, 480000]`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_FFT, dtype=torch.float64).float())
        self.register_buffer("filters", torch.from_numpy(slaney_filters()))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Conventions of `librosa.stft`: frames are centred and the ends are reflected."""
        spectrum = torch.stft(samples, _FFT, _HOP, window=self.get_buffer("window"), return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        bands = torch.matmul(power.transpose(1, 2), self.get_buffer("filters"))
        return 10 * torch.log10(torch.clamp(bands, min=1e-10))[:, None]


def slaney_filters() -> Vectors:
    """Triangles on Slaney's mel scale, each of unit area over frequency: float32 `[513, 64]`."""
    mels = np.linspace(_slaney_mel(_LOWEST_HZ), _slaney_mel(_HIGHEST_HZ), _BANDS + 2)
    hertz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1)[:, None]
    rising = (bins - hertz[:-2]) / np.diff(hertz)[:-1]
    falling = (hertz[2:] - bins) / np.diff(hertz)[1:]
    filters: Vectors = (np.clip(np.minimum(rising, falling), 0, None) * 2 / (hertz[2:] - hertz[:-2])).astype(np.float32)
    return filters


def _slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000)) / float(np.log(6.4))


class _Vectors(nn.Module):
    """Spectrograms -> vectors, scaled to unit norm."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.network(input_features=spectrograms).audio_embeds
        return functional.normalize(vectors, dim=-1)


def _from_laion(path: Path) -> tuple[nn.Module, str]:
    """The network of a LAION .pt file, and the file's SHA-256."""
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    content = read_checkpoint(path)
    nested = content.get("state_dict") if isinstance(content, dict) else None
    weights = renamed(tensors_in(nested if isinstance(nested, dict) else content))
    first = weights.get("audio_model.audio_encoder.patch_embed.proj.weight")
    architecture = _ARCHITECTURES.get(len(first)) if first is not None and first.dim() else None
    if architecture is None:
        raise CheckpointError(f"{path} is not a checkpoint of clap: it has no audio branch of HTSAT-tiny or -base.")
    if "audio_model.audio_encoder.mel_conv2d.weight" in weights:
        raise CheckpointError(f"{path} is a fused CLAP, whose vectors depend on the batch; give one without fusion.")
    network = ClapAudioModelWithProjection(ClapAudioConfig(**architecture))
    expected = network.state_dict()
    load_into(network, {name: weights[name] for name in weights if name in expected}, path, "clap")
    return network, sha256_of(path)


def renamed(weights: Weights) -> Weights:
    """The weights of the audio branch and its projection under the names of `transformers`, without the others."""
    found: Weights = {}
    for name, tensor in weights.items():
        short = name.removeprefix("module.")
        if not short.startswith(("audio_branch.", "audio_projection.")):
            continue
        for old, new in _RENAMED:
            short = short.replace(old, new)
        if ".attention.self.qkv." not in short:
            found[short] = tensor
            continue
        for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            found[short.replace(".qkv.", f".{part}.")] = third
    return found


def _from_hub(name: str) -> Path:
    """The folder with the files of a Hugging Face model, from its cache or downloaded."""
    import huggingface_hub

    wanted = ["config.json", "preprocessor_config.json", "model.safetensors"]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # many kinds: no network, no such model, no permission to read it
        raise ResourceError(
            f"the Hugging Face model {name} cannot be fetched ({type(error).__name__}); "
            "give the path of a file, or `rootnote embeddings fetch clap`."
        ) from error


def _from_folder(folder: Path) -> tuple[nn.Module, str]:
    """The network of a Hugging Face folder, and the SHA-256 of its weights."""
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    config = _read_json(folder / "config.json")
    stated = config.get("audio_config", config)
    if config.get("model_type") not in ("clap", "clap_audio_model") or not isinstance(stated, dict):
        raise CheckpointError(f"{folder} does not hold a CLAP model; give a LAION checkpoint or another folder.")
    if stated.get("enable_fusion"):
        raise CheckpointError(f"{folder} is a fused CLAP, whose vectors depend on the batch; give one without fusion.")
    _require_front_end(folder)
    path = folder / "model.safetensors"
    network = ClapAudioModelWithProjection(ClapAudioConfig(**stated))
    expected = network.state_dict()
    weights = tensors_in(read_checkpoint(path))
    load_into(network, {name: weights[name] for name in weights if name in expected}, path, "clap")
    return network, sha256_of(path)


def _require_front_end(folder: Path) -> None:
    """Refuse a model that was trained on a spectrogram different from LAION's."""
    stated = _read_json(folder / "preprocessor_config.json")
    own = {
        "sampling_rate": SAMPLE_RATE,
        "fft_window_size": _FFT,
        "hop_length": _HOP,
        "feature_size": _BANDS,
        "frequency_min": _LOWEST_HZ,
        "frequency_max": _HIGHEST_HZ,
    }
    for name, value in own.items():
        if name in stated and stated[name] != value:
            raise CheckpointError(f"{folder} needs {name} = {stated[name]}, but clap's spectrogram has {value:g}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or is not JSON; give a complete Hugging Face folder.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object; give a complete Hugging Face folder.")
    return content
