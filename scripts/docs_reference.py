"""Generate the reference pages of the documentation from the code (an mkdocs hook).

Commands come from click; study.toml from the models of its sections and the template's comments; environment variables
from the server's settings; columns of the exported tables from their schema. mkdocs gets the pages as generated files,
and nothing is written into docs/.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

GENERATED = "<!-- generated from the code -->"
COLUMNS = "<!-- columns -->"  # where docs/reference/files.md has the columns of the exported tables

# Variables that the server's settings do not read, by reader.
OTHER_VARIABLES: dict[str, dict[str, str]] = {
    "Vault and audit log": {
        "ROOTNOTE_VAULT_KEY": "Encrypts workers' ids at marketplaces; `rootnote server vault new-key` makes one. "
        "Several keys are separated by commas: put the new one first, restart the server, and run `rootnote server "
        "vault rotate`.",
        "ROOTNOTE_VAULT_KEY_FILE": "A file that holds the key instead.",
        "ROOTNOTE_FORMER_SECRETS": "Earlier values of ROOTNOTE_SECRET, separated by commas; `rootnote server audit "
        "--verify` checks older entries with them.",
    },
    "Commands of the server": {
        "ROOTNOTE_DESK_PASSWORD": "The password for `rootnote server user add` and `user passwd`, where there is no "
        "terminal to ask at. Unset it afterwards.",
        "ROOTNOTE_BACKUPS": "The folder that `backup` writes to and `doctor` checks; `provider`: a managed database "
        "that its provider backs up.",
        "ROOTNOTE_CHROMIUM": "The browser that makes the screenshots of `rootnote study irb` (default: the system's "
        "Chromium or Chrome, else Playwright's).",
        "PROLIFIC_TOKEN": "The API token of the Prolific account. The web server can do without; with it, it looks up "
        "arrivals.",
    },
    "gunicorn": {
        "ROOTNOTE_STUDY": "The study's folder (default: the current directory).",
        "ROOTNOTE_BIND": "Where gunicorn listens (default: 127.0.0.1:8000).",
        "ROOTNOTE_THREADS": "Threads per process (default: 512).",
        "WEB_CONCURRENCY": "Processes (default: one per core).",
    },
    "Files in deploy/": {
        "ROOTNOTE_STUDY_FOLDER": "Compose: the study's folder on the host.",
        "ROOTNOTE_ADMINISTRATOR_PASSWORD": "Compose: the password of PostgreSQL's superuser.",
        "ROOTNOTE_OWNER_PASSWORD": "Compose: the password of the role that migrates and restores.",
        "ROOTNOTE_APP_PASSWORD": "Compose: the password of the role that serves and backs up.",
        "ROOTNOTE_PYTHON_IMAGE": "Compose: the server's base image, by digest (deploy/pin-images.sh).",
        "ROOTNOTE_POSTGRES_IMAGE": "Compose: PostgreSQL's image, by digest.",
        "ROOTNOTE_CADDY_IMAGE": "Compose: Caddy's image, by digest.",
        "ROOTNOTE_HOST": "Caddy: the host name of the study.",
        "ROOTNOTE_UPSTREAM": "Caddy: the address of the server behind it.",
    },
    "Embeddings": {
        "ROOTNOTE_CACHE": "Where downloaded checkpoints are stored (default: the user's cache folder).",
        "ROOTNOTE_FETCH_BASE": "A mirror that `rootnote embeddings fetch` downloads from instead of the published "
        "addresses.",
        "ROOTNOTE_MILVUS_TOKEN": "The token of a Milvus server.",
    },
    "Development": {
        "ROOTNOTE_SKIP_AUDIT": "1: `make check` and `make audit` do not look up known vulnerabilities.",
        "ROOTNOTE_TORCH_INDEX": "Where `make setup` gets torch from on a machine without an NVIDIA GPU.",
        "ROOTNOTE_PROLIFIC_OPENAPI": "A file with Prolific's description of its API (OpenAPI); tests check every "
        "message of a launch against it, and are skipped without it.",
        "ROOTNOTE_TEST_TARGET": "Set by make: the target that the last line of a test run names.",
    },
}


def on_config(config: Any, **_: Any) -> Any:
    """Import this folder's code, whatever is installed; mkdocs undoes such changes while it loads hooks."""
    sys.path.insert(0, str(ROOT))
    return config


def on_files(found: Any, config: Any, **_: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        found.append(File.generated(config, f"reference/{name}.md", content=text))
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the columns of the exported tables."""
    return markdown.replace(COLUMNS, columns()) if COLUMNS in markdown else markdown


def pages() -> dict[str, str]:
    """The generated pages, Markdown by name."""
    return command_pages() | {"study-toml": study_toml(), "environment": environment()}


# ------------------------------------------------------------------ commands


def command_pages() -> dict[str, str]:
    """A page for each command group."""
    import click

    from rootnote import cli

    context = click.Context(cli, info_name="rootnote")
    groups = {name: command for name in cli.list_commands(context) if (command := cli.get_command(context, name))}
    return {name: _command_page(command, context, name) for name, command in groups.items()}


def _command_page(command: Any, parent: Any, name: str) -> str:
    return "\n".join([GENERATED, *_describe(command, parent, name, level=1)]) + "\n"


def _describe(command: Any, parent: Any, name: str, *, level: int) -> Iterator[str]:
    import click

    context = click.Context(command, info_name=name, parent=parent)
    yield f"{'#' * level} {context.command_path}\n"
    yield _paragraphs(command.help or "") + "\n"
    yield f"```text\n{command.get_usage(context)}\n```\n"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | meaning |\n|---|---|"
        for option in options:
            record = option.get_help_record(context)
            if record is not None:
                yield f"| `{record[0].replace('|', chr(92) + '|')}` | {_cell(' '.join(record[1].split()))} |"
        yield ""
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            member = command.get_command(context, sub)
            if member is not None and not member.hidden:
                yield from _describe(member, context, sub, level=min(level + 1, 4))


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: an example at the end of a paragraph becomes code, and so do lines that are kept."""
    return "\n\n".join(map(_paragraph, text.strip().split("\n\n")))


def _paragraph(text: str) -> str:
    lines = [line.strip() for line in text.strip().split("\n")]
    if lines[0] == "\b":  # click keeps the lines of such a paragraph
        return "\n".join(["```text", *lines[1:], "```"])
    return re.sub(r"Example: (rootnote .*)$", r"Example: `\1`", " ".join(lines).replace("<", "&lt;"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# ------------------------------------------------------------------ study.toml


def study_toml() -> str:
    """The page of study.toml: each section with its keys, types, defaults and meanings."""
    from study.config import StudyConfig

    lines = [
        GENERATED,
        "# study.toml\n",
        "`rootnote study init` writes this file. Every scientific decision of a study is in it. Unknown keys are "
        "refused, and secrets do not belong here.\n",
    ]
    for name, field in StudyConfig.model_fields.items():
        if name == "questions":
            lines += _questions()
            continue
        lines += _section(name, field.annotation, level=2)
        for sub_name, model in _subsections().get(name, {}).items():
            lines += _section(f"{name}.{sub_name}", model, level=3)
    return "\n".join(lines) + "\n"


def _subsections() -> dict[str, dict[str, Any]]:
    """The models of [section.name] by section and name, from the registries."""
    from study.config_sections import ClmrConfig, ModelConfig
    from study.marketplaces import MARKETPLACES, load_marketplace
    from study.prescreen.registry import STEPS

    marketplaces = {kind: load_marketplace(kind).Settings for kind in MARKETPLACES}
    return {
        "embedding": {"NAME": ModelConfig, "clmr": ClmrConfig},
        "prescreen": {step: item.settings for step, item in STEPS.items() if item.settings is not None},
        "recruiter": {kind: model for kind, model in marketplaces.items() if model.model_fields},
    }


def _section(name: str, model: Any, *, level: int) -> list[str]:
    """The heading, description and table of one section."""
    schema = model.model_json_schema()
    heading = f"{'#' * level} \\[{name.replace('NAME', '&lt;name&gt;')}\\]"
    return [f"{heading} {{#{_anchor(name)}}}\n", _one_line(schema.get("description", "")) + "\n", *_table(name, schema)]


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _questions() -> list[str]:
    """The keys that all questions have, and a table for each type."""
    from study.questionnaire import QUESTION_TYPES
    from study.questions.base import BaseQuestion

    base = BaseQuestion.model_json_schema()
    kinds = ", ".join(f'`"{kind}"`' for kind in QUESTION_TYPES)
    lines = [
        "## \\[\\[questions\\]\\] {#questions}\n",
        f"One block for each question after the trials. `type` is one of {kinds}. Every question has these keys:\n",
        *_table("questions", base),
    ]
    for kind, question in QUESTION_TYPES.items():
        schema = question.model_json_schema()
        lines += [f'### type = "{kind}" {{#question-{_anchor(kind)}}}\n', _one_line(schema["description"]) + "\n"]
        common = {
            key for key, one in base["properties"].items() if key == "type" or schema["properties"].get(key) == one
        }
        lines += _table("questions", schema, common)
    return lines


def _table(section: str, schema: Mapping[str, Any], left_out: set[str] | None = None) -> list[str]:
    """The keys of a model's schema with type, default and meaning; sub-models have sections of their own."""
    rows = [
        _row(section, key, one, schema)
        for key, one in schema.get("properties", {}).items()
        if key not in (left_out or ()) and not _is_section(one, schema)
    ]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []


def _row(section: str, key: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    meaning = _sentence(field.get("description") or template_comments().get((section, key), ""))
    default = "required" if key in schema.get("required", ()) else _value(field.get("default"))
    return f"| `{key}` | {_cell(_type(field, schema))} | {_cell(default)} | {_cell(meaning)} |"


def _is_section(field: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether a field is a model of its own (or nothing)."""
    return any(
        "properties" in schema["$defs"][one["$ref"].rpartition("/")[2]]
        for one in [field, *field.get("allOf", []), *field.get("anyOf", [])]
        if "$ref" in one
    )


def _sentence(text: str) -> str:
    """A meaning with a capital and a full stop; a value that it begins with stays as it is."""
    text = _one_line(text)
    begin = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return begin + text[1:] + ("" if text[-1:] in ("", ".") else ".")


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one, schema) for one in field["anyOf"] if one.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f'"{one}"' for one in field["enum"])
    if "const" in field:
        return f'"{field["const"]}"'
    kind = {"number": "number", "integer": "whole number", "boolean": "true, false", "string": "text"}
    if field.get("type") == "array":
        return "list of " + _type(field.get("items", {}), schema)
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    name = kind.get(str(field.get("type")), "table")
    if low is not None and high is not None:
        return f"{name} from {low:,g} to {high:,g}" if "minimum" in field else f"{name} above {low:g}, up to {high:,g}"
    if low is not None:
        return f"{name}, at least {low:g}" if "minimum" in field else f"{name} above {low:g}"
    return name


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`".replace("'", '"')


def template_comments() -> dict[tuple[str, str], str]:
    """The comment on each key of the template of study.toml, by section and key."""
    from embeddings.models.registry import EMBEDDERS

    text = files("study").joinpath("templates", "study.toml").read_text(encoding="utf-8")
    found, section = {}, ""
    for line in text.replace("{embedders}", ", ".join(EMBEDDERS)).splitlines():
        if match := re.match(r"\[([a-z._]+)\]", line):
            section = match[1]
        elif match := re.match(r"(?:# )?([a-z_]+) = (.*)$", line):
            value, _, comment = match[2].partition("#")
            if comment.strip() and _is_toml(f"x = {value}"):
                found[section, match[1]] = comment.strip()
    return found


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text.replace("{name}", "").replace("{audio}", ""))
    except tomllib.TOMLDecodeError:
        return False
    return True


# ------------------------------------------------------------------ environment


def environment() -> str:
    """The page of the environment variables, from the settings and the modules that read a variable themselves."""
    lines = [
        GENERATED,
        "# Environment variables\n",
        "Secrets and addresses come from the environment, never from `study.toml`. An empty variable counts as unset. "
        "Credentials of AWS come from the variables that all AWS programs read, such as `AWS_ACCESS_KEY_ID`.\n",
    ]
    for reader, variables in variables_by_reader().items():
        lines += [f"## {reader}\n", "| variable | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in variables.items()]
        lines.append("")
    return "\n".join(lines) + "\n"


def variables_by_reader() -> dict[str, dict[str, str]]:
    """Variable -> meaning, by what reads it."""
    from server.settings import RehearsalEnvironment, ServerEnvironment

    server = _variables(ServerEnvironment)
    rehearsal = {name: text for name, text in _variables(RehearsalEnvironment).items() if name not in server}
    return {"Server": server, "Rehearsals": rehearsal, **OTHER_VARIABLES}


def _variables(model: Any) -> dict[str, str]:
    return {str(field.validation_alias): field.description or "" for field in model.model_fields.values()}


# ------------------------------------------------------------------ columns


def columns() -> str:
    """The columns of responses and listeners.csv, from their schema."""
    from study.columns import LISTENER_COLUMNS, RESPONSE_COLUMNS

    needed = {"needed": "needed", "used": "used where present", "ignored": "–"}
    lines = [
        "## Columns of responses\n",
        "| column | type | meaning | analysis | public release |",
        "|---|---|---|---|---|",
    ]
    for name, one in RESPONSE_COLUMNS.items():
        meaning = one.meaning + (f" ({one.unit})" if one.unit else "")
        lines.append(
            f"| `{name}` | {one.type} | {_cell(meaning)} | {needed[one.analysis]} | {_cell(_published(one.publish))} |"
        )
    lines += ["\n## Columns of listeners.csv\n", "| column | type | meaning | public release |", "|---|---|---|---|"]
    for name, one in LISTENER_COLUMNS.items():
        lines.append(f"| `{name}` | {one.type} | {_cell(one.meaning)} | {_cell(_published(one.publish))} |")
    lines.append(
        "\nThere is also `<step>_passed` and `<step>_correct` for each graded step of the prescreen, and `q_<id>` for "
        "each question."
    )
    return "\n".join(lines)


def _published(publish: Any) -> str:
    """How a column is published, in words."""
    from study import columns as schema

    words: dict[type, Any] = {
        schema.AsIs: lambda: "unchanged",
        schema.Renamed: lambda: "under a random name",
        schema.Capped: lambda: f"up to {publish.most}",
        schema.CoarseTime: lambda: f"in steps of {publish.step_ms} ms, up to {publish.longest_ms // 1000} s",
        schema.RunOutcome: lambda: "without whether it was paid",
        schema.Generalised: lambda: "in values that at least k listeners share",
        schema.Withheld: lambda: f"not published: {publish.why}",
    }
    return str(words[type(publish)]())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, text in pages().items():
        print(f"==== {name}\n{text}")
