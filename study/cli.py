"""`rootnote study`: init, build, publish, cors, check, freeze."""

from __future__ import annotations

import functools
import json
import os
import sys
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import urlsplit

import click

from embeddings.errors import ConfigError
from embeddings.lazy_group import LazyGroup
from embeddings.wording import counted
from study.arguments import json_option, study_argument
from study.languages import LANGUAGES, SOURCE


@click.group(cls=LazyGroup)
def cli() -> None:
    """Design a listening study: bins, triplets, schedule, stimuli."""


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--audio", required=True, type=click.Path(path_type=Path), help="The folder with the music.")
@click.option("--name", help="The name of the study; default: the name of the folder.")
@click.option(
    "--languages",
    default=SOURCE,
    show_default=True,
    help=f"One or more of {', '.join(LANGUAGES)}, separated by commas.",
)
def init(folder: Path, audio: Path, name: str | None, languages: str) -> None:
    """Create a study folder DIR with study.toml and the texts that listeners read.

    Example: rootnote study init my-study --audio ~/Music
    """
    from embeddings.models.registry import embedder_names
    from embeddings.provenance import replacing
    from study.config import load_study

    if not audio.is_dir():
        raise ConfigError(f"--audio {audio} is not a directory; give the folder with the music.")
    offered = [language.strip() for language in languages.split(",")]
    texts = _texts(offered)
    untranslated = [language for language in offered if not _has_texts(language)]
    taken = [file for file in ("study.toml", *texts) if (folder / file).exists()]
    if taken:
        raise ConfigError(f"{folder / taken[0]} already exists; choose another folder. Nothing was changed.")
    name = name or folder.resolve().name
    if len(name) > (longest := 80):
        raise ConfigError(f"--name has {len(name)} characters; at most {longest} are allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    template = files("study") / "templates" / "study.toml"
    for file, source in (texts | {"study.toml": template}).items():  # study.toml last: without it, no study yet
        text = source.read_text(encoding="utf-8")
        if file == "study.toml":
            text = text.replace('languages = ["en"]', f"languages = {json.dumps(offered)}")
            text = text.replace("{name}", _toml(name)).replace("{embedders}", ", ".join(embedder_names()))
            text = text.replace("{audio}", _toml(_shown(audio, folder)))
        with replacing(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    load_study(folder)
    click.echo(f"Created {folder} with study.toml, {', '.join(texts)}.")
    for language in untranslated:
        click.echo(f"There are no {LANGUAGES[language].english} texts to start from: translate the English ones there.")
    click.echo("Next: read study.toml, fill in the [PLACEHOLDERS] in the texts, then run:")
    click.echo(f"  rootnote study build {folder}")


def _texts(languages: list[str]) -> dict[str, Traversable]:
    """The texts of a study in these languages: file -> the template that it starts from."""
    from study.check import TEXTS
    from study.config import text_name

    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or len(set(languages)) < len(languages):
        raise ConfigError(f"--languages takes one or more of {', '.join(LANGUAGES)}, separated by commas.")
    return {
        text_name(name, language, languages[0]): _template(name, language if _has_texts(language) else SOURCE)
        for language in languages
        for name in TEXTS
    }


def _template(name: str, language: str) -> Traversable:
    from study.config import text_name

    folder = LANGUAGES[language].texts or files("study") / "templates"
    return folder / text_name(name, language, SOURCE)


def _has_texts(language: str) -> bool:
    from study.check import TEXTS

    return language in LANGUAGES and all(_template(name, language).is_file() for name in TEXTS)


def _shown(audio: Path, folder: Path) -> str:
    """The audio folder, relative to the study if the two are near each other, else absolute."""
    relative = os.path.relpath(audio.resolve(), folder.resolve())
    return relative if relative.count("..") <= 1 else str(audio.resolve())


def _toml(text: str) -> str:
    """A text as the inside of a TOML basic string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")


@cli.command()
@study_argument
@click.option("--redraw", is_flag=True, help="Draw a new secret key, and with it new lists and new stimuli.")
def build(folder: Path, redraw: bool) -> None:
    """Build everything the study needs: corpus, vectors, bins, triplets, schedule, stimuli.

    Only what is missing or out of date is made; an interrupted build continues where it stopped. The first build
    writes DIR/secret.key: keep it with the study folder, and show it to nobody who takes part.

    Example: rootnote study build my-study
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from study.build import BuildReporter
    from study.build import build as build_study
    from study.config import load_study

    study = load_study(folder)
    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def progress(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=of)
            bars.update(tasks[stage], completed=done, visible=done < of)

        build_study(study, BuildReporter(lambda line: console.print(line, markup=False), progress), redraw=redraw)
    click.echo(f"The study is built. Next: rootnote study check {folder}")


@cli.command()
@study_argument
def publish(folder: Path) -> None:
    """Upload the stimuli to the bucket that study.toml names (storage.stimuli).

    Only what the bucket lacks is uploaded; an interrupted upload continues where it stopped. Every object is verified
    by its SHA-256.

    Example: rootnote study publish my-study
    """
    from rich.progress import Progress

    from study.config import load_study
    from study.stimuli.storage import publish as publish_study

    study = load_study(folder)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task("upload", total=None)
        published = publish_study(study, lambda done, of: bars.update(task, completed=done, total=of))
    where = study.config.storage.stimuli
    click.echo(
        f"{where} contains all {counted(published.stimuli, 'stimulus', 'stimuli')}; {published.written:,} uploaded now."
    )
    if study.config.storage.delivery == "redirect":
        click.echo("Its CORS rules must allow listeners' browsers: rootnote study cors --help")


@cli.command()
@click.option(
    "--origin", required=True, help="The address of the server for listeners, such as https://study.example.org."
)
def cors(origin: str) -> None:
    """Print the CORS rules that the bucket needs, as JSON.

    \b
    Example: rootnote study cors --origin https://study.example.org > cors.json
             aws s3api put-bucket-cors --bucket BUCKET --cors-configuration file://cors.json
    """
    from study.stimuli.storage import cors_rules

    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"--origin is '{origin}'; give an address like https://study.example.org.")
    click.echo(json.dumps(cors_rules(f"{parts.scheme}://{parts.netloc}"), indent=2))


@cli.command()
@study_argument
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Show what the study asks of listeners and what it costs, with warnings.

    Example: rootnote study check my-study
    """
    from study.check import check_study
    from study.config import load_study
    from study.money import amount

    found = check_study(load_study(folder))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        return
    paid = functools.partial(amount, currency=found.currency)
    click.echo(f"{found.name}: {', '.join(found.embedders)}")
    click.echo(f"  listeners   {found.listeners:,}, {counted(found.trials_per_listener, 'trial')} each")
    click.echo(f"  responses   {found.responses_per_pair:g} per bin pair and embedder")
    if found.guessing:
        steps = ", ".join(f"{step} ({100 * chance:.2g} % pass by guessing)" for step, chance in found.guessing.items())
        click.echo(f"  prescreen   {steps}, about {found.prescreen_minutes:.1f} minutes")
    click.echo(
        f"  time        {found.minutes:g} minutes for {paid(found.reward_usd)}: {paid(found.hourly_usd)} per hour"
    )
    click.echo(
        f"  cost        {paid(found.total_usd)} without marketplace fees: {paid(found.rewards_usd)} for listeners who "
        f"finish, about {paid(found.screened_out_usd)} if one in ten is screened out"
    )
    for warning in found.warnings:
        click.echo(f"  warning     {warning}")


@cli.command()
@study_argument
@click.option("--one-sided", is_flag=True, help="Plan a one-sided test: more agreement than chance.")
@click.option("--amend", default="", metavar="REASON", help="Replace a frozen plan and give the reason.")
@json_option
def freeze(folder: Path, one_sided: bool, amend: str, as_json: bool) -> None:
    """Preregister a built study: write preregistration.md and .json, with a hash that every report prints.

    The plan includes the text of hypotheses.md.

    Example: rootnote study freeze my-study
    """
    from study.config import load_study
    from study.preregistration.create import freeze as freeze_study
    from study.preregistration.document import HYPOTHESES, JSON, MARKDOWN

    study = load_study(folder)
    frozen, written = freeze_study(study, datetime.now(UTC), "greater" if one_sided else None, amend.strip())
    if as_json:
        summary = {"hash": frozen.hash, "frozen_at": frozen.plan["frozen_at"], "written": written}
        click.echo(json.dumps(summary | {"files": [str(folder / JSON), str(folder / MARKDOWN)]}, indent=2))
        return
    if not written:
        click.echo(f"The plan was frozen at {frozen.plan['frozen_at']}; nothing has changed since.")
    else:
        click.echo(f"Wrote {folder / MARKDOWN} and {JSON}.")
        if not frozen.plan["hypotheses"]:
            click.echo(f"It states no hypotheses: write {folder / HYPOTHESES}, then freeze again with --amend.")
    click.echo(f"Hash: {frozen.hash}")
    click.echo(
        "Before anyone listens, register it where you cannot change it (OSF, AsPredicted, an e-mail to a colleague)."
    )
