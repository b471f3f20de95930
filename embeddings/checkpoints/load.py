"""Weights: checkpoint files, read without running any code in them.

A torch file is read by `torch.load(weights_only=True)`, a safetensors file by its own reader; both give tensors and
plain values only. What a trainer stored with the weights (Lightning's callbacks, numpy's numbers) is skipped;
a file that asks for anything else is refused.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embeddings.errors import CheckpointError, RootnoteError
from embeddings.models.base import ModelOptions

Weights = dict[str, torch.Tensor]

_UNPACKED_LIMIT = 1 << 30  # bytes of the one file read from within a zip
_TORCH_SUFFIXES = {".pt", ".pth", ".ckpt"}
# What torch's error says when a file refers to an object or function other than a tensor.
_ASKS_FOR_MORE = re.compile("GLOBAL|unrecognized function|Can only (create|build)")
# Objects that trainers store next to the weights: they are skipped and never created.
_PASSED_OVER = (
    "argparse.Namespace",
    "lightning.",
    "lightning_fabric.",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pytorch_lightning.",
)


def checkpoint_path(embedder: str, options: ModelOptions) -> Path:
    """The path of the checkpoint that the options name.

    Raises:
        CheckpointError: if they name none; gives the command that fetches one.
    """
    if options.checkpoint is None:
        raise CheckpointError(
            f"{embedder} needs its weights: run `rootnote embeddings fetch {embedder}`, then give --checkpoint PATH "
            f'(in a study: [embedding.{embedder}] checkpoint = "PATH").'
        )
    return Path(options.checkpoint).expanduser()


def read_checkpoint(path: Path) -> Any:
    """The content of a checkpoint file (usually a dict with the weights somewhere in it), on the CPU.

    A zip that is not itself a torch file is searched for the one torch file (.pt, .pth, .ckpt) in it.

    Raises:
        RootnoteError: if it is missing, truncated, not a checkpoint, or has more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} is missing; correct the path, or fetch it.")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        return _load(_file_within(path), path)
    except RootnoteError:
        raise
    except Exception as error:  # torch, zipfile and safetensors raise many kinds on damaged files
        raise CheckpointError(
            f"{path} is not a checkpoint, or it is damaged ({type(error).__name__}); fetch it again."
        ) from error


def load_into(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path, model: str) -> None:
    """Load weights that must match the network name by name and shape by shape.

    Raises:
        RootnoteError: naming the first weight that is missing, unexpected or of another shape.
    """
    expected = network.state_dict()
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - weights.keys() - optional)
    surplus = sorted(weights.keys() - expected.keys())
    shapes = sorted(n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape)
    for what, names in (("lacks", missing), ("has also", surplus), ("has another shape of", shapes)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path} is not a checkpoint of {model}: it {what} '{names[0]}'{more}.")
    network.load_state_dict(dict(weights), strict=False)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise CheckpointError(f"{path} has a weight that is not finite; fetch it again.")


def tensors_in(content: Any) -> Weights:
    """The named tensors of a mapping; empty if it is not a mapping."""
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def fold(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one layer that is equivalent to `layer` followed by its batch normalisation.

    Computed in float64 and rounded once.
    """
    given = {name: tensor.double() for name, tensor in layer.state_dict().items()}
    stated = {name: tensor.double() for name, tensor in norm.state_dict().items()}
    gain = stated["weight"] / torch.sqrt(stated["running_var"] + norm.eps)
    weight = given["weight"] * gain.view(-1, *[1] * (given["weight"].dim() - 1))
    bias = (given["bias"] - stated["running_mean"]) * gain + stated["bias"]
    return weight.float(), bias.float()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_within(path: Path) -> Path | io.BytesIO:
    """The torch file itself, or the bytes of the one inside a zip; nothing is written to disk."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # A torch file is a zip with uncompressed entries; one that expands on reading is not from torch.
        if any(entry.filename.endswith("/data.pkl") for entry in entries):
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError(
                    f"{path} expands to more than its size, which torch files never do; it was refused."
                )
            return path
        found = [entry for entry in entries if _is_torch_name(entry.filename)]
        if len(found) != 1:
            holds = f"{len(found)} checkpoints" if found else "no checkpoint (.pt, .pth or .ckpt)"
            raise CheckpointError(f"{path} contains {holds}; unpack it and give the path of the right file.")
        if found[0].file_size > _UNPACKED_LIMIT:
            raise CheckpointError(f"{path}: {found[0].filename} would unpack to more than 1 GiB; it was refused.")
        with archive.open(found[0]) as file:
            return io.BytesIO(file.read(_UNPACKED_LIMIT))


def _is_torch_name(name: str) -> bool:
    # macOS adds a "._name" to an archive for every file.
    path = Path(name)
    return path.suffix.lower() in _TORCH_SUFFIXES and not path.name.startswith("._")


def _load(file: Path | io.BytesIO, path: Path) -> Any:
    known: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_PassedDict if name.endswith("Dict") else _Passed, name) for name in _skippable_objects(file)
    ]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the format
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _ASKS_FOR_MORE.search(str(error)):
            raise CheckpointError(
                f"{path} contains more than weights (loading it would run code); it was refused."
            ) from error
        raise


def _skippable_objects(file: Path | io.BytesIO) -> list[str]:
    """Names of the objects in a torch file that may be skipped."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []  # the older format, or damaged: loading reports it
    finally:
        if isinstance(file, io.BytesIO):
            file.seek(0)
    return [name for name in names if name.startswith(_PASSED_OVER)]


class _Passed:
    """Placeholder for an object that is not needed: takes any arguments and does nothing."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


class _PassedDict:
    """The same for subclasses of dict."""

    def __new__(cls, *_: Any) -> Any:
        return {}
