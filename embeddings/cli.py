"""`rootnote embeddings`: cut music into clips, embed them, search them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embeddings.lazy_group import LazyGroup
from embeddings.models.base import BACKENDS
from embeddings.models.registry import EMBEDDERS

if TYPE_CHECKING:
    from embeddings.audio.corpus import CutSummary
    from embeddings.embed import Dtype
from embeddings.errors import ConfigError
from embeddings.models.base import ModelOptions
from embeddings.models.registry import load_embedder
from embeddings.progress import showing
from embeddings.wording import counted

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
_NAMED = 20  # skipped files that the text summary lists


@click.group(cls=LazyGroup)
def cli() -> None:
    """Cut music into clips, embed them, search them."""


@cli.command("cut")
@click.argument("audio_dir", type=FOLDER)
@click.option("--out", required=True, type=FILE, help="The table of clips to write (Parquet).")
@click.option("--clip-seconds", default=3.0, show_default=True, type=click.FloatRange(0.1, 60))
@click.option(
    "--hop-seconds",
    type=click.FloatRange(0.1, 600),
    help="From the start of one clip to the start of the next; default: the clip length (no overlap).",
)
@click.option(
    "--silence-dbfs",
    default=-60.0,
    show_default=True,
    type=click.FloatRange(-200, 0),
    help="Clips with a lower RMS level are left out.",
)
@click.option(
    "--metadata",
    type=FILE,
    help="CSV with a `path` column (relative to AUDIO_DIR) and any of title, artist, album, genre, year, "
    "licence. Default: AUDIO_DIR/metadata.csv if it exists, else the files' tags.",
)
@_AS_JSON
def cut_command(
    audio_dir: Path,
    out: Path,
    clip_seconds: float,
    hop_seconds: float | None,
    silence_dbfs: float,
    metadata: Path | None,
    as_json: bool,
) -> None:
    """Cut a folder of music, with its subfolders, into clips of one length.

    Reads wav, flac, ogg, mp3, opus and m4a. Files that cannot be decoded are listed and skipped.

    Example: rootnote embeddings cut ~/Music --out corpus.parquet
    """
    from embeddings.audio.corpus import CutSettings, cut, write_corpus

    settings = CutSettings(clip_seconds, hop_seconds or clip_seconds, silence_dbfs)
    with showing("Cutting tracks") as progress:
        corpus = cut(audio_dir, settings, metadata=metadata, progress=progress)
    write_corpus(out, corpus)
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(corpus.summary)}, ensure_ascii=False, indent=2))
    else:
        click.echo(in_words(corpus.summary))
        click.echo(f"Wrote {out}.")


@cli.command("embed")
@click.option("--corpus", "corpus", required=True, type=FILE, help="The table of clips that `cut` wrote.")
@click.option(
    "--embedder", "name", required=True, help=f"One of: {', '.join(EMBEDDERS)}, or one of an installed package."
)
@click.option(
    "--checkpoint", help="The model's weights, for models that need them: a file (for clap also a Hugging Face id)."
)
@click.option(
    "--windows",
    type=click.Choice(["first", "mean"]),
    help="For clmr: the first window, or the mean of first and last.",
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    type=click.Choice(BACKENDS),
    help="What runs the network; auto: the fastest on this machine.",
)
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16"]))
@click.option("--audio", type=FOLDER, help="The folder of music, if it has moved since `cut`.")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Embed on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT. The result is the same.",
)
@click.option("--out", required=True, type=FILE, help="The vectors to write (.npy, with a .json of the same name).")
@_AS_JSON
def embed_command(
    corpus: Path,
    name: str,
    checkpoint: str | None,
    windows: str | None,
    backend: str,
    dtype: Dtype,
    audio: Path | None,
    cluster: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Embed every clip of a corpus as a vector of norm 1; row i of the vectors is row i of the corpus.

    If interrupted, the same command continues where it stopped.

    Example: rootnote embeddings embed --corpus corpus.parquet --embedder logmel --out vectors.npy
    """
    from embeddings.audio.corpus import audio_dir_of, read_corpus
    from embeddings.embed import embed_corpus
    from embeddings.progress import showing
    from embeddings.provenance import read_json
    from embeddings.vectors import MADE_BY

    if out.suffix != ".npy":
        raise ConfigError(f"--out {out} must end in .npy.")
    options = ModelOptions(checkpoint, windows, backend)
    table, provenance = read_corpus(corpus)
    music = audio or audio_dir_of(table)
    began = time.perf_counter()
    with showing(f"Embedding clips with {name}", "clips") as progress:
        if cluster:
            from embeddings.distributed.embed import embed_on_cluster

            embed_on_cluster(
                table, provenance, music, name, options, out, address=cluster, dtype=dtype, progress=progress
            )
        else:
            embed_corpus(table, provenance, music, load_embedder(name, options), out, dtype=dtype, progress=progress)
    seconds = time.perf_counter() - began
    content, _ = read_json(out.with_suffix(".json"), "vectors", MADE_BY)
    dim, runtime = content["dim"], content["runtime"]
    if as_json:
        summary = {"out": str(out), "embedder": name, "clips": table.num_rows, "dim": dim, "dtype": dtype}
        click.echo(json.dumps({**summary, "seconds": round(seconds, 3), "runtime": runtime}, indent=2))
    else:
        how = ", ".join(runtime[key] for key in ("backend", "precision") if key in runtime)
        click.echo(f"Embedded {counted(table.num_rows, 'clip')} with {name} ({how}) in {dim} dimensions.")
        click.echo(f"Wrote {out}.")


@cli.command("fetch")
@click.argument("name", required=False)
@click.option("--to", type=FOLDER, help="The folder to store it in; default: the cache (ROOTNOTE_CACHE).")
@click.option("--list", "listing", is_flag=True, help="List the checkpoints, with licences and sizes.")
@_AS_JSON
def fetch_command(name: str | None, to: Path | None, listing: bool, as_json: bool) -> None:
    """Fetch a published checkpoint from its official address.

    If interrupted, the same command continues where it stopped. A file is used only if its SHA-256 is the published
    one; if none is published, it must equal the file fetched first. ROOTNOTE_FETCH_BASE is the address of a mirror.

    Example: rootnote embeddings fetch clap
    """
    from embeddings.checkpoints.catalogue import catalogue, in_lines
    from embeddings.checkpoints.fetch import fetch

    if listing:
        entries = catalogue()
        click.echo(json.dumps(entries, ensure_ascii=False, indent=2) if as_json else in_lines(entries))
        return
    if name is None:
        raise click.UsageError("give the NAME of a checkpoint, or --list.")
    with showing(f"Fetching {name}", "MB") as show:
        done = fetch(name, to, progress=lambda now, total: show(now // 1_000_000, max(1, total // 1_000_000)))
    if as_json:
        facts = {**asdict(done), "path": str(done.path), "next": done.next_command}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        known = "as published" if done.pinned else "none is published; recorded for the next time"
        click.echo(f"{'Already present' if done.already_there else 'Fetched'}: {done.path}")
        click.echo(f"SHA-256: {done.sha256} ({known})")
        click.echo(f"Licence: {done.licence}")
        click.echo(f"Next: {done.next_command}")


@cli.command("duplicates")
@click.option("--corpus", "corpus", required=True, type=FILE, help="The table of clips that `cut` wrote.")
@click.option("--vectors", multiple=True, type=FILE, help="Vectors to compare clips by; may be repeated.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Lowest cosine of near-identical clips: one for all --vectors, or one for each. Default: 0.98.",
)
@click.option("--any", "match_any", is_flag=True, help="One of the --vectors must reach the threshold; default: all.")
@click.option("--across-tracks", is_flag=True, help="Leave out groups within one track, such as repeating loops.")
@click.option("--audio", type=FOLDER, help="The folder of music, if it has moved since `cut`.")
@click.option("--out", type=FILE, help="The file of groups to write (.csv or .json).")
@_AS_JSON
def duplicates_command(
    corpus: Path,
    vectors: tuple[Path, ...],
    thresholds: tuple[float, ...],
    match_any: bool,
    across_tracks: bool,
    audio: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find clips that occur more than once: the same samples, or near-identical vectors.

    Example: rootnote embeddings duplicates --corpus corpus.parquet --vectors vectors.npy --out duplicates.csv
    """
    from embeddings.audio.content_hash import content_hashes
    from embeddings.audio.corpus import audio_dir_of, read_corpus
    from embeddings.search import duplicates as found

    if thresholds and len(thresholds) not in (1, len(vectors)):
        raise click.UsageError("give --threshold once, or once for each --vectors.")
    if out is not None:
        found.check_suffix(out)
    table, provenance = read_corpus(corpus)
    read = found.read_likenesses(vectors, thresholds or (0.98,), provenance)
    with showing("Hashing clips", "clips") as progress:
        hashes = content_hashes(table, audio or audio_dir_of(table), progress=progress)
    with showing("Comparing clips (thousandths)") as progress:
        groups = found.find_duplicates(
            table,
            hashes,
            [likeness for likeness, _ in read],
            match_any=match_any,
            across_tracks=across_tracks,
            progress=progress,
        )
    if out is not None:
        made = [(one, likeness.threshold) for likeness, one in read]
        made_from = found.duplicates_provenance(provenance, made, match_any=match_any, across_tracks=across_tracks)
        found.write_duplicates(out, groups, table, made_from)
    if as_json:
        rows = {} if out else {"duplicates": list(found.rows_of(groups, table))}
        click.echo(json.dumps({"out": out and str(out), **found.counts(groups), **rows}, ensure_ascii=False, indent=2))
    else:
        click.echo(found.in_words(groups, table))
        click.echo(f"Wrote {out}." if out else "Nothing was written; add --out duplicates.csv to keep the groups.")


@cli.command("search")
@click.argument("audio", type=FILE)
@click.option("--corpus", "corpus", required=True, type=FILE, help="The table of clips that `cut` wrote.")
@click.option("--vectors", "path", required=True, type=FILE, help="The vectors that `embed` wrote for it.")
@click.option("--checkpoint", help="Weights the vectors were made with, if they are not in the cache.")
@click.option(
    "--windows",
    type=click.Choice(["first", "mean"]),
    help="For clmr; default: as the vectors were made.",
)
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS))
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many tracks to list.")
@click.option(
    "--hop-seconds",
    type=click.FloatRange(0.1, 600),
    help="From the start of one clip of AUDIO to the start of the next; default: the clip length.",
)
@click.option("--approximate", is_flag=True, help="Use a FAISS index; it is built once and stored with the vectors.")
@click.option(
    "--store", help="Search in a Milvus store, such as milvus:http://localhost:19530. The result is the same."
)
@_AS_JSON
def search_command(
    audio: Path,
    corpus: Path,
    path: Path,
    checkpoint: str | None,
    windows: str | None,
    backend: str,
    top: int,
    hop_seconds: float | None,
    approximate: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Find the tracks of a corpus that resemble an audio file, with the matching times in both.

    Example: rootnote embeddings search song.mp3 --corpus corpus.parquet --vectors vectors.npy
    """
    from rich.console import Console

    from embeddings.audio.corpus import read_corpus
    from embeddings.progress import showing
    from embeddings.search import audio_query as searching
    from embeddings.vectors import read_projection, read_vectors

    if approximate and store:
        raise click.UsageError("give either --approximate or --store, not both.")
    table, corpus_provenance = read_corpus(corpus)
    vectors, provenance = read_vectors(path)
    options = ModelOptions(checkpoint, windows, backend)
    embedder = searching.embedder_of(path, provenance, corpus_provenance, options)
    seconds = float(table["duration_s"][0].as_py())
    query = searching.read_query(
        audio,
        embedder,
        read_projection(path),
        seconds=seconds,
        hop_seconds=hop_seconds or seconds,
        silence_dbfs=corpus_provenance.settings["silence_dbfs"],
    )
    with showing("Filling the store" if store else "Building the index", "clips") as progress:
        nearest, how = searching.searcher(
            path, vectors, provenance, approximate=approximate, store=store, progress=progress
        )
    if how.get("built_now"):
        shares = ", ".join(f"{share:.2%} of the {k} nearest" for k, share in how["recall"].items())
        click.echo(f"Built the {how['index']} index; for random clips of the corpus it finds {shares}.", err=True)
    tracks = searching.find_tracks(table, query, nearest, top)
    summary = {"audio": str(audio), "embedder": embedder.name, "clips": len(query.starts), "silent_clips": query.silent}
    if as_json:
        found = [{"rank": rank, **track.as_dict()} for rank, track in enumerate(tracks, start=1)]
        click.echo(json.dumps({**summary, **how, "tracks": found}, ensure_ascii=False, indent=2))
    else:
        silent = f" ({query.silent:,} silent left out)" if query.silent else ""
        click.echo(
            f"{counted(len(query.starts), 'clip')} of {audio}{silent} compared with "
            f"{counted(table.num_rows, 'clip')} by {embedder.name}."
        )
        Console(width=None if sys.stdout.isatty() else 120).print(searching.as_table(tracks))


def in_words(summary: CutSummary) -> str:
    """The result of cutting as text, with a line for each skipped file."""
    lines = [f"{counted(summary.tracks, 'track')}, {counted(summary.clips, 'clip')}, {summary.hours:.2f} hours."]
    if summary.silent_clips:
        lines.append(f"{counted(summary.silent_clips, 'silent clip')} left out.")
    for title, files in (
        ("skipped", summary.skipped),
        ("damaged, used up to the damage", summary.damaged),
    ):
        if files:
            lines.append(f"{counted(len(files), 'file')} {title}:")
            lines += [f"  {one.path}: {one.reason}" for one in files[:_NAMED]]
            lines += [f"  and {len(files) - _NAMED:,} more (--json lists all)"] if len(files) > _NAMED else []
    return "\n".join(lines)
