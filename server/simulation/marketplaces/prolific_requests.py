"""The requests of Prolific's API: one model for each, strict, so that an unknown field is refused.

Rewards are whole cents; bonuses and screen-out payments are decimals of the account's currency, as the real ones are.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from server.web.loopback import is_loopback

PLACEHOLDERS = ("{{%PROLIFIC_PID%}}", "{{%STUDY_ID%}}", "{{%SESSION_ID%}}")
CODE_TYPES = Literal[
    "COMPLETED",
    "FAILED_ATTENTION_CHECK",
    "FOLLOW_UP_STUDY",
    "GIVE_BONUS",
    "INCOMPATIBLE_DEVICE",
    "NO_CONSENT",
    "OTHER",
    "SCREENED_OUT",
    "FIXED_SCREENOUT",
]
SELECTIONS = (
    "current-country-of-residence",
    "fluent-languages",
    "previous_studies_blocklist",
    "custom_blocklist",
    "custom_allowlist",
)
RANGES = ("approval_rate", "approval_numbers", "age")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Action(_Request):
    """The action when a code is used."""

    action: Literal["AUTOMATICALLY_APPROVE", "MANUALLY_REVIEW", "REQUEST_RETURN", "FIXED_SCREEN_OUT_PAYMENT"]
    return_reason: str | None = Field(default=None, max_length=200)
    fixed_screen_out_reward: int | None = Field(default=None, ge=14)
    slots: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Action:
        fixed = self.action == "FIXED_SCREEN_OUT_PAYMENT"
        if fixed != (self.fixed_screen_out_reward is not None) or fixed != (self.slots is not None):
            raise ValueError("fixed_screen_out_reward and slots go with FIXED_SCREEN_OUT_PAYMENT")
        if (self.action == "REQUEST_RETURN") != (self.return_reason is not None):
            raise ValueError("return_reason goes with REQUEST_RETURN")
        return self


class CompletionCode(_Request):
    """A code that ends a submission; `actor` says who may use it."""

    code: str = Field(pattern=r"^[A-Za-z0-9_-]{1,20}$")
    code_type: CODE_TYPES
    actor: Literal["participant", "researcher"] = "participant"
    actions: list[Action] = Field(min_length=1, max_length=4)

    @model_validator(mode="after")
    def _no_conflict(self) -> CompletionCode:
        if len(self.actions) > 1:
            raise ValueError("these actions cannot be used together")
        return self


class Range(_Request):
    lower: int
    upper: int


class Filter(_Request):
    """Who may take part."""

    filter_id: str
    selected_values: list[str] | None = None
    selected_range: Range | None = None

    @model_validator(mode="after")
    def _known(self) -> Filter:
        if self.filter_id not in SELECTIONS + RANGES:
            raise ValueError(f"there is no filter '{self.filter_id}'")
        if (self.selected_range is None) == (self.filter_id in RANGES) or (self.selected_values is None) == (
            self.filter_id in SELECTIONS
        ):
            raise ValueError(f"the filter '{self.filter_id}' has another kind of value")
        return self


class SubmissionsConfig(_Request):
    max_submissions_per_participant: Literal[1] = 1


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("enter a valid https address")
    return value


class CreateStudy(_Request):
    """POST /studies/"""

    name: str = Field(min_length=1, max_length=120)
    internal_name: str = Field(default="", max_length=120)
    description: str = Field(min_length=1)
    external_study_url: str
    prolific_id_option: Literal["question", "url_parameters", "not_required"]
    completion_codes: list[CompletionCode] = Field(min_length=1)
    total_available_places: int = Field(ge=1, le=100_000)
    estimated_completion_time: int = Field(ge=1, le=1440)
    maximum_allowed_time: int | None = Field(default=None, ge=2, le=1440)
    reward: int = Field(ge=1)
    device_compatibility: list[Literal["desktop", "mobile", "tablet"]] = []
    peripheral_requirements: list[Literal["audio", "camera", "download", "microphone"]] = []
    filters: list[Filter] = []
    is_custom_screening: bool = False
    project: str | None = None
    study_labels: list[str] = []
    submissions_config: SubmissionsConfig = SubmissionsConfig()

    @field_validator("external_study_url")
    @classmethod
    def _https(cls, value: str) -> str:
        return _address(value)

    @model_validator(mode="after")
    def _consistent(self) -> CreateStudy:
        if self.prolific_id_option == "url_parameters" and any(
            name not in self.external_study_url for name in PLACEHOLDERS
        ):
            raise ValueError("url_parameters needs all of " + ", ".join(PLACEHOLDERS) + " in external_study_url")
        codes = [one.code for one in self.completion_codes]
        if len(set(codes)) != len(codes):
            raise ValueError("completion codes must be unique within a study")
        if self.maximum_allowed_time is not None and self.maximum_allowed_time < self.estimated_completion_time:
            raise ValueError("maximum_allowed_time must not be below estimated_completion_time")
        fixed = [
            action.fixed_screen_out_reward
            for one in self.completion_codes
            for action in one.actions
            if action.fixed_screen_out_reward is not None
        ]
        if len(fixed) > 1 or any(reward >= self.reward for reward in fixed):
            raise ValueError("one code at most pays a fixed screen-out reward, and less than the reward")
        return self


class UpdateStudy(_Request):
    """PATCH /studies/{id}/"""

    total_available_places: int | None = Field(default=None, ge=1, le=100_000)
    internal_name: str | None = Field(default=None, max_length=120)
    name: str | None = Field(default=None, min_length=1, max_length=120)
    description: str | None = Field(default=None, min_length=1)
    external_study_url: str | None = None
    filters: list[Filter] | None = None

    @field_validator("external_study_url")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        return value if value is None else _address(value)


class TransitionStudy(_Request):
    """POST /studies/{id}/transition/"""

    action: Literal["PUBLISH", "PAUSE", "START", "STOP"]


class TransitionSubmission(_Request):
    """POST /submissions/{id}/transition/"""

    action: Literal["APPROVE", "REJECT", "COMPLETE"]
    message: str | None = Field(default=None, min_length=100)
    rejection_category: (
        Literal["TOO_QUICKLY", "TOO_SLOWLY", "FAILED_INSTRUCTIONS", "FAILED_CHECK", "LOW_EFFORT", "NO_CODE", "OTHER"]
        | None
    ) = None
    completion_code: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> TransitionSubmission:
        rejects = self.action == "REJECT"
        if rejects != (self.message is not None) or rejects != (self.rejection_category is not None):
            raise ValueError("message and rejection_category go with REJECT")
        if (self.action == "COMPLETE") != (self.completion_code is not None):
            raise ValueError("completion_code goes with COMPLETE")
        return self


class BulkApprove(_Request):
    """POST /submissions/bulk-approve/"""

    study_id: str | None = None
    submission_ids: list[str] = Field(min_length=1)


class SetUpBonuses(_Request):
    """POST /submissions/bonus-payments/"""

    study_id: str
    csv_bonuses: str = Field(min_length=1)


def _money(value: Any) -> Any:
    return Decimal(str(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class ScreenOut(_Request):
    """POST /studies/{id}/screen-out-submissions/"""

    submission_ids: list[str] = Field(min_length=1)
    bonus_per_submission: Annotated[Decimal, BeforeValidator(_money), Field(ge=Decimal("0.14"), decimal_places=2)]
    increase_places: bool = False


class CalculateCost(_Request):
    """POST /study-cost-calculator/"""

    reward: int = Field(ge=1)
    total_available_places: int = Field(ge=1)
