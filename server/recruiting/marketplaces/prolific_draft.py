"""A study as it is created on Prolific: its text, completion codes, filters, and what to leave out where it is refused.

Two things belong to select workspaces only: payment of screen-outs by Prolific itself, and signed addresses. Prolific
does not say which workspace has them, so a study is tried with both, then with one, then with none.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from server.db.enums import RunOutcome
from server.recruiting.marketplaces.base import PostingOrder, ScreenOutPlan
from server.recruiting.marketplaces.prolific_config import LEAST_SCREEN_OUT, choices, read_filters
from study.config import cents

if TYPE_CHECKING:
    from study.config import StudyConfig

QUERY = "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
FIXED = "FIXED_SCREEN_OUT_PAYMENT"
REVIEW: dict[str, Any] = {"action": "MANUALLY_REVIEW"}


@dataclass(frozen=True)
class StudyVariant:
    """What a study asks of the workspace beyond what every workspace has."""

    pays_screen_outs: bool = False
    is_secure: bool = False


def estimated_minutes(minutes: float) -> int:
    """How long the study takes, as Prolific shows it."""
    return max(1, round(minutes))


def variants(pays_screen_outs: bool, is_secure: bool) -> Iterator[StudyVariant]:
    """What to try, the most wanted first; the last is one that every workspace takes."""
    offers = itertools.product([True, False] if pays_screen_outs else [False], [True, False] if is_secure else [False])
    return (StudyVariant(*one) for one in offers)


class ProlificDraft:
    """Writes studies for Prolific's API, from study.toml."""

    def __init__(self, config: StudyConfig) -> None:
        self._config, self.prolific = config, config.recruiter.settings
        self.reward = cents(config.pay.reward)

    # ------------------------------------------------------------------ screen-outs

    @property
    def screen_out_cents(self) -> int:
        """What Prolific pays by itself to everyone who is screened out; 0 if it cannot pay them all the same."""
        pay, prolific = self._config.pay, self.prolific
        amount, unheard = cents(pay.screened_out), cents(pay.unheard)
        fits = LEAST_SCREEN_OUT[prolific.currency] <= amount < self.reward
        return amount if prolific.screen_out == "auto" and fits and unheard in (amount, self.reward) else 0

    def plan(self, allowed: bool | None) -> ScreenOutPlan:
        """How screen-outs are paid; `allowed`: whether the workspace pays them by itself (None: not asked yet)."""
        amount, wanted = self.screen_out_cents, self.prolific.screen_out
        unit = f"{amount / 100:.2f} {self.prolific.currency}"
        if amount and allowed:
            said = f"Prolific pays {unit} by itself to everyone who is screened out."
            return ScreenOutPlan("by_itself", amount, said)
        promised = cents(self._config.pay.screened_out)
        approves = wanted == "approve" or (wanted == "auto" and promised == self.reward)
        if approves:
            said = f"everyone who is screened out is approved and paid the reward, {self.reward / 100:.2f}."
            plan = ScreenOutPlan("approve", 0, said)
        else:
            said = f"everyone who is screened out is asked to return the place and is then paid {promised / 100:.2f}."
            plan = ScreenOutPlan("return_and_bonus", 0, said if promised else said.partition(" and is")[0] + ".")
        if amount and allowed is None:
            said = f"where the workspace may, Prolific pays {unit} by itself; elsewhere {plan.sentence}"
            return ScreenOutPlan(plan.way, amount, said[0].upper() + said[1:])
        said = f"this workspace cannot pay screen-outs by itself: {plan.sentence}" if amount else plan.sentence
        return ScreenOutPlan(plan.way, 0, said[0].upper() + said[1:])

    # ------------------------------------------------------------------ the study

    def code(self, outcome: RunOutcome, key: str) -> str:
        """The launch's completion code for an outcome.

        Launches of earlier versions have no key, and anybody who has study.toml can compute their codes.
        """
        if key:
            return f"C{hmac.digest(key.encode(), f'rootnote:code:{outcome}'.encode(), 'sha256').hex()[:11].upper()}"
        info = self._config.study
        digest = hashlib.sha256(f"rootnote:{info.name}:{info.seed}:{outcome}".encode()).hexdigest()
        return f"C{digest[:7].upper()}"

    def group_name(self) -> str:
        """The participant group of everyone who took part, in any launch of this study."""
        return f"rootnote: {self._config.study.name}"

    def shown(self, order: PostingOrder) -> dict[str, Any]:
        """The text and limits that a study shows to people on Prolific."""
        config, minutes = self.prolific, estimated_minutes(order.minutes)
        return {
            "name": config.title,
            "description": config.description,
            "estimated_completion_time": minutes,
            "maximum_allowed_time": config.longest(minutes),
            "reward": order.reward,
            "device_compatibility": list(config.devices),
        }

    def longest(self, minutes: float) -> int:
        """The longest that a participant may take, in minutes."""
        return int(self.prolific.longest(estimated_minutes(minutes)))

    def body(self, order: PostingOrder, name: str, variant: StudyVariant, **more: Any) -> dict[str, Any]:
        """The whole request; `more`: `project`, `blocked` (studies) and `group`, the participant group's id."""
        group = str(more.get("group", ""))
        filters = read_filters(self.prolific, more.get("blocked"))
        if group:
            filters.append({"filter_id": "participant_group_blocklist", "selected_values": [group]})
        if order.only_for:
            filters = [{"filter_id": "custom_allowlist", "selected_values": [order.only_for]}]
        body = {
            **self.shown(order),
            "internal_name": name,
            "external_study_url": f"{order.url}{'&' if urlsplit(order.url).query else '?'}{QUERY}",
            "prolific_id_option": "url_parameters",
            "completion_codes": self.codes(order.screen_outs if variant.pays_screen_outs else 0, group, order.code_key),
            "total_available_places": 1 if order.only_for else order.total,
            "peripheral_requirements": ["audio"],
            "filters": filters,
            "project": more["project"],
        }
        return body | ({"is_external_study_url_secure": True} if variant.is_secure else {})

    def codes(self, slots: int, group: str, key: str) -> list[dict[str, Any]]:
        """The completion codes: one for those who finished, one for those who are screened out.

        Codes are the same for everybody and leak, so none approves by itself.
        """
        join = [{"action": "ADD_TO_PARTICIPANT_GROUP", "participant_group": group}] if group else []
        if slots:
            paid = {"action": FIXED, "fixed_screen_out_reward": self.screen_out_cents, "slots": slots}
            screened = self._code("screened_out", key, "FIXED_SCREENOUT", [paid, *join])
        elif self.plan(None if self.screen_out_cents == 0 else False).way == "return_and_bonus":
            asked = {"action": "REQUEST_RETURN", "return_reason": self.return_reason}
            screened = self._code("screened_out", key, "SCREENED_OUT", [asked, *join])
        else:
            screened = self._code("screened_out", key, "SCREENED_OUT", [REVIEW, *join])
        return [self._code("finished", key, "COMPLETED", [REVIEW, *join]), screened]

    @property
    def return_reason(self) -> str:
        """What a listener reads who is asked to return a place."""
        promised = cents(self._config.pay.screened_out)
        paid = f" We then pay you {promised / 100:.2f} {self.prolific.currency} as a bonus." if promised else ""
        return f"The sound check was not passed, so the study ended here. Please return your submission.{paid}"

    def _code(self, outcome: RunOutcome, key: str, kind: str, actions: list[dict[str, Any]]) -> dict[str, Any]:
        return {"code": self.code(outcome, key), "code_type": kind, "actor": "participant", "actions": actions}

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        """The advertisement, as workers see it."""
        shown, config = self.shown(order), self.prolific
        filters = [f"{name.replace('-', ' ')}: {', '.join(ids)}" for name, ids in choices(config).items()]
        filters += [f"{one.id.replace('-', ' ')}: {_ends(one.as_prolific())}" for one in config.filters]
        least = [f"at least {config.approved_percent} % of submissions approved"] if config.approved_percent else []
        least += [f"at least {config.approved:,} submissions approved"] if config.approved else []
        return (
            ("Title", shown["name"]),
            ("Description", shown["description"]),
            ("Reward", f"{shown['reward'] / 100:.2f} {config.currency}"),
            ("Estimated time", f"{shown['estimated_completion_time']} minutes"),
            ("Longest time", f"{shown['maximum_allowed_time']} minutes"),
            ("Devices", f"{', '.join(shown['device_compatibility'])}; with sound"),
            ("Open to (Prolific's ids)", "; ".join([*filters, *least]) or "everyone"),
        )


def _ends(one: Mapping[str, Any]) -> str:
    if "selected_values" in one:
        return ", ".join(one["selected_values"])
    ends = one["selected_range"]
    return f"{ends.get('lower', 'any')} to {ends.get('upper', 'any')}"


def slots_of(study: Mapping[str, Any]) -> int:
    """How many screen-outs a study on Prolific may pay by itself, those so far included; 0 if it pays none."""
    for code in study.get("completion_codes") or []:
        for action in code.get("actions") or []:
            if action.get("action") == FIXED:
                return int(action.get("slots") or 0)
    return 0


def with_slots(study: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    """The completion codes of a study, with another number of screen-outs."""
    codes = [dict(code) for code in study.get("completion_codes") or []]
    for code in codes:
        code["actions"] = [one | {"slots": number} if one.get("action") == FIXED else one for one in code["actions"]]
    return codes
