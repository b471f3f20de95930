"""Backends give the same result as the module, whatever the batch; checkpoint files are read but never executed."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from embeddings.checkpoints import load
from embeddings.checkpoints.load import checkpoint_path, fold, load_into, read_checkpoint, tensors_in
from embeddings.errors import CheckpointError, RootnoteError
from embeddings.models import backends
from embeddings.models.backends import Backend, choose_backend
from embeddings.models.base import ModelOptions

CPU = torch.device("cpu")
RUNNABLE = [Backend("torch", "fp32", CPU), Backend("torch", "bf16", CPU)]
if importlib.util.find_spec("openvino"):
    RUNNABLE += [Backend("openvino", form, CPU) for form in sorted({"fp32", choose_backend("openvino").precision})]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 32, (1, 5)), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 8)), nn.Flatten())


class Front(nn.Module):
    """A front end whose result is lost unless it runs in float32."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return (samples[:, None, None] - 1000) * 1000


@pytest.mark.parametrize("backend", RUNNABLE, ids=lambda one: f"{one.name}-{one.precision}")
def test_a_compiled_network_gives_the_same_as_the_module(backend: Backend, network: nn.Module) -> None:
    batch = 1000 + torch.randn(11, 300) / 1000
    with torch.inference_mode():
        expected = network.eval()(Front()(batch))
    run = backend.compile(network, torch.zeros(2, 1, 1, 300), Front())
    found = run(batch)
    assert found.dtype == torch.float32
    cosine = nn.functional.cosine_similarity(found, expected).min()
    assert cosine > (0.999999 if backend.precision == "fp32" else 0.9995)
    # bfloat16 is really used where it is promised.
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) == (backend.precision == "fp32")


@pytest.mark.parametrize("backend", RUNNABLE, ids=lambda one: f"{one.name}-{one.precision}")
def test_a_row_is_the_same_in_every_batch(backend: Backend, network: nn.Module) -> None:
    run = backend.compile(network, torch.zeros(2, 1, 1, 300))
    batch = torch.randn(23, 1, 1, 300)
    together = run(batch)
    assert torch.equal(together, torch.cat([run(row) for row in batch.split(1)]))
    assert torch.equal(together, run(batch))
    assert torch.equal(together, backend.compile(network, batch)(batch))


@pytest.mark.parametrize("backend", RUNNABLE, ids=lambda one: f"{one.name}-{one.precision}")
def test_other_users_of_torch_keep_their_threads(backend: Backend, network: nn.Module) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        backend.compile(network, torch.zeros(2, 1, 1, 300))(torch.zeros(9, 1, 1, 300))
        seen = [torch.get_num_threads()]
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [3, 3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="OpenVINO is not installed")
def test_openvino_runs_without_telemetry(network: nn.Module) -> None:
    choose_backend("openvino").compile(network, torch.zeros(2, 1, 1, 300))
    assert sys.modules["openvino_telemetry"] is None


def test_a_backend_records_its_settings() -> None:
    record = Backend("torch", "fp32", CPU).settings()
    assert record == {"backend": "torch", "precision": "fp32", "torch": torch.__version__}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The features of the machine, which a test can change."""
    has = {"cuda": False, "openvino": True, "bf16": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has["cuda"])
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: has["openvino"] or None)
    monkeypatch.setattr(backends, "_torch_bf16", lambda: has["bf16"])
    for kind in backends._MULTIPLIES_IN_BF16:
        monkeypatch.setitem(backends._MULTIPLIES_IN_BF16, kind, lambda: has["bf16"])
    return has


def chosen(name: str = "auto", bf16: bool = True) -> tuple[str, str]:
    backend = choose_backend(name, bf16=bf16)
    assert backend.device.type == ("cuda" if backend.name == "cuda" else "cpu")
    return backend.name, backend.precision


def test_auto_chooses_the_fastest_backend(machine: dict[str, bool]) -> None:
    assert chosen() == ("openvino", "bf16")
    assert chosen(bf16=False) == ("openvino", "fp32")
    machine["openvino"] = False
    assert chosen() == ("torch", "bf16")
    assert chosen(bf16=False) == ("torch", "fp32")
    machine["bf16"] = False
    assert chosen() == ("torch", "fp32")
    machine["cuda"] = True
    assert chosen() == ("cuda", "fp32")
    machine["bf16"] = True
    assert chosen() == ("cuda", "bf16")
    assert chosen(bf16=False) == ("cuda", "fp32")


def test_a_name_overrides_the_model(machine: dict[str, bool]) -> None:
    assert chosen("torch") == ("torch", "fp32")
    assert chosen("openvino") == ("openvino", "bf16")
    assert chosen("openvino", bf16=False) == ("openvino", "fp32")
    for kind in ("torch", "openvino"):
        assert chosen(f"{kind}-bf16", bf16=False) == (kind, "bf16")
    machine["bf16"] = False
    assert chosen("openvino") == ("openvino", "fp32")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "no backend 'tpu'.*torch, torch-bf16, openvino"),
        ("cuda", "no CUDA GPU; use --backend auto"),
        ("openvino", r"pip install 'rootnote\[fast-cpu\]'"),
        ("torch-bf16", "does not multiply in bfloat16; use --backend torch"),
    ],
)
def test_an_unavailable_backend_is_refused(name: str, message: str, machine: dict[str, bool]) -> None:
    machine.update(openvino=False, bf16=False)
    with pytest.raises(RootnoteError, match=message):
        choose_backend(name)


def test_folding_does_not_change_the_function() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6).eval()
    for statistic in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        statistic.uniform_(0.2, 2)
    weight, bias = fold(conv, norm)
    batch = torch.randn(5, 4, 20)
    assert torch.allclose(nn.functional.conv1d(batch, weight, bias), norm(conv(batch)), atol=1e-5)


# checkpoint files


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    content = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    if form == "safetensors":
        import safetensors.torch

        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(content, path)
    else:
        path = tmp_path / "model.pt"
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    found = tensors_in(read_checkpoint(path))
    assert all(torch.equal(found[name], content[name]) for name in content)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_without_running_it(new: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.pt"
    torch.save({"a": torch.ones(2), "b": Evil(mark)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(RootnoteError, match=r"model\.pt contains more than weights .* refused"):
        read_checkpoint(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_objects_that_a_trainer_saved_with_the_weights_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as only_here:
        made = trainer_objects(only_here)
        content = {
            "state_dict": {"a": torch.arange(3.0)},
            "callbacks": {type(made["callback"]): {"best_model_path": "x", "best_k": made["callback"]}},
            "hyper_parameters": made["hyper"],
            "args": argparse.Namespace(batch=48),
            "loss": np.float64(0.5),
        }
        torch.save(content, tmp_path / "last.ckpt")
    found = read_checkpoint(tmp_path / "last.ckpt")
    assert found["state_dict"]["a"].tolist() == [0, 1, 2]
    assert not isinstance(found["args"], argparse.Namespace)


def trainer_objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A callback and a dict of a trainer's own classes, which can be pickled only while the test lasts."""
    module = types.ModuleType("pytorch_lightning.kept")
    made: dict[str, object] = {}
    for role, name, base in (("callback", "ModelCheckpoint", object), ("hyper", "AttributeDict", dict)):
        kind = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, kind)
        made[role] = kind()
    made["hyper"]["seed"] = 42  # type: ignore[index]
    made["callback"].monitor = "loss"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.randn(300, 300)}, whole)
    legacy = tmp_path / "legacy.pt"
    torch.save({"a": torch.randn(300, 300)}, legacy, _use_new_zipfile_serialization=False)
    for name, content in {
        "cut.pt": whole.read_bytes()[:100_000],
        "legacy-cut.pt": legacy.read_bytes()[:100_000],
        "text.pt": b"404: Not Found",
        "empty.pt": b"",
        "page.zip": b"<html>sign in first</html>",
        "cut.zip": zipped(tmp_path / "a.zip", {"a.pt": whole.read_bytes()}).read_bytes()[:90_000],
        "text.safetensors": b"404: Not Found",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RootnoteError, match=rf"/{name} is not a checkpoint, or it is damaged") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(RootnoteError, match=r"nowhere\.pt is missing"):
        read_checkpoint(tmp_path / "nowhere.pt")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_searched_for_its_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pt")
    inner = (tmp_path / "a.pt").read_bytes()
    files = {"deep/down/model.PT": inner, "__MACOSX/deep/down/._model.pt": b"junk", "deep/README.md": b"read me"}
    assert read_checkpoint(zipped(tmp_path / "good.zip", files))["a"].tolist() == [0, 1, 2]
    # A path that leads out of the folder is a name like any other: nothing is unpacked.
    outside = zipped(tmp_path / "outside.zip", {"../../outside.pt": inner})
    assert read_checkpoint(outside)["a"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.rglob("*.pt")) == ["a.pt"]


def test_a_zip_without_one_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = zipped(tmp_path / "none.zip", {"README.md": b"read me"})
    with pytest.raises(RootnoteError, match=r"none\.zip contains no checkpoint \(\.pt, \.pth or \.ckpt\); unpack"):
        read_checkpoint(none)
    two = zipped(tmp_path / "two.zip", {"a.pt": b"1", "b.ckpt": b"2"})
    with pytest.raises(RootnoteError, match=r"two\.zip contains 2 checkpoints; unpack it and give"):
        read_checkpoint(two)
    monkeypatch.setattr(load, "_UNPACKED_LIMIT", 1 << 20)
    bomb = zipped(tmp_path / "bomb.zip", {"a.pt": bytes(2 << 20)})
    with pytest.raises(RootnoteError, match=r"bomb\.zip: a\.pt would unpack to more than 1 GiB"):
        read_checkpoint(bomb)


def test_a_torch_file_that_expands_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 18)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with pytest.raises(RootnoteError, match=r"swollen\.pt expands to more than its size, .* refused"):
        read_checkpoint(zipped(tmp_path / "swollen.pt", files))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, "is not a checkpoint of toy: it lacks '0.bias'"),
        ({"1.weight": torch.ones(2)}, "it has also '1.weight'"),
        ({"0.weight": torch.ones(3, 3)}, "it has another shape of '0.weight'"),
        ({"0.bias": torch.tensor([1.0, float("nan")])}, "has a weight that is not finite"),
    ],
)
def test_weights_must_fit(change: dict[str, torch.Tensor | None], message: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    given = {**network.state_dict(), **change}
    with pytest.raises(RootnoteError, match=message):
        load_into(network, {name: tensor for name, tensor in given.items() if tensor is not None}, tmp_path, "toy")


def test_tensors_are_found_in_mappings_only() -> None:
    one = torch.ones(1)
    assert tensors_in({"a": one, "b": "text", 3: one}) == {"a": one}
    assert tensors_in([one]) == {}


def test_without_a_checkpoint_the_command_that_fetches_it_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"`rootnote embeddings fetch clmr`.*\[embedding\.clmr\] checkpoint"):
        checkpoint_path("clmr", ModelOptions())
