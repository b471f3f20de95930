"""CLAP: LAION's checkpoints give the same vectors as LAION's code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions, Vectors, unit
from embeddings.models.clap import DIM, PIECE, SAMPLE_RATE, Clap, filled, load, pieces, quantised
from tests.embeddings.models.golden.clap_inputs import clips, weight
from tests.embeddings.sounds import melody

pytestmark = pytest.mark.network

GOLDEN = Path(__file__).parent / "golden" / "laion_clap.npz"

BASE = {
    "patch_embeds_hidden_size": 128,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 1024,
}
# The conversion the other way, written from the table of names and not from the code under test.
TO_LAION = (
    (r"^audio_model\.audio_encoder\.", "audio_branch."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.batch_norm\.", ".bn0."),
    (r"^audio_projection\.linear1\.", "audio_projection.0."),
    (r"^audio_projection\.linear2\.", "audio_projection.2."),
)


def network(seed: int = 0, **config: Any) -> ClapAudioModelWithProjection:
    """Random weights of a size at which different clips get different vectors."""
    torch.manual_seed(seed)
    made = ClapAudioModelWithProjection(ClapAudioConfig(**config)).eval()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() > 1 and "bias_table" not in name:
                tensor.normal_(0, 1.5 / np.sqrt(tensor[0].numel()))
        norm = made.audio_model.audio_encoder.batch_norm
        norm.running_mean.fill_(-40)
        norm.running_var.fill_(400)
    return made


def laion_state(made: ClapAudioModelWithProjection, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """The state dict as saved by LAION's trainer: its own names, qkv in one tensor, with a text branch."""
    found: dict[str, torch.Tensor] = {}
    state = made.state_dict()
    for name, tensor in state.items():
        if ".attention.self.key." in name or ".attention.self.value." in name:
            continue
        if ".attention.self.query." in name:
            parts = [state[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            name, tensor = name.replace(".query.", ".qkv."), torch.cat(parts)
        for pattern, new in TO_LAION:
            name = re.sub(pattern, new, name)
        found[prefix + name] = tensor
    found[prefix + "text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    found[prefix + "audio_branch.logmel_extractor.melW"] = torch.zeros(513, 64)
    found[prefix + "logit_scale_a"] = torch.tensor(2.6)
    return found


@pytest.fixture(scope="module")
def tiny() -> ClapAudioModelWithProjection:
    return network()


@pytest.fixture(scope="module")
def checkpoint(tiny: ClapAudioModelWithProjection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clap") / "630k-audioset-best.pt"
    torch.save({"epoch": 3, "name": "x", "state_dict": laion_state(tiny)}, path)
    return path


@pytest.fixture(scope="module")
def clap(checkpoint: Path) -> Clap:
    return load(ModelOptions(str(checkpoint), backend="torch"))


def sounds(seconds: float, count: int, seed: int = 0) -> Vectors:
    """Melodies and noises in turn."""
    rng = np.random.default_rng(seed)
    size = round(seconds * SAMPLE_RATE)
    noise = [rng.uniform(-1.2, 1.2, size).astype(np.float32) * rng.uniform(0.01, 1) for _ in range(count // 2)]
    return np.stack([melody(seconds, seed + one, SAMPLE_RATE) for one in range(count - len(noise))] + noise)


def by_transformers(made: ClapAudioModelWithProjection, clips: Vectors) -> Vectors:
    """transformers' own extractor, with LAION's lowest frequency, and model on audio of 16 bits."""
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    whole = (np.clip(clips, -1, 1) * 32767).astype(np.int16) / 32767
    features = extractor(list(whole.astype(np.float32)), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.inference_mode():
        return unit(made(input_features=features["input_features"]).audio_embeds.numpy())


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "count"), [(3.0, 6), (10.0, 2), (6.9, 2), (5.0, 2), (1.0, 2)])
def test_equal_to_transformers_own(clap: Clap, tiny: ClapAudioModelWithProjection, seconds: float, count: int) -> None:
    clips = sounds(seconds, count)
    own, reference = unit(clap.embed(clips)), by_transformers(tiny, clips)
    assert (own * reference).sum(axis=1).min() >= 0.99999
    if count > 2:
        alike = reference @ reference.T
        assert alike[~np.eye(count, dtype=bool)].min() < 0.999, "vectors that do not differ would prove nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "config"), [("HTSAT-tiny", {}), pytest.param("HTSAT-base", BASE, marks=pytest.mark.soak)]
)
def test_equal_to_the_published_package(model: str, config: dict[str, Any], tmp_path: Path) -> None:
    """Compare with laion_clap 1.1.7's `get_audio_embedding_from_data`, stored by golden/make_laion_clap.py."""
    reference = np.load(GOLDEN)[model]
    state = laion_state(ClapAudioModelWithProjection(ClapAudioConfig(**config)))
    for name, tensor in state.items():
        value = weight(name.removeprefix("module."), tuple(tensor.shape))
        if value is not None and "text_branch" not in name and "logit" not in name:
            state[name] = torch.from_numpy(value)
    torch.save({"state_dict": state}, tmp_path / "laion.pt")
    clap = load(ModelOptions(str(tmp_path / "laion.pt"), backend="torch"))
    own = unit(np.concatenate([clap.embed(clip[None]) for clip in clips()]))
    alike = reference @ reference.T
    assert alike[~np.eye(len(reference), dtype=bool)].max() < 0.99, "vectors that do not differ would prove nothing"
    assert (own * reference).sum(axis=1).min() >= 0.99999


@pytest.mark.slow
def test_the_larger_network_is_recognised(tmp_path: Path) -> None:
    made = network(**BASE)
    torch.save(laion_state(made, prefix=""), tmp_path / "music.pt")
    clips = sounds(3, 2)
    own = unit(load(ModelOptions(str(tmp_path / "music.pt"), backend="torch")).embed(clips))
    assert (own * by_transformers(made, clips)).sum(axis=1).min() >= 0.99999


@pytest.mark.slow
def test_openvino_gives_the_same(clap: Clap, checkpoint: Path) -> None:
    pytest.importorskip("openvino")
    clips = sounds(3, 4)
    fast = load(ModelOptions(str(checkpoint), backend="openvino"))
    assert fast.runtime()["backend"] == "openvino"
    assert (unit(fast.embed(clips)) * unit(clap.embed(clips))).sum(axis=1).min() >= 0.9995


@pytest.mark.slow
def test_a_clip_has_the_same_vector_alone_and_in_a_batch(clap: Clap) -> None:
    clips = sounds(3, 6)
    alone = np.concatenate([clap.embed(clip[None]) for clip in clips])
    together = clap.embed(clips)
    assert together.shape == (6, DIM) and together.dtype == np.float32
    assert together == pytest.approx(alone, abs=1e-5)
    assert clap.embed(clips[:0]).shape == (0, DIM)


@pytest.mark.slow
def test_a_long_clip_is_the_mean_of_its_pieces(clap: Clap) -> None:
    clip = sounds(15, 1)
    parts = [unit(clap.embed(clip[:, :PIECE])), unit(clap.embed(clip[:, PIECE:]))]
    assert clap.embed(clip) == pytest.approx((parts[0] + parts[1]) / 2, abs=1e-5)
    assert clap.embed(clip).tobytes() == clap.embed(clip).tobytes(), "nothing is drawn at random"


def test_long_clips_are_cut_and_short_clips_are_padded() -> None:
    second = SAMPLE_RATE
    assert pieces(3 * second) == [(0, 3 * second)]
    assert pieces(second // 2) == [(0, second // 2)]
    assert pieces(10 * second) == [(0, 10 * second)]
    assert pieces(21 * second) == [(0, PIECE), (PIECE, 2 * PIECE), (2 * PIECE, 21 * second)]
    assert pieces(20 * second + second // 2) == [(0, PIECE), (PIECE, 2 * PIECE)]
    clip = np.arange(1, 3 * second + 1, dtype=np.float32)[None]
    whole = filled(clip)
    assert (whole[0, : 9 * second].reshape(3, -1) == clip).all() and not whole[0, 9 * second :].any()
    assert quantised(np.array([[2.0, -2.0, 0.5, 1e-6]], np.float32))[0] == pytest.approx([1, -1, 16383 / 32767, 0])


@pytest.mark.slow
def test_a_hugging_face_folder(clap: Clap, tiny: ClapAudioModelWithProjection, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(tmp_path)
    clips = sounds(3, 2)
    assert load(ModelOptions(str(tmp_path), backend="torch")).embed(clips) == pytest.approx(clap.embed(clips), abs=1e-6)
    for file, change, error_message in (
        ("preprocessor_config.json", {"frequency_min": 0}, r"needs frequency_min = 0, but clap's spectrogram has 50\."),
        ("config.json", {"enable_fusion": True}, "fused CLAP, whose vectors depend on the batch"),
        ("config.json", {"model_type": "bert"}, "does not hold a CLAP model"),
    ):
        before = (tmp_path / file).read_text()
        (tmp_path / file).write_text(json.dumps({**json.loads(before), **change}))
        with pytest.raises(RootnoteError, match=error_message):
            load(ModelOptions(str(tmp_path)))
        (tmp_path / file).write_text(before)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(RootnoteError, match=r"preprocessor_config\.json is missing"):
        load(ModelOptions(str(tmp_path)))


@pytest.mark.slow
def test_other_files_than_clap_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    def refused(error_message: str, **options: Any) -> None:
        with pytest.raises(RootnoteError, match=error_message):
            load(ModelOptions(**options))

    refused("clap needs its weights: run `rootnote embeddings fetch clap`")
    refused("clap takes no windows", checkpoint=str(checkpoint), windows="mean")
    refused("the checkpoint .*none.pt is missing", checkpoint=str(tmp_path / "none.pt"))
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    refused("has no audio branch of HTSAT-tiny or -base", checkpoint=str(tmp_path / "other.pt"))
    (tmp_path / "torn.pt").write_bytes(checkpoint.read_bytes()[:100_000])
    refused(r"torn\.pt is not a checkpoint, or it is damaged", checkpoint=str(tmp_path / "torn.pt"))
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    state.pop("module.audio_branch.norm.weight")
    torch.save(state, tmp_path / "less.pt")
    refused("it lacks 'audio_model.audio_encoder.norm.weight'", checkpoint=str(tmp_path / "less.pt"))
    state["module.audio_branch.norm.weight"] = torch.full((768,), torch.nan)
    torch.save(state, tmp_path / "nan.pt")
    refused("has a weight that is not finite", checkpoint=str(tmp_path / "nan.pt"))
    state["module.audio_branch.mel_conv2d.weight"] = torch.zeros(96, 1, 4, 12)
    torch.save(state, tmp_path / "fused.pt")
    refused("fused CLAP", checkpoint=str(tmp_path / "fused.pt"))
