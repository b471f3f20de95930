"""README.md of a release: what it contains, how to use it, who took part and what was removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from embeddings.version import VERSION
from embeddings.wording import counted
from server.public_release.citation import abstract
from server.public_release.licences import LICENCES
from server.public_release.metadata import ReleaseMetadata
from study.columns import RESPONSE_COLUMNS, Capped, CoarseTime, Withheld
from study.questions.generalise import WITHHELD


def readme(metadata: ReleaseMetadata) -> str:
    """README.md of a bundle, for people who download it."""
    licence = LICENCES[metadata.licence]
    authors = "; ".join(author.full_name for author in metadata.authors)
    lines = [
        f"# {metadata.title}",
        "",
        abstract(metadata),
        "",
        *_notices(metadata),
        f"Authors: {authors}. Licence: {licence.name} ({licence.url}). CITATION.cff says how to cite the data.",
        "",
        "## Files",
        "",
        *(f"- `{file}`: {description}" for file, description in metadata.files.items()),
        "",
        "## How to use the data",
        "",
        "`sha256sum -c SHA256SUMS` checks that every file is as it was published. The following command makes the "
        "complete report from this folder alone, with the exclusion rules of study.toml. The release was made with "
        f"Rootnote {VERSION}.",
        "",
        "```sh",
        "rootnote analysis report responses.csv --out report",
        "```",
        "",
        "The report was made before publication: every digit of Table 1 (table1.csv) was equal to Table 1 from the "
        "study's own data."
        if metadata.checked
        else "Table 1 was not compared with Table 1 from the study's own data when this release was made.",
        "",
        "## Who took part",
        "",
        *_participants(metadata),
        "",
        "## What was removed to protect the listeners",
        "",
        *_removed(metadata),
        "",
        "Please do not try to identify anyone.",
    ]
    return "\n".join(lines) + "\n"


def _notices(metadata: ReleaseMetadata) -> list[str]:
    notices = []
    if metadata.rehearsal:
        notices.append("**These listeners are simulated. The data tell you nothing about real people.**")
    if not metadata.closed and not metadata.rehearsal:
        notices.append("**This release was made before the study was closed, so the data are incomplete.**")
    return [line for notice in notices for line in (notice, "")]


def _participants(metadata: ReleaseMetadata) -> list[str]:
    total = counted(sum(metadata.states.values()), "listener")
    states = ", ".join(f"{state.replace('_', ' ')} {number:,}" for state, number in metadata.states.items())
    line = f"{total} consented: {states}."
    if metadata.months is not None:
        first, last = metadata.months
        line += f" The responses are from {first}." if first == last else f" The responses are from {first} to {last}."
    return [line]


def _removed(metadata: ReleaseMetadata) -> list[str]:
    lines = [
        "- Listeners, runs, responses and clips have random names, made for this release. No list of the true names "
        "was kept. The rows are sorted by the random names. Anyone who has the study's own data can still find each "
        "listener by their responses.",
        f"- There are no dates or times of day. {_coarsened()}",
        f"- Columns of responses.csv that are not published: {_withheld_columns()}.",
        _personal_data(metadata),
        *(
            f"  - `{one.column.name}`: {one.level.label}; {one.withheld:,} of {len(one.values):,} withheld."
            for one in metadata.published
        ),
    ]
    lines += [
        f"- Not published at all: {', '.join(columns)} ({reason})." for reason, columns in _by_reason(metadata.dropped)
    ]
    if metadata.withdrawn_responses:
        withdrawn = counted(metadata.withdrawn_responses, "response")
        lines.append(f"- Not published: {withdrawn} of listeners who withdrew. No table counts them.")
    if metadata.withheld_settings:
        keys = ", ".join(f"`{key}`" for key in metadata.withheld_settings)
        lines.append(f"- Settings of study.toml that are not published: {keys}.")
    if metadata.turns_public:
        lines.append(
            "- The seed and the frozen plan. In this study they determine the order in which trial lists were "
            "assigned. With the schedule, they would show which listeners came early and which came late."
        )
    return lines


def _coarsened() -> str:
    """The columns whose values are coarser than in the study's own data."""
    coarse = {}
    for name, column in RESPONSE_COLUMNS.items():
        match column.publish:
            case CoarseTime(step_ms, longest_ms):
                coarse[name] = f"in steps of {step_ms} ms, up to {longest_ms // 1000} s"
            case Capped(most):
                coarse[name] = f"at most {most}"
    return "Coarser values: " + "; ".join(f"{', '.join(names)} ({how})" for how, names in _by_reason(coarse)) + "."


def _withheld_columns() -> str:
    withheld = {
        name: column.publish.why for name, column in RESPONSE_COLUMNS.items() if isinstance(column.publish, Withheld)
    }
    return "; ".join(f"{', '.join(columns)} ({reason})" for reason, columns in _by_reason(withheld))


def _by_reason(columns: Mapping[str, str]) -> Iterable[tuple[str, list[str]]]:
    """The columns by the reason why they are left out."""
    grouped: dict[str, list[str]] = {}
    for column, reason in columns.items():
        grouped.setdefault(reason, []).append(f"`{column}`")
    return grouped.items()


def _personal_data(metadata: ReleaseMetadata) -> str:
    if not metadata.published:
        return "- Nothing that listeners said about themselves is published."
    return (
        f"- What listeners who finished said about themselves is published so that at least {metadata.k} of them share "
        f"each combination of values (k-anonymity, k = {metadata.k}). Values are coarser where this was necessary, and "
        f"`{WITHHELD}` where that was not enough. For listeners who did not finish, these columns are blank."
    )


def count_states(states: Sequence[str]) -> dict[str, int]:
    """The number of runs by outcome, the most frequent first."""
    return dict(sorted(Counter(states).items(), key=lambda item: (-item[1], item[0])))
