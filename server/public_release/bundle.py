"""The bundle: every file of a public release, written into one folder.

A bundle holds responses.csv and .parquet, listeners.csv, the dictionary, study.toml, the bins, the frozen plan where
there is one, licence, citation, export.json (by which a report knows that the file is unchanged), README.md and, last,
SHA256SUMS over all of them. Nothing of it is kept but the file itself.
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
from server.public_release.design import published_design, turns_are_public
from server.public_release.documentation import (
    Author,
    ReleaseMetadata,
    citation,
    counted,
    dictionary,
    dictionary_markdown,
    licence_text,
    readme,
)
from server.public_release.k_anonymity import GeneralisedTable, QuasiIdentifier, anonymise
from server.public_release.listeners import columns_of, known_of, left_out, outcome
from server.public_release.responses import TYPES, Masks, mask, publishable
from study.config import Study
from study.export_manifest import MANIFEST, write_manifest
from study.preregistration.document import JSON, MARKDOWN, FrozenPlan, read_frozen
from study.preregistration.exclusion_rules import SAYS, ExclusionPlan, plan_of
from study.trial_plan import BUILD, Plan

SUMS = "SHA256SUMS"
BINS = ("embedder", "mu", "sigma", "half_width", "centres", "histogram")
OF_A_CLIP = ("path", "start_s", "duration_s", "title", "artist", "album", "genre", "licence")
FILES = {
    "responses.csv": "one row per answer",
    "responses.parquet": "the same",
    "listeners.csv": "one row per listener",
    "clips.csv": "which clip of which track has which name",
    "dictionary.md": "what each column means, with unit and values",
    "dictionary.json": "the same for programs",
    "study.toml": "the design, and the rules by which answers are left out",
    "build/": "the bins of similarity",
    JSON: "the plan, frozen before the study",
    MARKDOWN: "the same for people",
    "table1.csv": "the result: Table 1 as the report from this folder has it",
    "table1.md": "the same for people",
    MANIFEST: "the SHA-256 of the data, which the report reads",
    "LICENSE": "the licence, with its address",
    "CITATION.cff": "how to cite",
    SUMS: "the SHA-256 of every file",
}


@dataclass(frozen=True)
class ReleaseOptions:
    """What is asked for: see the options of `rootnote server anonymize`."""

    title: str
    authors: tuple[Author, ...]
    licence: str
    k: int
    made: date
    with_clips: bool = False
    rehearsal: bool = False
    closed: bool = True
    with_plan: bool = True
    leave_out: tuple[str, ...] = ()  # ids of questions


def require_questions(study: Study, ids: Sequence[str]) -> None:
    """Refuse ids that are no question's.

    Raises:
        RootnoteError: naming the first that is none, and those that there are.
    """
    asked = [question.id for question in study.config.questions]
    if unknown := [one for one in ids if one not in asked]:
        raise RootnoteError(f"study.toml asks no question '{unknown[0]}'; it asks {', '.join(asked) or 'none'}.")


def write_bundle(session: Session, study: Study, plan: Plan, wanted: ReleaseOptions, folder: Path) -> ReleaseMetadata:
    """Write the data, the design and all that goes with them; `finish` adds what must come last.

    Raises:
        RootnoteError: where there is no answer to publish, or the frozen plan cannot be read.
    """
    rows, people = list(response_rows(session, study, plan)), listener_rows(session, study)
    if not rows:
        raise RootnoteError("there are no answers in the database, so there is nothing to publish.")
    frozen = read_frozen(study.folder)
    rules = plan_of(study.config) if frozen is None else _rules_of(frozen)
    public_turns = not wanted.rehearsal and turns_are_public(session, study.config)
    states = {person["assignment"]: outcome(person["state"]) for person in people}
    kept = publishable(rows, states, rules.rules)
    finished = [person for person in people if states[person["assignment"]] == AssignmentState.FINISHED]
    published, dropped = _anonymise(study, finished, rows, wanted)
    masks = Masks()
    masked = mask(kept, masks, rules.thresholds.fastest_ms)
    tables = {
        "responses.csv": _write_responses(folder, study, plan, masked),
        "listeners.csv": _write_listeners(folder, people, finished, published, states, masks),
    }
    if wanted.with_clips:
        tables["clips.csv"] = _write_clips(folder, study, masks)
    described = dictionary(published, tables)
    _write(folder, "dictionary.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    _write(folder, "dictionary.md", dictionary_markdown(described))
    design, withheld = published_design(study, rules, seed=not public_turns)
    _write(folder, "study.toml", design)
    _copy_bins(folder, study, {row["embedder"] for row in kept})
    public_plan = frozen if wanted.with_plan and not public_turns else None
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
        rehearsal=wanted.rehearsal,
    )
    return ReleaseMetadata(
        title=wanted.title,
        authors=wanted.authors,
        licence=wanted.licence,
        made=wanted.made,
        k=wanted.k,
        responses=len(masked),
        listeners=len({row["listener"] for row in masked}),
        states=counted([*states.values()]),
        months=_months(kept),
        published=tuple(published),
        dropped=dropped,
        withheld_settings=withheld,
        withdrawn_responses=len(rows) - len(kept),
        plan=hash_of_plan,
        turns_public=public_turns,
        closed=wanted.closed,
        rehearsal=wanted.rehearsal,
        checked=False,
    )


def finish(folder: Path, story: ReleaseMetadata) -> str:
    """Write what speaks of the whole: licence, citation, README and SHA256SUMS; the SHA-256 of the last."""
    _write(folder, "LICENSE", licence_text(story.licence, story.authors))
    _write(folder, "CITATION.cff", citation(story))
    there = {name: says for name, says in FILES.items() if name == SUMS or (folder / name).exists()}
    _write(folder, "README.md", readme(replace(story, files=there)))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in files)
    _write(folder, SUMS, sums)
    return hashlib.sha256(sums.encode()).hexdigest()


def _rules_of(frozen: FrozenPlan) -> ExclusionPlan:
    try:
        rules = ExclusionPlan.from_data(frozen.plan["exclusions"])
    except (KeyError, TypeError, ValueError) as error:
        raise RootnoteError(f"{JSON} holds no exclusions that this version knows ({error}).") from error
    if unknown := [rule for rule in rules.rules if rule not in SAYS]:
        raise RootnoteError(f"{JSON} holds the exclusion '{unknown[0]}', which this version does not know.")
    return rules


def _anonymise(
    study: Study, finished: Sequence[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], wanted: ReleaseOptions
) -> tuple[list[GeneralisedTable], dict[str, str]]:
    """What is told of those who finished, and why the rest is not."""
    told: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        told[row["assignment"]].append(row)
    known = [known_of(person, told[person["assignment"]], study.config) for person in finished]
    columns = columns_of(study.config, known)
    unwanted = [f"q_{one}" for one in wanted.leave_out]
    asked: list[QuasiIdentifier] = [
        column for column in columns if column.name not in unwanted and any(person[column.name] for person in known)
    ]
    published = anonymise(asked, known, wanted.k)
    there = {one.column.name for one in published}
    dropped = left_out(study.config) | dict.fromkeys(unwanted, "left out")
    dropped |= {
        column.name: f"no value could be told of {wanted.k} or more who are alike"
        for column in asked
        if column.name not in there
    }
    return published, dropped


def _write_responses(folder: Path, study: Study, plan: Plan, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    columns = tuple(name for name in TYPES if name != "confidence" or any(row[name] is not None for row in rows))
    rows = [{name: row[name] for name in columns} for row in rows]
    write_csv(folder / "responses.csv", columns, rows)
    provenance = Provenance("responses", {"study": study.config.study.name}, {"schedule": plan.schedule_fingerprint})
    schema = pa.schema([(name, TYPES[name]) for name in columns])
    write_table(folder / "responses.parquet", pa.Table.from_pylist(rows, schema=schema), provenance)
    return columns


def _write_listeners(
    folder: Path,
    people: Sequence[Mapping[str, Any]],
    finished: Sequence[Mapping[str, Any]],
    published: Sequence[GeneralisedTable],
    states: Mapping[str, str],
    masks: Masks,
) -> tuple[str, ...]:
    """One row per run, ordered by new name."""
    number = {person["assignment"]: index for index, person in enumerate(finished)}
    rows = []
    for person in people:
        true = person["assignment"]
        row = {
            "assignment": masks.assignments[true],
            "listener": masks.listeners[person["listener"]],
            "state": states[true],
            "prescreen": person["prescreen"],
        }
        told = {one.column.name: guarded(one.values[number[true]]) for one in published} if true in number else {}
        rows.append(row | told)
    columns = ("assignment", "listener", "state", "prescreen", *(one.column.name for one in published))
    write_csv(folder / "listeners.csv", columns, sorted(rows, key=lambda row: row["listener"]))
    return columns


def _write_clips(folder: Path, study: Study, masks: Masks) -> tuple[str, ...]:
    """Which track each clip of the responses is from."""
    table, _ = read_table(study.corpus, "corpus", BUILD)
    columns = ("clip", *(name for name in OF_A_CLIP if name in table.column_names))
    heard = [row for row in table.select(columns).to_pylist() if row["clip"] in masks.clips]
    rows = [row | {"clip": masks.clips[row["clip"]]} for row in heard]
    write_csv(folder / "clips.csv", columns, sorted(rows, key=lambda row: row["clip"]))
    return columns


def _copy_bins(folder: Path, study: Study, embedders: set[str]) -> None:
    """The bins, where the report looks for them; without the settings that they were made by."""
    for embedder in sorted(embedders):
        path = study.bins(embedder)
        if path.is_file():
            content, _ = read_json(path, "bins", BUILD)
            told = {name: content[name] for name in BINS if name in content}
            write_json(folder / "build" / path.name, told, Provenance("bins", {}, {"content": digest(told)}))


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
