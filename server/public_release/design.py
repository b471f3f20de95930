"""The design as it is published: study.toml without what is nobody's business, and without what would tell an order.

Left out are who and where (contact, researcher), folders and buckets, and a marketplace account's ids; also the seed
where the study's lists were handed out in the order that it tells, as they were before that order was secret.
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
# dotted key -> what stands in its place
WITHHELD_KEYS: dict[str, Any] = {
    "study.researcher": "",
    "study.contact": "",
    "corpus.audio": NOT_PUBLISHED,
    "corpus.metadata": "",
    "corpus.duplicates": "",
    "storage.stimuli": "",
}
HEADER = "# The study as it was run{}. It can be read, but not run again from this file alone.\n"


def turns_are_public(session: Session, config: StudyConfig) -> bool:
    """Whether the order in which lists were handed out follows from the study's seed."""
    turns = list(session.scalars(select(Place.turn).order_by(Place.list_number)))
    return len(turns) > 1 and turns == seeded_turns(config, len(turns))


def published_design(study: Study, rules: ExclusionPlan, *, seed: bool) -> tuple[str, tuple[str, ...]]:
    """study.toml as it is published, and the dotted keys of what is withheld in it.

    Args:
        rules: the exclusions that hold, which a frozen plan may say.
        seed: whether the seed may be published.
    """
    data = study.config.model_dump(mode="json", exclude_none=True, exclude={"rehearsal"})
    if rules != plan_of(study.config):
        data["exclusions"] = _as_settings(rules)
    withheld = [
        key for key, stand_in in {**WITHHELD_KEYS, **private_settings()}.items() if _replace(data, key, stand_in)
    ]
    for embedder in study.config.embedding.models:
        key = f"embedding.{embedder}.checkpoint"
        named = data["embedding"].get(embedder, {}).get("checkpoint", "")
        if named and _is_path(study.folder, named) and _replace(data, key, Path(named).name):
            withheld.append(key)
    if not seed:
        del data["study"]["seed"]
        withheld.append("study.seed")
    said = f"; withheld: {', '.join(withheld)}" if withheld else ""
    return HEADER.format(said) + to_toml(data), tuple(withheld)


def _as_settings(rules: ExclusionPlan) -> dict[str, Any]:
    held = rules.thresholds
    return {
        "rules": list(rules.rules),
        "catch_misses_allowed": held.catch_misses_allowed,
        "fastest_seconds": held.fastest_ms / 1000,
        "longest_run": held.longest_run,
    }


def _replace(data: dict[str, Any], dotted: str, stand_in: Any) -> bool:
    """Put something in the place of a value; False where it stood there already."""
    *sections, key = dotted.split(".")
    for section in sections:
        data = data[section]
    changed = bool(data[key] != stand_in)
    data[key] = stand_in
    return changed


def _is_path(folder: Path, named: str) -> bool:
    return named.startswith(("/", "~", ".")) or "\\" in named or (folder / named).exists()


# ------------------------------------------------------------------ TOML


def to_toml(data: Mapping[str, Any], table: str = "") -> str:
    """Nested mappings, lists and plain values as TOML; what is empty and a mapping is left out."""
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
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
