"""Generate the reference pages of the documentation from the code (an mkdocs hook).

Commands come from click, study.toml from the models and the template's comments, environment variables from the
settings. Nothing is written into docs/: mkdocs gets the pages as generated files.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def on_files(found: Any, config: Any, **_: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        found.append(File.generated(config, f"reference/{name}.md", content=text))
    return found


def pages() -> dict[str, str]:
    """The generated pages, Markdown by name."""
    import click

    from rootnote import cli

    context = click.Context(cli, info_name="rootnote")
    groups = {name: command for name in cli.list_commands(context) if (command := cli.get_command(context, name))}
    commands = {name: _command_page(command, context, name) for name, command in groups.items()}
    return commands | {"study-toml": study_toml(), "environment": environment()}


def _command_page(command: Any, parent: Any, name: str) -> str:
    return "\n".join(["<!-- generated from the code -->", *_describe(command, parent, name, level=1)]) + "\n"


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
                yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
        yield ""
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            member = command.get_command(context, sub)
            if member is not None and not member.hidden:
                yield from _describe(member, context, sub, level=min(level + 1, 4))


def _paragraphs(text: str) -> str:
    """A docstring as Markdown; an example on its own line becomes code."""
    cleaned = re.sub(r"\n(?!\n)\s*", "\n", text.strip())
    return re.sub(r"^Example: (rootnote .*)$", r"Example: `\1`", cleaned, flags=re.MULTILINE)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# ------------------------------------------------------------------ study.toml


def study_toml() -> str:
    """The page of study.toml: each section with its keys, types, defaults and meaning."""
    from study.config import StudyConfig

    lines = [
        "<!-- generated from the code -->",
        "# study.toml\n",
        "`rootnote study init` writes this file. Every scientific decision of a study is in it. Unknown keys are "
        "refused, and secrets do not belong here.\n",
    ]
    schema = StudyConfig.model_json_schema()
    comments = template_comments()
    for section in schema["properties"]:
        lines += _section(section, schema["properties"][section], schema, comments, level=2)
    return "\n".join(lines) + "\n"


def _section(name: str, field: dict[str, Any], schema: dict[str, Any], comments: Any, *, level: int) -> list[str]:
    model = _model(field, schema)
    if model is None or "properties" not in model:
        return _questions(name, field, schema, level) if field.get("type") == "array" else []
    lines = [f"{'#' * level} [{name}]\n", model.get("description", "").replace("\n", " ") + "\n"]
    plain = {key: one for key, one in model["properties"].items() if _sub_model(one, schema) is None}
    if plain:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, one in plain.items():
        meaning = comments.get((name, key)) or one.get("description", "")
        default = "required" if key in model.get("required", ()) else _value(one.get("default"))
        lines.append(f"| `{key}` | {_cell(_type(one, schema))} | {_cell(default)} | {_cell(meaning)} |")
    lines.append("")
    for key, one in model["properties"].items():
        if _sub_model(one, schema) is not None:
            lines += _section(f"{name}.{key}", one, schema, comments, level=min(level + 1, 4))
    return lines


def _questions(name: str, field: dict[str, Any], schema: dict[str, Any], level: int) -> list[str]:
    lines = [f"{'#' * level} [[{name}]]\n", "One block for each question after the trials.\n"]
    items = field["items"]
    kinds = [one for one in items.get("oneOf", items.get("anyOf", [items])) if "$ref" in one]
    for one in kinds:
        model = _model(one, schema) or {}
        kind = model.get("properties", {}).get("type", {}).get("const", "")
        meaning = str(model.get("description", "")).replace("\n", " ")
        lines += [f'{"#" * (level + 1)} type = "{kind}"\n', meaning + "\n"]
        lines += ["| key | type | default |", "|---|---|---|"]
        for key, prop in model.get("properties", {}).items():
            default = "required" if key in model.get("required", ()) else _value(prop.get("default"))
            lines.append(f"| `{key}` | {_cell(_type(prop, schema))} | {_cell(default)} |")
        lines.append("")
    return lines


def _model(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    for one in [field, *field.get("allOf", []), *field.get("anyOf", [])]:
        if "$ref" in one:
            found: dict[str, Any] = schema["$defs"][one["$ref"].rpartition("/")[2]]
            return found
    return None


def _sub_model(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    model = _model(field, schema)
    return model if model and "properties" in model else None


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
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
        return f"{name} from {low:g} to {high:g}"
    if low is not None:
        return f"{name}, at least {low:g}" if "minimum" in field else f"{name} above {low:g}"
    return name


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def template_comments() -> dict[tuple[str, str], str]:
    """The comment on each key of the template of study.toml, by section and key."""
    text = files("study").joinpath("templates", "study.toml").read_text(encoding="utf-8")
    found, section = {}, ""
    for line in text.splitlines():
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
    from server.settings import VARIABLES

    lines = [
        "<!-- generated from the code -->",
        "# Environment variables\n",
        "Secrets and addresses come from the environment, never from `study.toml`.\n",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in VARIABLES.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        print(f"==== {name}\n{text}")
