"""Backends: the libraries and devices that run a network.

A model is a torch module that maps a batch to vectors; a backend turns it into a faster callable with the same results:

- `torch`: the module as it is, in float32, on the CPU;
- `openvino`: compiled by OpenVINO (extra `fast-cpu`);
- `cuda`: on an NVIDIA GPU, under autocast.

The last two multiply in bfloat16 if the machine supports it and the model allows it. A model whose nearest clips
change in bfloat16 does not allow it and runs in float32; `-bf16` after a name requests bfloat16 anyway.

Conventions: front ends (spectrograms) run in float32 on the backend's device; a compiled network takes and returns
float32. On the CPU each thread runs the network on one clip at a time, with one thread per core: a clip's data stay in
the cache, no core waits for another, and a vector is the same to the last bit whatever the batch of its clip. Vectors
of two backends have a cosine of 0.9995 or more (in float32, 0.99999), so a backend is recorded with the vectors but
does not make them stale.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from embeddings.errors import ConfigError, MissingPackageError, ResourceError
from embeddings.models.base import BACKENDS
from embeddings.threads import cores, one_torch_thread

Network = Callable[[torch.Tensor], torch.Tensor]

_AT_A_TIME = 4  # clips that a thread of `torch` takes at a time


@dataclass(frozen=True)
class Backend:
    """One way to run a network: its `name`, the `precision` it multiplies in, the torch `device` of its tensors."""

    name: str
    precision: str
    device: torch.device

    def settings(self) -> dict[str, str]:
        """What to record with the vectors: backend, precision and versions."""
        packages = ["torch", "openvino"] if self.name == "openvino" else ["torch"]
        return {"backend": self.name, "precision": self.precision, **{name: version(name) for name in packages}}

    def compile(self, network: torch.nn.Module, example: torch.Tensor, front: torch.nn.Module | None = None) -> Network:
        """Make a callable of `network`, which takes tensors like `example` with one or more rows.

        Args:
            example: a batch of the shape and type the network will be given, with any number of rows.
            front: turns the callable's input into the network's input; it stays in float32.
        """
        network = network.eval().to(self.device)
        front = (front or torch.nn.Identity()).eval().to(self.device)
        if self.name == "openvino":
            return _openvino(front, network, example, self.precision)
        if self.name == "cuda":
            return _cuda(front, network, self.precision)
        return _torch(front, network, self.precision)


def choose_backend(name: str = "auto", *, bf16: bool = True) -> Backend:
    """The backend of this name; for `auto`, the fastest one on this machine.

    Args:
        bf16: whether the model's nearest clips stay the same in bfloat16; if not, it runs in float32 unless the name
            asks for bfloat16.

    Raises:
        RootnoteError: if the name is not known or this machine lacks the backend.
    """
    if name not in BACKENDS:
        raise ConfigError(f"there is no backend '{name}'; the known ones are: {', '.join(BACKENDS)}.")
    if name == "auto":
        name = _fastest(bf16)
    kind, _, forced = name.partition("-")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"--backend {name}: torch finds no CUDA GPU; use --backend auto.")
    if kind == "openvino" and not importlib.util.find_spec("openvino"):
        raise MissingPackageError(f"--backend {name}: OpenVINO is missing; run `pip install 'rootnote[fast-cpu]'`.")
    able = _MULTIPLIES_IN_BF16[kind]()
    if forced and not able:
        raise ConfigError(f"--backend {name}: this machine does not multiply in bfloat16; use --backend {kind}.")
    small = forced or (able and bf16 and kind != "torch")
    return Backend(kind, "bf16" if small else "fp32", torch.device("cuda" if kind == "cuda" else "cpu"))


def _fastest(bf16: bool) -> str:
    if torch.cuda.is_available():
        return "cuda"
    if importlib.util.find_spec("openvino"):
        return "openvino"
    return "torch-bf16" if bf16 and _torch_bf16() else "torch"


def _torch(front: torch.nn.Module, network: torch.nn.Module, precision: str) -> Network:
    # Threads with one clip each never wait for each other, unlike threads inside an operator.
    pool = ThreadPoolExecutor(cores(), "network", initializer=torch.set_num_threads, initargs=(1,))

    def some(rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            given = [front(row) for row in _split(rows, 1)]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return torch.cat([network(one) for one in given]).float()

    def run(batch: torch.Tensor) -> torch.Tensor:
        vectors = torch.cat(list(pool.map(some, _split(batch, _AT_A_TIME))))
        # New threads inherit the number set last, which was the pool's.
        torch.set_num_threads(torch.get_num_threads())
        return vectors

    return run


def _split(batch: torch.Tensor, rows: int) -> tuple[torch.Tensor, ...]:
    return batch.split(rows)  # type: ignore[no-untyped-call,no-any-return]


def _cuda(front: torch.nn.Module, network: torch.nn.Module, precision: str) -> Network:
    small = precision == "bf16"

    def run(batch: torch.Tensor) -> torch.Tensor:
        # By default, a convolution in "float32" rounds its factors to 11 bits.
        with torch.inference_mode(), torch.backends.cudnn.flags(True, allow_tf32=small):
            given = front(batch)
            with torch.autocast("cuda", torch.bfloat16, enabled=small):
                result: torch.Tensor = network(given)
            return result.float()

    return run


def _openvino(front: torch.nn.Module, network: torch.nn.Module, example: torch.Tensor, precision: str) -> Network:
    openvino = _import_openvino()
    row = example[:1].contiguous()
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO traces the module with torch and reads all its attributes; both emit deprecation warnings.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=row, input=list(row.shape))
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"bf16": openvino.Type.bf16, "fp32": openvino.Type.f32}[precision],
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": cores(),
        "NUM_STREAMS": cores(),
        "ENABLE_CPU_PINNING": False,  # decoders and other processes want the cores too
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    width = compiled.output(0).shape[1]
    requests = openvino.AsyncInferQueue(compiled, cores())

    def run(batch: torch.Tensor) -> torch.Tensor:
        vectors = np.empty((len(batch), width), np.float32)

        def keep(request: Any, index: int) -> None:
            vectors[index] = request.get_output_tensor(0).data[0]

        requests.set_callback(keep)
        with torch.inference_mode(), one_torch_thread():
            for index, row in enumerate(_split(batch, 1)):
                requests.start_async({0: front(row).contiguous().numpy()}, index)
        requests.wait_all()
        return torch.from_numpy(vectors)

    return run


def _import_openvino() -> Any:
    # OpenVINO reports each import and conversion over the network through this package, if it finds it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _torch_bf16() -> bool:
    # A torch that is too old to report this is treated as if the CPU lacked it.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _openvino_bf16() -> bool:
    openvino = _import_openvino()
    # OpenVINO's own choice: bfloat16 if the CPU has it natively, not if it would be emulated.
    return bool(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") == openvino.Type.bf16)


def _cuda_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


_MULTIPLIES_IN_BF16: dict[str, Callable[[], bool]] = {
    "torch": _torch_bf16,
    "openvino": _openvino_bf16,
    "cuda": _cuda_bf16,
}
