"""The bundle: every file of a public release, written into one folder.

A bundle contains responses.csv and .parquet, listeners.csv, the dictionary, study.toml, the bins, the frozen plan if
there is one, licence, citation, export.json (with which a report checks that the data are unchanged), README.md and,
last, SHA256SUMS of all files. The random names are not stored anywhere else.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance, digest, read_json, read_table, write_json, write_table
from server.db.models import AssignmentState
from server.export.responses import arrived, erased, guarded, listener_rows, response_rows, write_csv
from server.public_release.citation import citation, licence_text
from server.public_release.design import published_design, turns_are_public
from server.public_release.dictionary import dictionary, dictionary_markdown
from server.public_release.k_anonymity import GeneralisedColumn, QuasiIdentifier, anonymise
from server.public_release.listeners import columns_of, known_of, left_out, outcome
from server.public_release.metadata import Author, ReleaseMetadata
from server.public_release.readme import count_states, readme
from server.public_release.responses import Masks, mask, publishable, published_columns, published_type
from server.public_release.runs import publish_run, published_run_columns, require_listener_columns
from study.config import Study
from study.export_manifest import MANIFEST, write_manifest
from study.preregistration.document import JSON, MARKDOWN, FrozenPlan, read_frozen
from study.preregistration.exclusion_rules import SAYS, ExclusionPlan, plan_of
from study.trial_plan import BUILD, Plan

SUMS = "SHA256SUMS"
OTHER_VERSION = "publish with the version of Rootnote that froze the plan"
PUBLISHED_BINS = ("embedder", "mu", "sigma", "half_width", "centres", "histogram", "method", "counts", "fit")
CLIP_COLUMNS = ("path", "start_s", "duration_s", "title", "artist", "album", "genre", "licence")
FILES = {
    "responses.csv": "one row per response",
    "responses.parquet": "the same data as Parquet",
    "listeners.csv": "one row per listener",
    "clips.csv": "the track and position of each clip",
    "dictionary.md": "meaning, unit and values of each column",
    "dictionary.json": "the same for programs",
    "study.toml": "the design and the exclusion rules",
    "build/": "the similarity bins",
    JSON: "the analysis plan, frozen before the study",
    MARKDOWN: "the same as text",
    "table1.csv": "the result: Table 1 of the report from this folder",
    "table1.md": "the same as text",
    MANIFEST: "the SHA-256 of the data, which the report checks",
    "LICENSE": "the licence and its address",
    "CITATION.cff": "how to cite the data",
    SUMS: "the SHA-256 of every file",
}


@dataclass(frozen=True)
class ReleaseOptions:
    """The options of `rootnote server anonymize`; `leave_out` has ids of questions."""

    title: str
    authors: tuple[Author, ...]
    licence: str
    k: int
    made: date
    with_clips: bool = False
    rehearsal: bool = False
    closed: bool = True
    with_plan: bool = True
    leave_out: tuple[str, ...] = ()


def require_questions(study: Study, ids: Sequence[str]) -> None:
    """Refuse ids that no question of the study has.

    Raises:
        RootnoteError: naming the first such id, and the ids of the questions.
    """
    asked = [question.id for question in study.config.questions]
    if unknown := [one for one in ids if one not in asked]:
        raise RootnoteError(
            f"--leave-out: study.toml has no question '{unknown[0]}'; its questions are {', '.join(asked) or 'none'}."
        )


def write_bundle(session: Session, study: Study, plan: Plan, options: ReleaseOptions, folder: Path) -> ReleaseMetadata:
    """Write the data, the dictionary, the design and the plan; `finish` adds the remaining files.

    Raises:
        RootnoteError: if there is no response to publish, nothing says how a column is published, or the frozen
            plan cannot be read.
    """
    rows, people = list(response_rows(session, study, plan)), listener_rows(session, study)
    if not rows:
        raise RootnoteError("there are no responses in the database, so there is nothing to publish.")
    require_listener_columns(study.config, people)
    frozen = read_frozen(study.folder)
    rules = plan_of(study.config) if frozen is None else _rules_of(frozen)
    public_turns = not options.rehearsal and turns_are_public(session, study.config)
    states = {person["assignment"]: outcome(person["state"]) for person in people}
    kept = publishable(rows, states, rules.rules)
    finished = [person for person in people if states[person["assignment"]] == AssignmentState.FINISHED]
    published, dropped = _anonymise(study, finished, rows, options)
    masks = Masks()
    masked = mask(kept, masks, rules.thresholds.fastest_ms)
    tables = {
        "responses.csv": _write_responses(folder, study, plan, masked),
        "listeners.csv": _write_listeners(folder, people, finished, published, states, masks),
    }
    if options.with_clips:
        tables["clips.csv"] = _write_clips(folder, study, masks)
    described = dictionary(published, tables)
    _write(folder, "dictionary.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    _write(folder, "dictionary.md", dictionary_markdown(described))
    design, withheld = published_design(study, rules, seed=not public_turns)
    _write(folder, "study.toml", design)
    _copy_bins(folder, study, {row["embedder"] for row in kept})
    public_plan = frozen if options.with_plan and not public_turns else None
    if public_plan is not None:
        _copy_plan(folder, study)
    paths = [folder / name for name in ("responses.csv", "responses.parquet", "listeners.csv")]
    hash_of_plan = public_plan.hash if public_plan else ""
    write_manifest(
        folder,
        study.config.study.name,
        plan.schedule_fingerprint,
        hash_of_plan,
        paths,
        arrived(session),
        erased(session),
        withheld=withheld,
        rehearsal=options.rehearsal,
        leaks=plan.leaks,
    )
    return ReleaseMetadata(
        title=options.title,
        authors=options.authors,
        licence=options.licence,
        made=options.made,
        k=options.k,
        responses=len(masked),
        listeners=len({row["listener"] for row in masked}),
        states=count_states([*states.values()]),
        months=_months(kept),
        published=tuple(published),
        dropped=dropped,
        withheld_settings=withheld,
        withdrawn_responses=len(rows) - len(kept),
        plan=hash_of_plan,
        turns_public=public_turns,
        closed=options.closed,
        rehearsal=options.rehearsal,
        checked=False,
    )


def finish(folder: Path, metadata: ReleaseMetadata) -> str:
    """Write licence, citation, README and SHA256SUMS; return the SHA-256 of the last."""
    _write(folder, "LICENSE", licence_text(metadata.licence, metadata.authors))
    _write(folder, "CITATION.cff", citation(metadata))
    files = {name: text for name, text in FILES.items() if name == SUMS or (folder / name).exists()}
    _write(folder, "README.md", readme(replace(metadata, files=files)))
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in paths)
    _write(folder, SUMS, sums)
    return hashlib.sha256(sums.encode()).hexdigest()


def _rules_of(frozen: FrozenPlan) -> ExclusionPlan:
    try:
        rules = ExclusionPlan.from_data(frozen.plan["exclusions"])
    except (KeyError, TypeError, ValueError) as error:
        raise RootnoteError(f"{JSON}: its exclusions cannot be read ({error}); {OTHER_VERSION}.") from error
    if unknown := [rule for rule in rules.rules if rule not in SAYS]:
        raise RootnoteError(f"{JSON}: there is no exclusion rule '{unknown[0]}'; {OTHER_VERSION}.")
    return rules


def _anonymise(
    study: Study, finished: Sequence[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], options: ReleaseOptions
) -> tuple[list[GeneralisedColumn], dict[str, str]]:
    """The published columns about those who finished, and for each other column why it is not published."""
    responses: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        responses[row["assignment"]].append(row)
    known = [known_of(person, responses[person["assignment"]], study.config) for person in finished]
    columns = columns_of(study.config, known)
    unwanted = [f"q_{one}" for one in options.leave_out]
    asked: list[QuasiIdentifier] = [
        column for column in columns if column.name not in unwanted and any(person[column.name] for person in known)
    ]
    published = anonymise(asked, known, options.k)
    kept = {one.column.name for one in published}
    dropped = left_out(study.config) | dict.fromkeys(unwanted, "left out on request")
    dropped |= {
        column.name: f"no value can be published for at least {options.k} listeners"
        for column in asked
        if column.name not in kept
    }
    return published, dropped


def _write_responses(folder: Path, study: Study, plan: Plan, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Write the responses without columns that have no value, such as a confidence that was not asked for."""
    columns = tuple(name for name in published_columns() if any(row[name] is not None for row in rows))
    rows = [{name: row[name] for name in columns} for row in rows]
    write_csv(folder / "responses.csv", columns, rows)
    provenance = Provenance("responses", {"study": study.config.study.name}, {"schedule": plan.schedule_fingerprint})
    schema = pa.schema([(name, published_type(name)) for name in columns])
    write_table(folder / "responses.parquet", pa.Table.from_pylist(rows, schema=schema), provenance)
    return columns


def _write_listeners(
    folder: Path,
    people: Sequence[Mapping[str, Any]],
    finished: Sequence[Mapping[str, Any]],
    published: Sequence[GeneralisedColumn],
    states: Mapping[str, str],
    masks: Masks,
) -> tuple[str, ...]:
    """One row per run, sorted by the new name."""
    number = {person["assignment"]: index for index, person in enumerate(finished)}
    rows = []
    for person in people:
        true = person["assignment"]
        row = publish_run(person, states[true], masks)
        values = {one.column.name: guarded(one.values[number[true]]) for one in published} if true in number else {}
        rows.append(row | values)
    columns = (*published_run_columns(), *(one.column.name for one in published))
    write_csv(folder / "listeners.csv", columns, sorted(rows, key=lambda row: row["listener"]))
    return columns


def _write_clips(folder: Path, study: Study, masks: Masks) -> tuple[str, ...]:
    """Write the track of each clip that occurs in the responses."""
    table, _ = read_table(study.corpus, "corpus", BUILD)
    columns = ("clip", *(name for name in CLIP_COLUMNS if name in table.column_names))
    used = [row for row in table.select(columns).to_pylist() if row["clip"] in masks.clips]
    rows = [row | {"clip": masks.clips[row["clip"]]} for row in used]
    write_csv(folder / "clips.csv", columns, sorted(rows, key=lambda row: row["clip"]))
    return columns


def _copy_bins(folder: Path, study: Study, embedders: set[str]) -> None:
    """Copy the bins to where the report looks for them, without the settings that produced them."""
    for embedder in sorted(embedders):
        path = study.bins(embedder)
        if path.is_file():
            content, _ = read_json(path, "bins", BUILD)
            bins = {name: content[name] for name in PUBLISHED_BINS if name in content}
            write_json(folder / "build" / path.name, bins, Provenance("bins", {}, {"content": digest(bins)}))


def _copy_plan(folder: Path, study: Study) -> None:
    for name in (JSON, MARKDOWN):
        if (study.folder / name).is_file():
            shutil.copyfile(study.folder / name, folder / name)


def _months(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    months = sorted({str(row["answered_at"])[:7] for row in rows})
    return (months[0], months[-1]) if months else None


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
