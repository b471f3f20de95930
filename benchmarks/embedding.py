"""Embedding from music files: Rootnote's backends compared with a simple loop as in notebooks, in one run.

Usage: python benchmarks/embedding.py [--models clmr clap] [--minutes 4] [--repeats 3] [--audio FOLDER] [--top 0]
The loop goes file by file: librosa loads and resamples, the network runs eagerly in float32 on one clip at a time
(CLMR as published; CLAP with transformers' extractor and HTSAT-tiny). Rootnote runs `embed_corpus`, including reading.
Weights are random; music is synthesised and encoded as mp3 unless a folder is given. Contenders take turns; the results
are medians. GFLOP/s are for the network alone; below the table is the speed of a large matrix product in the same run.
--top N also compares the backends' neighbours with those of torch in float32: the ten nearest of N clips.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.music import synthesise
from embeddings.audio.corpus import CutSettings, cut, tracks_of, write_corpus
from embeddings.audio.decode import find_audio, read_clips
from embeddings.embed import embed_corpus
from embeddings.models.base import Embedder, ModelOptions, unit
from embeddings.models.clmr import published_encoder
from embeddings.models.registry import load_embedder
from embeddings.search.exact import nearest
from embeddings.threads import cores
from tests.embeddings.sounds import write

SECONDS = 3.0
BACKENDS = ("torch", "torch-bf16", "openvino", "openvino-bf16")
WINDOW = 59_049


@dataclass(frozen=True)
class Model:
    """A model with random weights: its checkpoint, the notebook loop, and the network for counting operations."""

    name: str
    checkpoint: Path
    rate: int
    by_hand: Callable[[np.ndarray[Any, Any]], Any]
    gflop: float


def make_clmr(folder: Path) -> Model:
    torch.manual_seed(0)
    network = published_encoder().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv1d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save({f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}, folder / "clmr.pt")
    blocks = list(network["sequential"].children())

    def forward(samples: torch.Tensor) -> torch.Tensor:
        x = samples[:, None]
        for number, block in enumerate(blocks):
            x = functional.relu(block(x))
            x = functional.max_pool1d(x, 3) if 0 < number < 10 else x
        return x.flatten(1)

    def by_hand(clip: np.ndarray[Any, Any]) -> Any:
        with torch.no_grad():
            return forward(torch.from_numpy(clip[None, :WINDOW])).numpy()

    return Model("clmr", folder / "clmr.pt", 22_050, by_hand, flop_of(lambda: by_hand(np.zeros(WINDOW, np.float32))))


def make_clap(folder: Path) -> Model:
    torch.manual_seed(0)
    network = ClapAudioModelWithProjection(ClapAudioConfig()).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() > 1 and "bias_table" not in name:
                tensor.normal_(0, 1.5 / np.sqrt(tensor[0].numel()))
        norm = network.audio_model.audio_encoder.batch_norm
        norm.running_mean.fill_(-40)
        norm.running_var.fill_(400)
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    network.save_pretrained(folder / "clap")
    extractor.save_pretrained(folder / "clap")

    def by_hand(clip: np.ndarray[Any, Any]) -> Any:
        with torch.no_grad():
            features = extractor(clip, sampling_rate=48_000, return_tensors="pt")
            return network(input_features=features["input_features"]).audio_embeds.numpy()

    silence = np.zeros(3 * 48_000, np.float32)
    return Model("clap", folder / "clap", 48_000, by_hand, flop_of(lambda: by_hand(silence)))


def flop_of(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def notebook_loop(model: Model, files: list[Path]) -> int:
    """File by file, clip by clip, eagerly."""
    clips = 0
    for file in files:
        samples, _ = librosa.load(file, sr=model.rate, mono=True)
        size = round(SECONDS * model.rate)
        for begin in range(0, len(samples) - size + 1, size):
            model.by_hand(samples[begin : begin + size])
            clips += 1
    return clips


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def matmul_gflops(dtype: torch.dtype) -> float:
    """The speed of a large matrix product; in float32, the faster of torch's and numpy's."""
    left = torch.rand(2048, 2048).to(dtype)
    works = [lambda: left @ left]
    if dtype == torch.float32:
        other = left.numpy()
        works.append(lambda: other @ other)
    return 2 * 2048**3 / min(timed(work) for work in works for _ in range(5)) / 1e9


def network_alone(embedder: Embedder, clips: int) -> float:
    """Clips a second without decoding."""
    batch = np.random.default_rng(0).normal(0, 0.1, (embedder.batch_size, round(SECONDS * embedder.sample_rate)))
    given = batch.astype(np.float32)
    embedder.embed(given)
    rounds = max(1, clips // len(given))
    return rounds * len(given) / timed(lambda: [embedder.embed(given) for _ in range(rounds)])


def compare(model: Model, music: Path, folder: Path, backends: list[str], repeats: int) -> None:
    corpus = cut(music, CutSettings(SECONDS, SECONDS, -90.0))
    write_corpus(folder / "corpus.parquet", corpus)
    files = [music / name for name in find_audio(music)]
    count = corpus.table.num_rows
    embedders = {
        backend: load_embedder(model.name, ModelOptions(str(model.checkpoint), None, backend)) for backend in backends
    }
    notebook_loop(model, files[:1])
    baseline: list[float] = []
    whole: dict[str, list[float]] = {backend: [] for backend in backends}
    alone: dict[str, list[float]] = {backend: [] for backend in backends}
    for turn in range(repeats):
        began = time.perf_counter()
        done = notebook_loop(model, files)
        baseline.append(done / (time.perf_counter() - began))
        for backend, embedder in embedders.items():
            alone[backend].append(network_alone(embedder, count))
            out = folder / f"{model.name}-{backend}-{turn}.npy"
            spent = timed(lambda e=embedder, o=out: embed_corpus(corpus.table, corpus.provenance, music, e, o))
            whole[backend].append(count / spent)
    base = statistics.median(baseline)
    print(f"| {model.name} | file by file, eager | {base:.1f} | 1.0 | | | |", flush=True)
    for backend in backends:
        end, network = statistics.median(whole[backend]), statistics.median(alone[backend])
        cells = f"{end:.1f} | {end / base:.1f} | {network:.1f} | {end / network:.0%} | {network * model.gflop:,.0f}"
        print(f"| {model.name} | {backend} | {cells} |", flush=True)


def compare_neighbours(model: Model, music: Path, backends: list[str], clips: int) -> None:
    """The lowest cosine with torch in float32, and the share of the ten nearest clips that are the same."""
    table = cut(music, CutSettings(SECONDS, SECONDS / 4, -90.0)).table
    heard = []
    for track in tracks_of(table):
        path, starts, seconds = track
        heard += list(read_clips(music / path, starts, seconds, model.rate))
    chosen = np.stack(heard[:clips])
    found = {}
    for backend in backends:
        embedder = load_embedder(model.name, ModelOptions(str(model.checkpoint), None, backend))
        size = embedder.batch_size
        found[backend] = unit(
            np.concatenate([embedder.embed(chosen[i : i + size]) for i in range(0, len(chosen), size)])
        )
    true = nearest(found[backends[0]], found[backends[0]], 10, exclude=np.arange(len(chosen))).rows
    for backend in backends[1:]:
        rows = nearest(found[backend], found[backend], 10, exclude=np.arange(len(chosen))).rows
        same = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(rows, true, strict=True)])
        cosine = (found[backend] * found[backends[0]]).sum(axis=1).min()
        print(
            f"{model.name}, {len(chosen)} clips: {backend}: lowest cosine {cosine:.6f}, {same:.2%} of the ten nearest"
        )


def make_music(folder: Path, minutes: float) -> Path:
    """Synthesise tracks of one minute as mp3."""
    import soundfile

    tracks = max(1, round(minutes))
    for path in synthesise(folder / "flac", 1, tracks=tracks, seconds=60.0):
        samples, rate = soundfile.read(path, dtype="float32")
        write(folder / "mp3" / f"{path.stem}.mp3", samples, rate)
    return folder / "mp3"


MODELS = {"clmr": make_clmr, "clap": make_clap}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS))
    parser.add_argument("--audio", type=Path, help="music to use instead of synthesised music")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--top", type=int, default=0, help="compare neighbours on this many clips")
    options = parser.parse_args()
    print(f"{cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        music = options.audio or make_music(folder, options.minutes)
        models = [MODELS[name](folder) for name in options.models]
        print("| model | how | clips/s from files | of the loop | network alone | of it | GFLOP/s |")
        print("|---|---|---|---|---|---|---|")
        for model in models if options.repeats else []:
            compare(model, music, folder, options.backends, options.repeats)
        for kind in (torch.float32, torch.bfloat16):
            print(f"A product of 2048 x 2048 in {kind} reached {matmul_gflops(kind):,.0f} GFLOP/s.")
        for model in models if options.top else []:
            compare_neighbours(model, music, options.backends, options.top)


if __name__ == "__main__":
    main()
