"""The published design: study.toml without private settings and without what would reveal the order of listeners.

Withheld are names and contacts, folders and buckets, and ids of a marketplace account. The seed is withheld too where
the trial lists were assigned in the order that it determines, as they were before that order was secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments.places import seeded_turns
from server.db.models import Place
from study.config import Study, StudyConfig
from study.marketplaces import private_settings
from study.preregistration.exclusion_rules import ExclusionPlan, plan_of

NOT_PUBLISHED = "not-published"
# dotted key -> the value that replaces it
WITHHELD_KEYS: dict[str, Any] = {
    "study.researcher": "",
    "study.contact": "",
    "corpus.audio": NOT_PUBLISHED,
    "corpus.metadata": "",
    "corpus.duplicates": "",
    "storage.stimuli": "",
}
HEADER = "# The settings of the study{}. A study cannot be run from this file alone.\n"


def turns_are_public(session: Session, config: StudyConfig) -> bool:
    """Whether the order in which lists were assigned follows from the study's seed."""
    turns = list(session.scalars(select(Place.turn).order_by(Place.list_number)))
    return len(turns) > 1 and turns == seeded_turns(config, len(turns))


def published_design(study: Study, rules: ExclusionPlan, *, seed: bool) -> tuple[str, tuple[str, ...]]:
    """study.toml as it is published, and the dotted keys that are withheld in it.

    Args:
        rules: the exclusion rules that apply, which may come from a frozen plan.
        seed: whether the seed may be published.
    """
    data = study.config.model_dump(mode="json", exclude_none=True, exclude={"rehearsal"})
    if rules != plan_of(study.config):
        data["exclusions"] = _as_settings(rules)
    withheld = [
        key for key, substitute in {**WITHHELD_KEYS, **private_settings()}.items() if _replace(data, key, substitute)
    ]
    for embedder in study.config.embedding.models:
        key = f"embedding.{embedder}.checkpoint"
        named = data["embedding"].get(embedder, {}).get("checkpoint", "")
        if named and _is_path(study.folder, named) and _replace(data, key, Path(named).name):
            withheld.append(key)
    if not seed:
        del data["study"]["seed"]
        withheld.append("study.seed")
    note = f"; withheld: {', '.join(withheld)}" if withheld else ""
    return HEADER.format(note) + to_toml(data), tuple(withheld)


def _as_settings(rules: ExclusionPlan) -> dict[str, Any]:
    thresholds = rules.thresholds
    return {
        "rules": list(rules.rules),
        "catch_misses_allowed": thresholds.catch_misses_allowed,
        "fastest_seconds": thresholds.fastest_ms / 1000,
        "longest_run": thresholds.longest_run,
    }


def _replace(data: dict[str, Any], dotted: str, substitute: Any) -> bool:
    """Replace a value by its substitute; False if it has that value already."""
    *sections, key = dotted.split(".")
    for section in sections:
        data = data[section]
    changed = bool(data[key] != substitute)
    data[key] = substitute
    return changed


def _is_path(folder: Path, named: str) -> bool:
    return named.startswith(("/", "~", ".")) or "\\" in named or (folder / named).exists()


# ------------------------------------------------------------------ TOML


def to_toml(data: Mapping[str, Any], table: str = "") -> str:
    """Nested mappings, lists and plain values as TOML; an empty mapping is left out."""
    plain, parts = [], []
    for key, value in data.items():
        name = _key(key)
        within = f"{table}.{name}" if table else name
        if isinstance(value, Mapping):
            parts.append(f"[{within}]\n{to_toml(value, within)}" if value else "")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            parts += [f"[[{within}]]\n{to_toml(one, within)}" for one in value]
        else:
            plain.append(f"{name} = {_value(value)}\n")
    return "".join(plain) + "".join(f"\n{part}" for part in parts if part)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    # A JSON string is a TOML string, except that TOML requires DEL to be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
