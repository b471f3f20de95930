"""Mechanical Turk's workers, their qualifications, and which HITs these let them see and accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from server.simulation.marketplaces.turk_places import FakeMTurkError, HitType

LOCALE = "00000000000000000071"
PERCENT_APPROVED = "000000000000000000L0"
NUMBER_APPROVED = "00000000000000000040"
ADULT = "00000000000000000060"
MASTERS = ("2F1QJWKUDD8XADTFD2Q0G6UTO95ALH", "2ARFPLSP75KLA8M8DH1HTEQVJT3SY6")
SYSTEM = (LOCALE, PERCENT_APPROVED, NUMBER_APPROVED, ADULT, *MASTERS)
Action = Literal["discover", "preview", "accept"]
GUARDS: dict[str, tuple[Action, ...]] = {
    "Accept": ("accept",),
    "PreviewAndAccept": ("preview", "accept"),
    "DiscoverPreviewAndAccept": ("discover", "preview", "accept"),
}
COMPARISONS: dict[str, Callable[[int, list[int]], bool]] = {
    "LessThan": lambda value, wanted: value < wanted[0],
    "LessThanOrEqualTo": lambda value, wanted: value <= wanted[0],
    "GreaterThan": lambda value, wanted: value > wanted[0],
    "GreaterThanOrEqualTo": lambda value, wanted: value >= wanted[0],
    "EqualTo": lambda value, wanted: value == wanted[0],
    "NotEqualTo": lambda value, wanted: value != wanted[0],
    "In": lambda value, wanted: value in wanted,
    "NotIn": lambda value, wanted: value not in wanted,
}
SEVERAL = ("In", "NotIn")
PRESENCE = ("Exists", "DoesNotExist")


@dataclass
class Qualification:
    """A qualification that a worker holds, or held."""

    type: str
    worker: str
    granted: datetime
    value: int
    revoked: bool = False

    def describe(self) -> dict[str, Any]:
        return {
            "QualificationTypeId": self.type,
            "WorkerId": self.worker,
            "GrantTime": self.granted,
            "IntegerValue": self.value,
            "Status": "Revoked" if self.revoked else "Granted",
        }


@dataclass
class FakeWorker:
    """Someone with an account: where they live, and how much of their work was approved so far (elsewhere, too)."""

    id: str
    country: str = "US"
    subdivision: str = ""
    approved: int = 5000
    percent: int = 99
    adult: bool = True
    masters: bool = False
    qualifications: dict[str, Qualification] = field(default_factory=dict)

    def may(self, action: Action, kind: HitType) -> bool:
        """Whether the requirements of a HIT type let this worker see, preview or accept its HITs."""
        return all(
            self.meets(one) for one in kind.requirements if action in GUARDS[one.get("ActionsGuarded", "Accept")]
        )

    def meets(self, requirement: dict[str, Any]) -> bool:
        kind, comparator = str(requirement["QualificationTypeId"]), str(requirement["Comparator"])
        value = self._value(kind)
        if comparator in PRESENCE:
            return (value is not None) == (comparator == "Exists")
        if value is None:
            return False
        if kind == LOCALE:
            return self._is_at_home(requirement["LocaleValues"]) != (comparator in ("NotEqualTo", "NotIn"))
        return COMPARISONS[comparator](value, requirement["IntegerValues"])

    def _is_at_home(self, locales: list[dict[str, str]]) -> bool:
        return any(
            one["Country"] == self.country and one.get("Subdivision", self.subdivision) == self.subdivision
            for one in locales
        )

    def _value(self, kind: str) -> int | None:
        """The value of a qualification; None if the worker does not have it."""
        held = self.qualifications.get(kind)
        system = {LOCALE: 0, PERCENT_APPROVED: self.percent, NUMBER_APPROVED: self.approved, ADULT: int(self.adult)}
        if kind in MASTERS:
            return 1 if self.masters else None
        if kind in system:
            return system[kind]
        return held.value if held and not held.revoked else None


def check_requirement(requirement: dict[str, Any], known: set[str]) -> None:
    """Refuse a requirement that makes no sense.

    Raises:
        FakeMTurkError: naming the problem.
    """
    kind, comparator = requirement["QualificationTypeId"], requirement["Comparator"]
    if kind not in known and kind not in SYSTEM:
        raise FakeMTurkError("QualificationTypeDoesNotExist", f"QualificationType {kind} does not exist.")
    name = "LocaleValues" if kind == LOCALE else "IntegerValues"
    other = {"LocaleValues", "IntegerValues"} - {name}
    given = requirement.get(name) or []
    least, most = (0, 0) if comparator in PRESENCE else (1, 30 if kind == LOCALE else 15)
    most = most if comparator in (*SEVERAL, *PRESENCE) else 1
    wrong_comparator = kind == LOCALE and comparator not in ("EqualTo", "NotEqualTo", *SEVERAL, *PRESENCE)
    if wrong_comparator or other & requirement.keys() or not least <= len(given) <= most:
        raise FakeMTurkError("ParameterValidationError", f"The qualification requirement for {kind} is not valid.")
