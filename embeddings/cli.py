"""`rootnote embeddings`: cut music into clips, embed them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from embeddings.artefacts import RootnoteError
from embeddings.corpus import CutSettings, Summary, audio_dir_of, cut, read_corpus, write_corpus
from embeddings.embedder import EMBEDDERS, embed_corpus, load_embedder
from embeddings.progress import showing

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
_NAMED = 20  # skipped files that the summary in words names


@click.group()
def cli() -> None:
    """Cut music into clips, embed them."""


@cli.command("cut")
@click.argument("audio_dir", type=FOLDER)
@click.option("--out", required=True, type=FILE, help="The table of clips to write (Parquet).")
@click.option("--clip-seconds", default=3.0, show_default=True, type=click.FloatRange(0.1, 60))
@click.option(
    "--hop-seconds",
    type=click.FloatRange(0.1, 600),
    help="From one clip's start to the next; default: the clip length, so that clips do not overlap.",
)
@click.option(
    "--silence-dbfs",
    default=-60.0,
    show_default=True,
    type=click.FloatRange(-200, 0),
    help="Clips with a lower RMS are left out.",
)
@click.option(
    "--metadata",
    type=FILE,
    help="CSV with a `path` column (relative to AUDIO_DIR) and any of title, artist, album, genre, year, "
    "licence. Default: AUDIO_DIR/metadata.csv where there is one, else the files' tags.",
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
    """Cut a folder tree of music into clips of one length.

    Takes wav, flac, ogg, mp3, opus and m4a. Files that cannot be decoded are named and skipped.

    Example: rootnote embeddings cut ~/Music --out corpus.parquet
    """
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
@click.option("--embedder", "name", required=True, help=f"One of: {', '.join(EMBEDDERS)}.")
@click.option("--checkpoint", type=FILE, help="The model's weights, where it has some.")
@click.option("--audio", type=FOLDER, help="The folder of music, where it has moved since `cut`.")
@click.option("--out", required=True, type=FILE, help="The vectors to write (.npy; a .json goes beside it).")
@_AS_JSON
def embed_command(
    corpus: Path, name: str, checkpoint: Path | None, audio: Path | None, out: Path, as_json: bool
) -> None:
    """Embed every clip of a corpus as a vector of norm 1; row i of the one is row i of the other.

    Example: rootnote embeddings embed --corpus corpus.parquet --embedder logmel --out vectors.npy
    """
    if out.suffix != ".npy":
        raise RootnoteError(f"--out {out} must end in .npy.")
    embedder = load_embedder(name, checkpoint)
    table, provenance = read_corpus(corpus)
    with showing(f"Embedding clips with {name}") as progress:
        embed_corpus(table, provenance, audio or audio_dir_of(table), embedder, out, progress=progress)
    if as_json:
        summary = {"out": str(out), "embedder": name, "clips": table.num_rows, "dim": embedder.dim}
        click.echo(json.dumps(summary, indent=2))
    else:
        click.echo(f"Embedded {table.num_rows:,} clips with {name} in {embedder.dim} dimensions.")
        click.echo(f"Wrote {out}.")


def in_words(summary: Summary) -> str:
    """What cutting came to, a line each for what was skipped."""
    lines = [f"{summary.tracks:,} tracks, {summary.clips:,} clips, {summary.hours:.2f} hours."]
    if summary.silent_clips:
        lines.append(f"{summary.silent_clips:,} silent clip{'s' if summary.silent_clips > 1 else ''} left out.")
    for title, files in (
        ("skipped", summary.skipped),
        ("damaged, used as far as they could be decoded", summary.damaged),
    ):
        if files:
            lines.append(f"{len(files):,} file{'s' if len(files) > 1 else ''} {title}:")
            lines += [f"  {one.path}: {one.reason}" for one in files[:_NAMED]]
            lines += [f"  and {len(files) - _NAMED:,} more (--json names all)"] if len(files) > _NAMED else []
    return "\n".join(lines)
