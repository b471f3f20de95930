"""Words: what of a bundle is read by people and catalogues: README, data dictionary, licence, citation.

The dictionary is written once as data (dictionary.json) and again for people (dictionary.md). CITATION.cff follows the
Citation File Format 1.2.0; its values are written as JSON strings, which are YAML too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from embeddings.errors import RootnoteError
from embeddings.version import VERSION
from server.public_release.k_anonymity import GeneralisedTable
from server.public_release.licences import LICENCES
from server.public_release.responses import LONGEST_MS, MOST_PLAYS, STEP_MS
from study.questions.generalise import WITHHELD

ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")


@dataclass(frozen=True)
class Author:
    """A person (family and given names) or, without given names, a group."""

    family: str
    given: str = ""
    orcid: str = ""

    @property
    def in_words(self) -> str:
        return f"{self.given} {self.family}".strip()


def read_author(text: str) -> Author:
    """An author as written on the command line: "Family, Given", "Family, Given, ORCID", or a group's name.

    Raises:
        RootnoteError: where it is none of these.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(parts) > 3 or not all(letter.isprintable() for letter in text):
        raise RootnoteError(f"'{text}' is no author; write \"Family, Given\", with an ORCID iD after a further comma.")
    if len(parts) == 3 and not ORCID.fullmatch(parts[2]):
        raise RootnoteError(f"'{parts[2]}' is no ORCID iD, such as 0000-0002-1825-0097.")
    return Author(*parts)


@dataclass(frozen=True)
class ReleaseMetadata:
    """What a bundle has to say of itself."""

    title: str
    authors: tuple[Author, ...]
    licence: str
    made: date
    k: int
    responses: int
    listeners: int  # who gave them
    states: Mapping[str, int]
    months: tuple[str, str] | None
    published: tuple[GeneralisedTable, ...]
    dropped: Mapping[str, str]  # column of listeners.csv -> why it is not there
    withheld_settings: tuple[str, ...]
    withdrawn_responses: int
    plan: str  # the frozen plan's hash
    turns_public: bool
    closed: bool
    rehearsal: bool
    checked: bool
    files: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------ the dictionary

# (name, type, unit, values, meaning)
_RESPONSES = (
    ("study", "text", "", "", "The study's name"),
    ("embedder", "text", "", "", "The similarity measure that chose the clips"),
    ("assignment", "text", "", "random name", "One listener's one run; made for this bundle alone"),
    ("listener", "text", "", "random name", "A listener; made for this bundle alone"),
    ("trial", "text", "", "random name", "This answer; made for this bundle alone"),
    ("position", "whole number", "", "1 …", "Place of the trial in the run"),
    ("kind", "text", "", "scored, catch, repeat", "Only scored ones enter the tables; in a catch trial one side is X"),
    ("prompt", "text", "", "random name", "The clip X; clips have the same name wherever they occur in this bundle"),
    ("bin_high", "whole number", "", "1 to 4", "Bin of the more similar clip: 1 is most similar, 4 random"),
    ("bin_low", "whole number", "", "1 to 4", "Bin of the less similar clip"),
    ("clip_high", "text", "", "random name", "The clip of bin_high"),
    ("clip_low", "text", "", "random name", "The clip of bin_low"),
    ("similarity_high", "number", "cosine", "-1 to 1", "Similarity of clip_high to the prompt"),
    ("similarity_low", "number", "cosine", "-1 to 1", "Similarity of clip_low to the prompt"),
    ("high_side", "text", "", "A, B", "On which side clip_high was played"),
    ("choice", "text", "", "A, B", "Which side the listener found more like X"),
    ("agreed", "whole number", "", "0, 1", "1 where clip_high was chosen"),
    ("response_ms", "whole number", "ms", f"0 to {LONGEST_MS}", "From the page's showing to the answer, rounded down "
     f"to {STEP_MS} ms (or up to the rule too_fast), longer times cut"),
    ("plays_x", "whole number", "", f"0 to {MOST_PLAYS}", "How often X was heard to its end; more is cut"),
    ("plays_a", "whole number", "", f"0 to {MOST_PLAYS}", "How often A was heard to its end; more is cut"),
    ("plays_b", "whole number", "", f"0 to {MOST_PLAYS}", "How often B was heard to its end; more is cut"),
    ("passed_prescreen", "whole number", "", "0, 1", "1 where the listener passed the prescreen"),
    ("completed", "whole number", "", "0, 1", "1 where the listener finished the study"),
    ("confidence", "whole number", "", "1 to 5, or blank", "How sure the listener was (5: certain), if it was asked"),
)  # fmt: skip
_LISTENERS = (
    ("assignment", "text", "", "random name", "As in responses.csv"),
    ("listener", "text", "", "random name", "As in responses.csv"),
    ("state", "text", "", "", "What became of the run"),
    ("prescreen", "text", "", "passed, failed, open", "What came of the prescreen"),
)
_CLIPS = (
    ("clip", "text", "", "random name", "As prompt, clip_high and clip_low in responses.csv"),
    ("path", "text", "", "", "The track's file in the corpus"),
    ("start_s", "number", "s", "", "Where the clip begins in the track"),
    ("duration_s", "number", "s", "", "How long the clip is"),
)
_KEYS = ("name", "type", "unit", "values", "meaning")
Entry = dict[str, Any]


def dictionary(published: Sequence[GeneralisedTable], tables: Mapping[str, Sequence[str]]) -> dict[str, list[Entry]]:
    """What each column of each table means; `tables` are the columns by file."""
    known = {"responses.csv": _RESPONSES, "listeners.csv": _LISTENERS, "clips.csv": _CLIPS}
    own = {one.column.name: _entry_of(one) for one in published}
    described = {}
    for file, columns in tables.items():
        entries = {row[0]: dict(zip(_KEYS, row, strict=True)) for row in known[file]}
        if file == "listeners.csv":
            entries |= own
        tag = {"type": "text", "unit": "", "values": "", "meaning": "The track's tag of this name"}
        described[file] = [entries.get(name, {"name": name, **tag}) for name in columns]
    return described


def _entry_of(one: GeneralisedTable) -> Entry:
    values = sorted({value for value in one.values if value not in ("", WITHHELD)})
    return {
        "name": one.column.name,
        "type": "text",
        "unit": "",
        "values": ", ".join(values),
        "meaning": one.column.meaning,
        "level": one.level.label,
        "withheld": one.withheld,
    }


def dictionary_markdown(described: Mapping[str, Sequence[Entry]]) -> str:
    """The dictionary for people."""
    lines = [
        "# Data dictionary",
        "",
        "CSV files are UTF-8, with commas and a header. Blank: not asked or not answered.",
    ]
    lines += [f"`{WITHHELD}`: answered, but not published (README.md).", ""]
    lines += [
        'An answer may be the word None: in pandas read with `keep_default_na=False`, in R with `na.strings = ""`.'
    ]
    for file, entries in described.items():
        title = "responses.csv and responses.parquet" if file == "responses.csv" else file
        lines += ["", f"## {title}", "", "| column | type | unit | values | meaning |", "|---|---|---|---|---|"]
        for entry in entries:
            meaning = entry["meaning"] + (f" (told: {entry['level']})" if "level" in entry else "")
            cells = (f"`{entry['name']}`", entry["type"], entry["unit"], entry["values"], meaning)
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")


# ------------------------------------------------------------------ licence and citation


def licence_text(licence: str, holders: Sequence[Author]) -> str:
    name, url, says = LICENCES[licence]
    who = "; ".join(author.in_words for author in holders)
    return f"{name} ({licence})\n{url}\n\nThe data in this folder: {who}.\n{says}\n\nThe music is not part of it.\n"


def citation(story: ReleaseMetadata) -> str:
    """CITATION.cff."""
    lines = [
        "cff-version: 1.2.0",
        "message: If you use these data, please cite them as below.",
        "type: dataset",
        f"title: {_yaml(story.title)}",
        "authors:",
    ]
    for author in story.authors:
        named = (
            {"family-names": author.family, "given-names": author.given} if author.given else {"name": author.family}
        )
        if author.orcid:
            named["orcid"] = f"https://orcid.org/{author.orcid}"
        lines += [f"{'  - ' if first else '    '}{key}: {_yaml(value)}" for first, (key, value) in _first(named)]
    lines += [
        f"abstract: {_yaml(_abstract(story))}",
        f"date-released: {_yaml(story.made.isoformat())}",
        f"license: {story.licence}",
        f"license-url: {_yaml(LICENCES[story.licence][1])}",
        "keywords:",
        *(f"  - {_yaml(word)}" for word in ("music similarity", "listening test", "ABX", "audio embeddings")),
    ]
    return "\n".join(lines) + "\n"


def _first(named: Mapping[str, str]) -> list[tuple[bool, tuple[str, str]]]:
    return [(number == 0, item) for number, item in enumerate(named.items())]


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _abstract(story: ReleaseMetadata) -> str:
    who = "simulated listeners" if story.rehearsal else "listeners"
    return (
        f"{story.responses:,} answers of {story.listeners:,} {who} who said which of two clips of music is more like "
        "a third, with the similarity that a measure gives them; under names made for this release, without times."
    )


# ------------------------------------------------------------------ README


def readme(story: ReleaseMetadata) -> str:
    """README.md of a bundle, for whoever downloads it."""
    name, url, _ = LICENCES[story.licence]
    lines = [
        f"# {story.title}",
        "",
        _abstract(story),
        "",
        *_notices(story),
        f"By {'; '.join(author.in_words for author in story.authors)}. {name} ({url}). How to cite: CITATION.cff.",
        "",
        "## Files",
        "",
        *(f"- `{file}`: {says}" for file, says in story.files.items()),
        "",
        "## How to use it",
        "",
        "`sha256sum -c SHA256SUMS` tells whether every file is as it was published. With Rootnote "
        f"({VERSION} made this),",
        "",
        "```sh",
        "rootnote analysis report responses.csv --out report",
        "```",
        "",
        "makes the whole report from this folder alone, under the rules in study.toml. "
        + (
            "That was done before it was published: Table 1 (table1.csv) was equal, digit by digit, to that of the "
            "study's own data."
            if story.checked
            else "Whether Table 1 is that of the study's own data was not checked when this was made."
        ),
        "",
        "## Who took part",
        "",
        *_who(story),
        "",
        "## What was taken out, so that nobody can be found",
        "",
        *_taken_out(story),
        "",
        "Please do not try to find out who anybody was.",
    ]
    return "\n".join(lines) + "\n"


def _notices(story: ReleaseMetadata) -> list[str]:
    said = []
    if story.rehearsal:
        said.append("**These listeners are simulated. The data say nothing about people.**")
    if not story.closed and not story.rehearsal:
        said.append("**This was made before the study was closed: it is not the whole of it.**")
    return [line for notice in said for line in (notice, "")]


def _who(story: ReleaseMetadata) -> list[str]:
    states = ", ".join(f"{state.replace('_', ' ')} {number:,}" for state, number in story.states.items())
    lines = [f"{sum(story.states.values()):,} listeners consented: {states}."]
    if story.months is not None:
        first, last = story.months
        when = f"in {first}" if first == last else f"from {first} to {last}"
        lines[0] += f" Answers were given {when}."
    return lines


def _taken_out(story: ReleaseMetadata) -> list[str]:
    lines = [
        "- Names of listeners, runs, answers and clips are random and were made for this bundle; no list of which is "
        "which was kept. Rows are ordered by these names. Whoever holds the study's own data can find listeners by "
        "their answers.",
        f"- No time of day or date. `response_ms` in steps of {STEP_MS} ms, at most {LONGEST_MS // 1000} s; at most "
        f"{MOST_PLAYS} plays. No telemetry.",
    ]
    lines.append(
        f"- What listeners who finished said of themselves is told so that each is one of {story.k} or more who are "
        f"alike in all of it (k-anonymity, k = {story.k}): coarser where need be, and `{WITHHELD}` where that was not "
        "enough. Of those who did not finish it is not told."
        if story.published
        else "- Nothing of what listeners said of themselves is told."
    )
    lines += [
        f"  - `{one.column.name}`: {one.level.label}; {one.withheld:,} of {len(one.values):,} withheld."
        for one in story.published
    ]
    grouped: dict[str, list[str]] = {}
    for column, why in story.dropped.items():
        grouped.setdefault(why, []).append(f"`{column}`")
    lines += [f"- Not told at all: {', '.join(columns)} ({why})." for why, columns in grouped.items()]
    if story.withdrawn_responses:
        lines.append(f"- {story.withdrawn_responses:,} answers of listeners who withdrew; no table counts them.")
    if story.withheld_settings:
        lines.append(f"- Of study.toml: {', '.join(f'`{key}`' for key in story.withheld_settings)}.")
    if story.turns_public:
        lines.append(
            "- The seed and the frozen plan: in this study they tell in which order lists were handed out, and so, to "
            "whoever has its schedule, who came early and who late."
        )
    return lines


def counted(states: Sequence[str]) -> dict[str, int]:
    """How many runs came to which end, the most frequent first."""
    return dict(sorted(Counter(states).items(), key=lambda item: (-item[1], item[0])))
