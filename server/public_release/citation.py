"""LICENSE and CITATION.cff of a release.

CITATION.cff follows the Citation File Format 1.2.0. Its values are written as JSON strings, which are also YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from embeddings.wording import counted
from server.public_release.licences import LICENCES
from server.public_release.metadata import Author, ReleaseMetadata


def abstract(metadata: ReleaseMetadata) -> str:
    """The data in one sentence."""
    who = counted(metadata.listeners, "simulated listener" if metadata.rehearsal else "listener")
    return (
        f"{counted(metadata.responses, 'response')} by {who}, who said which of two music clips is more like a third, "
        "with the similarities that an audio embedding assigns to the clips. Names are random, and there are no dates."
    )


def licence_text(licence: str, holders: Sequence[Author]) -> str:
    """The text of LICENSE."""
    terms = LICENCES[licence]
    names = "; ".join(author.full_name for author in holders)
    return (
        f"{terms.name} ({licence})\n{terms.url}\n\nThe data in this folder are by {names}.\n{terms.summary}\n\n"
        "The licence does not cover the music, which is not included.\n"
    )


def citation(metadata: ReleaseMetadata) -> str:
    """The text of CITATION.cff."""
    lines = [
        "cff-version: 1.2.0",
        "message: If you use these data, please cite them as below.",
        "type: dataset",
        f"title: {_yaml(metadata.title)}",
        "authors:",
    ]
    for author in metadata.authors:
        named = (
            {"family-names": author.family, "given-names": author.given} if author.given else {"name": author.family}
        )
        if author.orcid:
            named["orcid"] = f"https://orcid.org/{author.orcid}"
        lines += [f"{'  - ' if first else '    '}{key}: {_yaml(value)}" for first, (key, value) in _first(named)]
    lines += [
        f"abstract: {_yaml(abstract(metadata))}",
        f"date-released: {_yaml(metadata.made.isoformat())}",
        f"license: {metadata.licence}",
        f"license-url: {_yaml(LICENCES[metadata.licence].url)}",
        "keywords:",
        *(f"  - {_yaml(word)}" for word in ("music similarity", "listening test", "ABX", "audio embeddings")),
    ]
    return "\n".join(lines) + "\n"


def _first(named: Mapping[str, str]) -> list[tuple[bool, tuple[str, str]]]:
    return [(number == 0, item) for number, item in enumerate(named.items())]


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
