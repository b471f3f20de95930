"""The documentation against the code: commands in examples, variables, keys of study.toml, versions, links."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest
import yaml

from embeddings.version import VERSION
from rootnote import cli
from study.columns import LISTENER_COLUMNS, RESPONSE_COLUMNS
from tests.reference_pages import reference

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^([ \t]*)```(?:sh|bash|console)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# Where a command begins: at the start of a line, after variables, in $(…), after ; & and |.
COMMAND = re.compile(r"(?:^\s*|[(;&|]\s*)(?:[A-Z_]+=\S*\s+)*(rootnote\s[^)#;&|>]*)")
INLINE = re.compile(r"`(rootnote [a-z][^`\n]*)`")
VARIABLE = re.compile(r"(?<![A-Z_])ROOTNOTE_[A-Z_]*[A-Z]\b")
ABBREVIATED = re.compile(r"…|\.\.\.|\b(GROUP|COMMAND)\b|<|\[[A-Z-]|\$\{?[a-z]| \| |, …")


# ------------------------------------------------------------------ commands in examples


def example_lines(page: Path) -> Iterator[str]:
    """The commands of `rootnote` in a page's sh blocks, continued lines joined."""
    for _, block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield from (part.strip() for part in COMMAND.findall(line.partition(" #")[0]))


def examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))
        found += [(name, line) for line in example_lines(page)]
        found += [(name, line) for line in INLINE.findall(text) if not ABBREVIATED.search(line)]
    pages = reference().command_pages()
    for text in pages.values():
        found += [("--help", line) for line in re.findall(r"Example: `(rootnote [^`]*)`", text)]
    assert len([line for page, line in found if page == "--help"]) > 20
    return list(dict.fromkeys(found))


def check(line: str, *, whole: bool) -> None:
    """Parse a command line without running it; UsageError if the command or an option does not exist.

    Args:
        whole: whether arguments and required options must be there too, as in a block that is run.
    """
    command: click.Command = cli
    context, words = click.Context(cli, info_name="rootnote"), shlex.split(line)[1:]
    while isinstance(command, click.Group) and words:
        member = command.get_command(context, words[0])
        if member is None:
            raise click.UsageError(f"no command {words[0]!r} in {context.command_path!r}")
        command, context, words = member, click.Context(member, info_name=words[0], parent=context), words[1:]
    if isinstance(command, click.Group):
        assert not whole, f"{context.command_path} is a group"
        return
    parser = command.make_parser(context)
    if not whole and words[-1:] and words[-1].startswith("-"):
        option = parser._long_opt.get(words[-1]) or parser._short_opt.get(words[-1])
        if option is not None and option.takes_value:
            words.append("1")  # "`--k`" names an option and not its value
    given, _, _ = parser.parse_args(args=words)
    if whole:
        missing = [one.name for one in command.params if one.required and given.get(str(one.name)) in (None, ())]
        assert missing == [], f"{line} lacks {missing}"


@pytest.mark.parametrize(("page", "line"), examples())
def test_every_command_shown_exists_with_these_options(page: str, line: str) -> None:
    in_block = page == "--help" or line in set(example_lines(ROOT / page))
    try:
        check(line.partition(" > ")[0], whole=in_block)
    except click.UsageError as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_unknown_commands_and_options_would_be_found() -> None:
    for line in ("rootnote server opne my-study", "rootnote study build my-study --fast"):
        with pytest.raises(click.UsageError):
            check(line, whole=True)
    with pytest.raises(AssertionError, match="lacks"):
        check("rootnote study init my-study", whole=True)


# ------------------------------------------------------------------ the generated pages


def test_every_command_has_its_options_on_its_page() -> None:
    pages = reference().command_pages()
    assert set(pages) == {"demo", "embeddings", "study", "server", "analysis"}
    context = click.Context(cli, info_name="rootnote")
    for group, text in pages.items():
        sections = dict(re.findall(r"^#+ (rootnote .+)\n((?:(?!^#).*\n)*)", text, flags=re.MULTILINE))
        found = cli.get_command(context, group)
        assert found is not None
        for words, command in commands(found, click.Context(found, info_name=group, parent=context)):
            section = sections[words]
            options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
            for option in options:
                assert option.opts[-1] in section, f"{words}: {option.opts}"
    assert "--out" in pages["study"].partition("# rootnote study irb")[2].partition("\n## ")[0]


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None
            yield from commands(member, click.Context(member, info_name=name, parent=context))


def test_every_key_of_study_toml_has_a_meaning() -> None:
    page = reference().study_toml()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if not re.search(r"[A-Za-z)].*\. \|$", row.rpartition(" | ")[2])] == []
    for section in ("[prescreen.tones", "[recruiter.prolific", "[embedding.clmr", "[[questions", "[recruiter.mturk"):
        assert section in page.replace("\\", ""), section


def test_the_template_of_study_toml_has_no_other_keys() -> None:
    page = reference().study_toml()
    for _, key in reference().template_comments():
        assert f"| `{key}` |" in page, key


def test_the_page_of_variables_has_those_that_the_code_reads() -> None:
    documented = {name for part in reference().variables_by_reader().values() for name in part}
    assert all(text.endswith(".") for part in reference().variables_by_reader().values() for text in part.values())
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "scripts", "deploy", "Makefile", ".ci"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    own = ("tests/", "scripts/docs_reference().py", "benchmarks/")
    read = {
        variable
        for name in tracked
        if not name.startswith(own) and (ROOT / name).is_file()
        for variable in VARIABLE.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    assert {name for name in documented if name.startswith("ROOTNOTE_")} == read


def test_the_files_page_has_the_columns_of_the_schema() -> None:
    text = reference().on_page_markdown((ROOT / "docs/reference/files.md").read_text(encoding="utf-8"))
    for name in (*RESPONSE_COLUMNS, *LISTENER_COLUMNS):
        assert f"| `{name}` |" in text


# ------------------------------------------------------------------ paths, versions and decisions


@pytest.mark.parametrize("path", sorted((ROOT / "docs/extending").glob("*.md")), ids=lambda path: path.stem)
def test_files_that_a_page_names_exist(path: Path) -> None:
    """Paths in code marks that begin with a package; NAME, CODE and <…> stand for what a reader chooses."""
    found = re.findall(
        r"`((?:embeddings|study|server|analysis|migrations|tests|docs|scripts)/[^`\s]*)`", path.read_text()
    )
    concrete = [name for name in found if not re.search(r"NAME|CODE|<", name)]
    assert [name for name in concrete if not (ROOT / name).exists()] == []


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == VERSION == citation["version"]
    assert citation["license"] == "MIT"
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_page_of_dependencies_names_every_package_that_users_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [needs for extra, needs in project["optional-dependencies"].items() if extra != "dev"]
    named = {
        found[0] for needs in [project["dependencies"], *extras] for one in needs if (found := re.match(r"[\w-]+", one))
    }
    page = (ROOT / "docs/explanation/dependencies.md").read_text(encoding="utf-8")
    assert sorted(name for name in named - {"rootnote"} if not re.search(rf"\b{name}\b", page)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda path: path.stem)
def test_decisions_have_a_number_a_title_and_a_status(path: Path) -> None:
    title, blank, status = path.read_text(encoding="utf-8").splitlines()[:3]
    assert re.fullmatch(rf"# {int(path.stem[:4])}\. [A-Z`].+", title)
    assert blank == ""
    assert re.fullmatch(r"\*Status: (accepted|superseded).*\*", status)


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    """Links and anchors hold, every page is in the navigation, every included example exists."""
    with mock.patch.dict(os.environ, {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}):
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown = (tmp_path / "site/extending/question-type.html").read_text(encoding="utf-8")
    assert "SliderQuestion" in shown and "--8<--" not in shown


@pytest.mark.slow
def test_the_program_that_takes_screenshots_can_be_imported() -> None:
    command = ["import runpy; runpy.run_path('scripts/screenshots')"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", *command], cwd=ROOT, env=environment, check=True)


PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(block, id=page.stem)
    for page in PAGES
    for block in PYTHON.findall(page.read_text(encoding="utf-8"))
    if block.startswith(("import ", "from ")) and "responses.csv" not in block
]


@pytest.mark.slow
@pytest.mark.parametrize("block", PROGRAMS)
def test_python_examples_run(block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
