"""The requests of Prolific's API: one model for each, strict, so that an unknown field is refused.

Rewards are whole cents; bonuses are decimals of the account's currency, as the real ones are.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from server.web.loopback import is_loopback

PLACEHOLDERS = ("{{%PROLIFIC_PID%}}", "{{%STUDY_ID%}}", "{{%SESSION_ID%}}")
REFUSED_FIELD, REFUSED_CODE = "is_custom_screening", 140003  # of studies that were created before December 2025
CODE_TYPES = Literal[
    "COMPLETED",
    "FAILED_ATTENTION_CHECK",
    "FOLLOW_UP_STUDY",
    "GIVE_BONUS",
    "INCOMPATIBLE_DEVICE",
    "NO_CONSENT",
    "OTHER",
    "FIXED_SCREENOUT",
    "SCREENED_IN",
    "SCREENED_OUT",
]
GROUP_ACTIONS = ("ADD_TO_PARTICIPANT_GROUP", "REMOVE_FROM_PARTICIPANT_GROUP")
# The fields that go with an action.
ACTION_FIELDS: dict[str, set[str]] = {
    "AUTOMATICALLY_APPROVE": set(),
    "MANUALLY_REVIEW": set(),
    "DYNAMIC_PAYMENT": set(),
    "REQUEST_RETURN": {"return_reason"},
    "FIXED_SCREEN_OUT_PAYMENT": {"fixed_screen_out_reward", "slots"},
    **{name: {"participant_group"} for name in GROUP_ACTIONS},
}
LONGEST_MINUTES = 1440


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _whole(value: Any) -> Any:
    """A number that is whole may be written with a fraction of zero."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]


class Action(_Request):
    """The action when a code is used."""

    action: Literal[
        "AUTOMATICALLY_APPROVE",
        "MANUALLY_REVIEW",
        "DYNAMIC_PAYMENT",
        "REQUEST_RETURN",
        "FIXED_SCREEN_OUT_PAYMENT",
        "ADD_TO_PARTICIPANT_GROUP",
        "REMOVE_FROM_PARTICIPANT_GROUP",
    ]
    return_reason: str | None = Field(default=None, min_length=1)
    fixed_screen_out_reward: WholeNumber | None = Field(default=None, ge=14)
    slots: WholeNumber | None = Field(default=None, ge=1)
    participant_group: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Action:
        given = {name for name in type(self).model_fields if name != "action" and getattr(self, name) is not None}
        if given != (wanted := ACTION_FIELDS[self.action]):
            raise ValueError(f"{self.action} goes with {', '.join(sorted(wanted)) or 'nothing else'}")
        return self


class CompletionCode(_Request):
    """A code that ends a submission; `actor` says who may use it."""

    code: str | None = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    code_type: CODE_TYPES
    actions: list[Action]
    actor: Literal["participant", "researcher"] = "participant"

    @model_validator(mode="after")
    def _no_conflict(self) -> CompletionCode:
        if len([one for one in self.actions if one.action not in GROUP_ACTIONS]) > 1:
            raise ValueError("these actions cannot be used together")
        if self.action == "DYNAMIC_PAYMENT" and self.actor != "researcher":
            raise ValueError("the actor of DYNAMIC_PAYMENT must be researcher")
        return self

    @property
    def action(self) -> str:
        """The action that decides about the submission; the others are about groups."""
        return next((one.action for one in self.actions if one.action not in GROUP_ACTIONS), "MANUALLY_REVIEW")

    @property
    def screen_out(self) -> Action | None:
        return next((one for one in self.actions if one.fixed_screen_out_reward is not None), None)


class Range(_Request):
    lower: float | str | None = None
    upper: float | str | None = None


class Filter(_Request):
    """Who may take part; which filters there are is known to the state."""

    filter_id: str
    selected_values: list[str] | None = None
    selected_range: Range | None = None
    weightings: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Filter:
        if (self.selected_range is None) == (self.selected_values is None):
            raise ValueError("a filter has either selected_values or selected_range")
        return self


class SubmissionsConfig(_Request):
    max_submissions_per_participant: int | None = 1
    max_concurrent_submissions: int | None = -1
    auto_rejection_categories: list[Literal["EXCEPTIONALLY_FAST"]] = []


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("enter a valid https address")
    return value


class UpdateStudy(_Request):
    """PATCH /studies/{id}/: any field of a draft."""

    name: str | None = Field(default=None, min_length=1, max_length=120)
    internal_name: str | None = Field(default=None, max_length=120)
    description: str | None = Field(default=None, min_length=1)
    external_study_url: str | None = None
    prolific_id_option: Literal["question", "url_parameters", "not_required"] | None = None
    completion_codes: list[CompletionCode] | None = Field(default=None, min_length=1)
    total_available_places: WholeNumber | None = Field(default=None, ge=1, le=100_000)
    estimated_completion_time: WholeNumber | None = Field(default=None, ge=1, le=LONGEST_MINUTES)
    maximum_allowed_time: WholeNumber | None = Field(default=None, ge=2, le=100_000)
    reward: WholeNumber | None = Field(default=None, ge=1)
    device_compatibility: list[Literal["desktop", "mobile", "tablet"]] = []
    peripheral_requirements: list[Literal["audio", "camera", "download", "microphone"]] = []
    filters: list[Filter] | None = None
    filter_set_id: str | None = None
    filter_set_version: int | None = None
    naivety_distribution_rate: float | None = None
    project: str | None = None
    submissions_config: SubmissionsConfig | None = None
    study_labels: list[str] = []
    content_warnings: list[str] = []
    content_warning_details: str | None = None
    metadata: str | None = None
    is_external_study_url_secure: bool | None = None

    @field_validator("external_study_url")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        return value if value is None else _address(value)


class CreateStudy(UpdateStudy):
    """POST /studies/"""

    name: str = Field(min_length=1, max_length=120)
    description: str = Field(min_length=1)
    external_study_url: str
    prolific_id_option: Literal["question", "url_parameters", "not_required"]
    completion_codes: list[CompletionCode] = Field(default=[], min_length=1)
    total_available_places: WholeNumber = Field(ge=1, le=100_000)
    estimated_completion_time: WholeNumber = Field(ge=1, le=LONGEST_MINUTES)
    reward: WholeNumber = Field(ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> CreateStudy:
        url = self.external_study_url
        if self.prolific_id_option == "url_parameters" and any(name not in url for name in PLACEHOLDERS):
            raise ValueError("url_parameters needs all of " + ", ".join(PLACEHOLDERS) + " in external_study_url")
        codes = [one.code for one in self.completion_codes]
        if len(set(codes)) != len(codes):
            raise ValueError("completion codes must be unique within a study")
        least = least_maximum(self.estimated_completion_time)
        if self.maximum_allowed_time is not None and self.maximum_allowed_time < least:
            raise ValueError(f"maximum_allowed_time must be at least {least:g}")
        fixed = [one.screen_out for one in self.completion_codes if one.screen_out is not None]
        if len(fixed) > 1 or any((one.fixed_screen_out_reward or 0) >= self.reward for one in fixed):
            raise ValueError("one code at most pays a fixed screen-out reward, and less than the reward")
        return self

    @property
    def uses_dynamic_payment(self) -> bool:
        return any(one.action == "DYNAMIC_PAYMENT" for one in self.completion_codes)

    @property
    def screen_out(self) -> Action | None:
        """The action that pays screen-outs, if there is one."""
        return next((one.screen_out for one in self.completion_codes if one.screen_out), None)


def least_maximum(minutes: float) -> float:
    """The least maximum_allowed_time: two minutes, twice the time, and twice its square root."""
    return round(2 + 2 * minutes + 2 * math.sqrt(minutes), 6)


class TransitionStudy(_Request):
    """POST /studies/{id}/transition/"""

    action: Literal["PUBLISH", "SCHEDULE_PUBLISH", "CANCEL_PUBLISH", "PAUSE", "START", "STOP"]
    publish_at: Annotated[datetime | None, Field(strict=False)] = None


class DynamicAmount(_Request):
    percentage_of_reward: float | None = Field(default=None, ge=8, le=99)
    message_to_participant: str | None = None


class TransitionSubmission(_Request):
    """POST /submissions/{id}/transition/"""

    action: Literal["APPROVE", "COMPLETE", "REJECT"]
    message: str | None = Field(default=None, min_length=100)
    rejection_category: (
        Literal[
            "TOO_QUICKLY",
            "TOO_SLOWLY",
            "FAILED_INSTRUCTIONS",
            "INCOMP_LONGITUDINAL",
            "FAILED_CHECK",
            "LOW_EFFORT",
            "MALINGERING",
            "NO_CODE",
            "BAD_CODE",
            "NO_DATA",
            "UNSUPP_DEVICE",
            "OTHER",
        ]
        | None
    ) = None
    completion_code: str | None = None
    completion_code_data: DynamicAmount | None = None

    @model_validator(mode="after")
    def _complete(self) -> TransitionSubmission:
        rejects = self.action == "REJECT"
        if rejects != (self.message is not None) or rejects != (self.rejection_category is not None):
            raise ValueError("message and rejection_category go with REJECT")
        if (self.action == "COMPLETE") != (self.completion_code is not None):
            raise ValueError("completion_code goes with COMPLETE")
        return self


class RequestReturn(_Request):
    """POST /submissions/{id}/request-return/"""

    request_return_reasons: list[str]


class BulkApprove(_Request):
    """POST /submissions/bulk-approve/"""

    study_id: str | None = None
    participant_ids: list[str] | None = None
    submission_ids: list[str] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> BulkApprove:
        if (self.submission_ids is None) == (self.study_id is None or self.participant_ids is None):
            raise ValueError("give either submission_ids, or study_id and participant_ids")
        return self


class SetUpBonuses(_Request):
    """POST /submissions/bonus-payments/"""

    study_id: str
    csv_bonuses: str = Field(min_length=1)


class CalculateCost(_Request):
    """POST /study-cost-calculator/"""

    reward: WholeNumber = Field(ge=1)
    total_available_places: WholeNumber = Field(ge=1)


class CountEligible(_Request):
    """POST /eligibility-count/"""

    filters: list[Filter]
    workspace_id: str | None = None
    organisation_id: str | None = None


class CreateGroup(_Request):
    """POST /participant-groups/"""

    name: str = Field(min_length=1)
    workspace_id: str | None = None
    organisation_id: str | None = None
    description: str | None = None
    participant_ids: list[str] = []


class ParticipantIds(_Request):
    """POST and DELETE /participant-groups/{id}/participants/"""

    participant_ids: list[str]


class CreateProject(_Request):
    """POST /workspaces/{id}/projects/"""

    title: str = Field(min_length=1)
    description: str | None = None
    type: Literal["PRIVATE"] | None = None


class CreateTestParticipant(_Request):
    """POST /researchers/participants/"""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")


class CreateSecret(_Request):
    """POST /hooks/secrets/"""

    workspace_id: str


class CreateSubscription(_Request):
    """POST /hooks/subscriptions/"""

    event_type: Literal["submission.status.change", "study.status.change"]
    target_url: str
    workspace_id: str
    is_enabled: bool = True

    @field_validator("target_url")
    @classmethod
    def _https(cls, value: str) -> str:
        return _address(value)


class ConfirmSubscription(_Request):
    """POST /hooks/subscriptions/{id}/"""

    secret: str


class UpdateSubscription(_Request):
    """PATCH /hooks/subscriptions/{id}/"""

    event_type: str | None = None
    target_url: str | None = None
    is_enabled: bool | None = None
