"""Prolific's participants: filters, groups, and who may take part in what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from server.simulation.marketplaces.prolific_requests import CreateGroup, Filter
from server.simulation.marketplaces.prolific_studies import (
    FakeParticipant,
    FakeProlificError,
    FakeStudy,
    FakeSubmission,
    not_found,
    stamp,
)

LISTS = (
    "previous_studies_blocklist",
    "previous_studies_allowlist",
    "custom_blocklist",
    "custom_allowlist",
    "participant_group_blocklist",
    "participant_group_allowlist",
)
SELECTIONS: dict[str, dict[str, str]] = {
    "current-country-of-residence": {"0": "United Kingdom", "1": "United States"},
    "fluent-languages": {"19": "English", "20": "German", "21": "French"},
    "handedness": {"0": "Left-handed", "1": "Right-handed", "2": "Ambidextrous"},
    "hearing-difficulties": {"0": "Yes", "1": "No"},
}
RANGES = {"approval_rate": (0, 100), "approval_numbers": (0, 10_000), "age": (18, 100)}


@dataclass
class FakeGroup:
    """A participant group: who is in it, and since when."""

    id: str
    name: str
    description: str | None
    workspace: str
    members: dict[str, datetime] = field(default_factory=dict)
    deleted: bool = False

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "project_id": None,
            "workspace_id": self.workspace,
            "organisation_id": None,
            "participant_count": len(self.members),
            "is_deleted": self.deleted,
            "feeder_studies": [],
        }

    def memberships(self) -> list[dict[str, Any]]:
        return [{"participant_id": who, "datetime_created": stamp(at)} for who, at in self.members.items()]


class FakePeople:
    """Everyone with an account, and the groups of the workspace."""

    def __init__(self, studies: Mapping[str, FakeStudy]) -> None:
        self.participants: dict[str, FakeParticipant] = {}
        self.groups: dict[str, FakeGroup] = {}
        self._studies = studies

    def participant(self, id_: str) -> FakeParticipant:
        if id_ not in self.participants:
            raise not_found("Participant")
        return self.participants[id_]

    # ------------------------------------------------------------------ groups

    def group(self, id_: str) -> FakeGroup:
        if id_ not in self.groups:
            raise not_found("Participant group")
        return self.groups[id_]

    def make_group(self, id_: str, given: CreateGroup, workspace: str, now: datetime) -> FakeGroup:
        if given.workspace_id is None and given.organisation_id is None:
            raise FakeProlificError("Validation error", {"workspace_id": ["This field is required."]})
        members = dict.fromkeys(given.participant_ids, now)
        found = self.groups[id_] = FakeGroup(id_, given.name, given.description, workspace, members)
        return found

    def apply_groups(self, one: FakeSubmission, code: str, now: datetime) -> None:
        """Move a participant into or out of groups, as the completion code says."""
        known = one.study.code(code)
        for action in known.actions if known else ():
            if action.participant_group is None:
                continue
            members = self.group(action.participant_group).members
            if action.action == "ADD_TO_PARTICIPANT_GROUP":
                members.setdefault(one.participant, now)
            else:
                members.pop(one.participant, None)

    # ------------------------------------------------------------------ filters

    def check_filters(self, filters: Iterable[Filter] | None) -> None:
        """Refuse filters that there are not."""
        for one in filters or ():
            if one.filter_id not in (*LISTS, *SELECTIONS, *RANGES):
                raise FakeProlificError("Validation error", {"filters": [f"There is no filter '{one.filter_id}'."]})
            if (one.selected_range is None) == (one.filter_id in RANGES):
                wrong = f"The filter '{one.filter_id}' has another kind of value."
                raise FakeProlificError("Validation error", {"filters": [wrong]})

    def list_filters(self) -> list[dict[str, Any]]:
        """All filters, as they are listed; lists of ids have no choices."""
        found: list[dict[str, Any]] = [
            {"filter_id": name, "title": name.replace("-", " "), "type": "select", "choices": choices}
            for name, choices in (SELECTIONS | {name: {} for name in LISTS}).items()
        ]
        ranges = ((name, *ends) for name, ends in RANGES.items())
        return found + [
            {"filter_id": name, "title": name.replace("_", " "), "type": "range", "min": least, "max": most}
            for name, least, most in ranges
        ]

    def passes(self, who: FakeParticipant, one: Filter) -> bool:
        """Whether somebody passes a filter."""
        values = one.selected_values or []
        match one.filter_id:
            case "current-country-of-residence":
                return who.country in values
            case "fluent-languages":
                return bool(set(values) & set(who.languages))
            case "custom_blocklist" | "custom_allowlist":
                return (who.id in values) == one.filter_id.endswith("allowlist")
            case "previous_studies_blocklist" | "previous_studies_allowlist":
                before = [study for study in self._studies.values() if study.id in values]
                had = any(sub.participant == who.id for study in before for sub in study.submissions)
                return had == one.filter_id.endswith("allowlist")
            case "participant_group_blocklist" | "participant_group_allowlist":
                member = any(who.id in self.group(id_).members for id_ in values)
                return member == one.filter_id.endswith("allowlist")
        if one.filter_id in SELECTIONS:
            return who.answers.get(one.filter_id) in values
        assert one.selected_range is not None
        value = {"approval_rate": who.approval_rate, "approval_numbers": who.approvals, "age": who.age}[one.filter_id]
        lower, upper = one.selected_range.lower, one.selected_range.upper
        return (lower is None or float(lower) <= value) and (upper is None or value <= float(upper))

    def count_eligible(self, filters: list[Filter]) -> int:
        """How many people pass these filters."""
        people = (who for who in self.participants.values() if not who.test)
        return sum(all(self.passes(who, one) for one in filters) for who in people)

    def offers(self, participant: FakeParticipant) -> Iterator[FakeStudy]:
        """The studies that this participant may take a place in now."""
        for study in self._studies.values():
            own = any(one.participant == participant.id and not one.left for one in study.submissions)
            is_open = study.status == "ACTIVE" and study.taken < study.places and study.test == participant.test
            if is_open and not own and all(self.passes(participant, one) for one in study.given.filters or ()):
                yield study
