"""study.toml: every scientific decision of a study, checked at the door.

A key that is not known is refused and the nearest known one named. Secrets and the database URL are not here;
they live in the environment. Durations are seconds unless the name says otherwise, money is US dollars.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from embeddings.errors import RootnoteError
from study.languages import LANGUAGES
from study.prescreen.config import PrescreenConfig, configurable_steps
from study.prescreen.registry import STEPS
from study.questionnaire import (
    DEFAULT_QUESTIONS,
    FORM_LIMIT,
    QUESTION_TYPES,
    Question,
    missing_translations,
    text_characters,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


PAPER_PROMPTS = 15


class StudyInfo(_Section):
    """Who and what the study is."""

    name: str = Field(min_length=1, max_length=80)
    seed: int = Field(default=1, ge=0)
    researcher: str = ""
    contact: str = ""
    languages: list[str] = Field(default=["en"], min_length=1)  # the first is that of study.toml and consent.md

    @model_validator(mode="after")
    def _known_languages(self) -> StudyInfo:
        unknown = [language for language in self.languages if language not in LANGUAGES]
        if unknown:
            raise ValueError(f"there are no pages in '{unknown[0]}', only in {', '.join(LANGUAGES)}")
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("languages must be distinct")
        return self


class CorpusConfig(_Section):
    """Where the music is and how it is cut into clips."""

    audio: str
    metadata: str = ""  # a CSV with a `path` column; empty: tags, or metadata.csv in the audio folder
    duplicates: str = ""  # a file of `rootnote embeddings duplicates`; all but the first of each group are left out
    clip_seconds: float = Field(default=3.0, ge=0.1, le=60)
    hop_seconds: float = Field(default=3.0, gt=0.1, le=600)
    silence_dbfs: float = Field(default=-60.0, ge=-120, le=0)


class ModelConfig(_Section):
    """Where a model's weights are: a path, from the study's folder, or for clap a Hugging Face id."""

    checkpoint: str = Field(min_length=1)


class ClmrConfig(ModelConfig):
    """CLMR hears 2.7 s: the first of a clip, or the mean of the first and the last."""

    windows: Literal["first", "mean"] = "first"


class EmbeddingConfig(_Section):
    """Which similarity measures are put to the test."""

    embedders: list[str] = Field(default=["logmel"], min_length=1)
    dtype: Literal["float32", "float16"] = "float32"
    clap: ModelConfig | None = None
    clmr: ClmrConfig | None = None
    musicnn: ModelConfig | None = None

    @model_validator(mode="after")
    def _distinct(self) -> EmbeddingConfig:
        if len(set(self.embedders)) != len(self.embedders):
            raise ValueError("embedders must be distinct")
        return self


class BinsConfig(_Section):
    """How similarity is cut into bins (Section 4.1 of the paper)."""

    prompts: int = Field(default=1000, ge=1)
    neighbours: Literal["auto"] | Annotated[int, Field(ge=10)] = "auto"
    random_clips: int = Field(default=1000, ge=2)
    half_width: float = Field(default=0.02, gt=0, le=0.5)


class DesignConfig(_Section):
    """How many listeners hear which trials. `None` takes the default of the kind."""

    kind: Literal["paper", "robust"] = "paper"
    prompts: int | None = Field(default=None, ge=1)
    listeners: int | None = Field(default=None, ge=1)
    trials: int | None = Field(default=None, ge=1)
    catch_trials: int = Field(default=0, ge=0, le=10)
    repeat_trials: int = Field(default=0, ge=0, le=10)
    same_track: bool = False

    @property
    def scored_trials(self) -> int:
        return self.trials or (10 if self.kind == "paper" else 6)

    @property
    def listener_count(self) -> int:
        return self.listeners or (90 if self.kind == "paper" else 150)


class StimuliConfig(_Section):
    """How a clip is made ready to be heard."""

    loudness_lufs: float = Field(default=-23.0, ge=-40, le=-10)
    true_peak_dbtp: float = Field(default=-1.0, ge=-20, le=0)
    fade_ms: float = Field(default=10.0, ge=0, le=500)
    sample_rate: Literal[44100, 48000] = 44100


class StorageConfig(_Section):
    """Where listeners get the stimuli from: build/stimuli (empty), or a bucket of S3."""

    stimuli: str = ""
    delivery: Literal["redirect", "proxy"] = "redirect"
    seconds: int = Field(default=120, ge=10, le=3600)  # a signed address works for so long

    @model_validator(mode="after")
    def _bucket(self) -> StorageConfig:
        if self.stimuli and not re.fullmatch(
            r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?", self.stimuli
        ):
            raise ValueError(f"stimuli is '{self.stimuli}', not written like s3://bucket/folder")
        return self


EXCLUSION_RULES = (
    "failed_prescreen", "incomplete", "duplicate_person", "catch_missed", "too_fast", "not_heard", "straight_lining",
    "one_side",
)  # fmt: skip


class ExclusionsConfig(_Section):
    """Which listeners and responses do not count; what each rule does is in analysis.responses.exclusions."""

    rules: list[str] = ["failed_prescreen", "incomplete"]
    catch_misses_allowed: int = Field(default=0, ge=0)
    fastest_seconds: Literal["auto"] | Annotated[float, Field(ge=0, le=3600)] = "auto"
    longest_run: int = Field(default=8, ge=3, le=1000)

    @field_validator("rules")
    @classmethod
    def _known(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            if rule not in EXCLUSION_RULES:
                near = difflib.get_close_matches(rule, EXCLUSION_RULES, n=1, cutoff=0.5)
                meant = f"did you mean '{near[0]}'? " if near else ""
                raise ValueError(f"unknown rule '{rule[:40]}'; {meant}The rules are {', '.join(EXCLUSION_RULES)}")
        if len(set(rules)) != len(rules):
            raise ValueError("a rule is named twice")
        return rules


class PlayerConfig(_Section):
    """How a trial's clips are played, and whether listeners say how sure they are (1 to 5)."""

    switching: Literal["restart", "position"] = "restart"
    confidence: bool = False


class PayConfig(_Section):
    """What listeners are paid, by outcome; `budget_usd` is the most that a launch may cost, fees included.

    `without_sound_usd` is for those who consented and cannot use sound at all; None: the reward.
    """

    reward_usd: float = Field(default=1.50, ge=0, le=1000)
    minutes: float = Field(default=4.0, gt=0)
    screened_out_usd: float = Field(default=1.50, ge=0, le=1000)
    without_sound_usd: float | None = Field(default=None, ge=0, le=1000)
    withdrawn_usd: float = Field(default=0.0, ge=0, le=1000)
    expired_usd: float = Field(default=0.0, ge=0, le=1000)
    floor_usd_per_hour: float = Field(default=15.0, ge=0)
    budget_usd: float | None = Field(default=None, gt=0, le=1_000_000)

    @field_validator(
        "reward_usd", "screened_out_usd", "without_sound_usd", "withdrawn_usd", "expired_usd", "budget_usd"
    )
    @classmethod
    def _whole_cents(cls, value: float | None) -> float | None:
        if value is not None and Decimal(str(value)) * 100 % 1:
            raise ValueError(f"{value:g} is not a whole number of cents")
        return value

    @property
    def unheard_usd(self) -> float:
        """What somebody is paid who cannot use sound."""
        return self.reward_usd if self.without_sound_usd is None else self.without_sound_usd


def cents(usd: float) -> int:
    """An amount of study.toml in cents: from here on money is whole cents, never a float."""
    return int(Decimal(str(usd)) * 100)


class PrivacyConfig(_Section):
    """How long it is kept who a listener is: days after the last payment (or the closing, where that came later)."""

    identity_days: float = Field(default=30, ge=1, le=3650)


class MTurkConfig(_Section):
    """What workers of Mechanical Turk see, and who may take part: by default as in the paper."""

    title: str = Field(
        default="Listen to short clips of music: which two sound more alike?", min_length=1, max_length=128
    )
    description: str = Field(
        default="Compare short clips of music and answer a few questions. Please use headphones.",
        min_length=1,
        max_length=2000,
    )
    keywords: str = Field(default="music, audio, listening, sound, survey, research", max_length=1000)
    countries: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = Field(default=["US"], max_length=30)
    approved_percent: int = Field(default=98, ge=0, le=100)
    approved_hits: int = Field(default=1000, ge=0)
    masters: bool = False
    assignment_minutes: int = Field(default=60, ge=1, le=30 * 24 * 60)
    lifetime_days: float = Field(default=7, gt=0.01, le=365)
    auto_approval_days: float = Field(default=3, gt=0, le=30)


class ProlificConfig(_Section):
    """What people on Prolific see, who may take part, and which account pays.

    `countries` and `languages` are Prolific's choice ids ("1" is the United States, "0" the United Kingdom; "19" is
    English). `fee` is the account's: a third of what is paid (academic), or 42.8 % (corporate); `tax_percent` is on it.
    """

    title: str = Field(
        default="Listen to short clips of music: which two sound more alike?", min_length=1, max_length=120
    )
    description: str = Field(
        default="Compare short clips of music and answer a few questions. Please use headphones.", min_length=1
    )
    countries: list[str] = ["1"]
    languages: list[str] = ["19"]
    approved_percent: int = Field(default=98, ge=0, le=100)
    approved: int = Field(default=0, ge=0, le=10_000)
    exclude_studies: list[str] = []
    devices: list[Literal["desktop", "mobile", "tablet"]] = ["desktop"]
    max_minutes: int = Field(default=60, ge=2, le=1440)
    workspace: str = ""
    project: str = ""
    currency: Literal["USD", "GBP"] = "USD"
    fee: Literal["academic", "corporate"] = "academic"
    tax_percent: float = Field(default=0, ge=0, le=50)


class RecruiterConfig(_Section):
    """Where listeners come from."""

    kind: Literal["link", "mturk", "prolific"] = "link"
    reservation_minutes: float = Field(default=60, gt=0)
    mturk: MTurkConfig = MTurkConfig()
    prolific: ProlificConfig = ProlificConfig()


class RehearsalConfig(_Section):
    """Simulated listeners: P(agree) = 0.5 + (0.5 - lapse) * (1 - exp(-(difference / scale) ** shape))."""

    scale: float = Field(default=0.12, gt=0)
    shape: float = Field(default=1.0, gt=0)
    lapse: float = Field(default=0.02, ge=0, le=0.5)
    fail_prescreen: float = Field(default=0.05, ge=0, le=1)
    loudspeakers: float = Field(default=0.0, ge=0, le=1)
    abandon: float = Field(default=0.04, ge=0, le=1)
    reload: float = Field(default=0.05, ge=0, le=1)
    double_submit: float = Field(default=0.05, ge=0, le=1)


class StudyConfig(_Section):
    """The whole of study.toml."""

    study: StudyInfo
    corpus: CorpusConfig
    embedding: EmbeddingConfig = EmbeddingConfig()
    bins: BinsConfig = BinsConfig()
    design: DesignConfig = DesignConfig()
    stimuli: StimuliConfig = StimuliConfig()
    storage: StorageConfig = StorageConfig()
    prescreen: PrescreenConfig = Field(default_factory=PrescreenConfig)  # loads the steps, so not at import
    exclusions: ExclusionsConfig = ExclusionsConfig()
    player: PlayerConfig = PlayerConfig()
    questions: list[Question] = DEFAULT_QUESTIONS
    pay: PayConfig = PayConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    recruiter: RecruiterConfig = RecruiterConfig()
    rehearsal: RehearsalConfig = RehearsalConfig()

    @model_validator(mode="after")
    def _unique_questions(self) -> StudyConfig:
        ids = [question.id for question in self.questions]
        if len(set(ids)) != len(ids):
            raise ValueError("question ids must be distinct")
        length = text_characters(self.questions)
        if length > FORM_LIMIT:
            raise ValueError(
                f"the text questions take up to {length:,} characters, and {FORM_LIMIT:,} fit into one form; "
                "give them a lower limit"
            )
        for question, language in missing_translations(self.questions, self.study.languages):
            raise ValueError(f"question '{question}' needs [questions.translations.{language}], its words there")
        return self


@dataclass(frozen=True)
class Study:
    """A study folder: its configuration and where everything lies."""

    folder: Path
    config: StudyConfig

    @property
    def build(self) -> Path:
        return self.folder / "build"

    @property
    def audio(self) -> Path:
        return (self.folder / self.config.corpus.audio).resolve()

    @property
    def corpus(self) -> Path:
        return self.build / "corpus.parquet"

    @property
    def triplets(self) -> Path:
        return self.build / "triplets.parquet"

    @property
    def schedule(self) -> Path:
        return self.build / "schedule.parquet"

    @property
    def stimuli(self) -> Path:
        return self.build / "stimuli"

    @property
    def stimuli_index(self) -> Path:
        return self.build / "stimuli.json"

    @property
    def published(self) -> Path:
        return self.build / "published.json"

    def text(self, name: str, language: str) -> Path:
        """Where a text is in a language: consent.md in the study's first, consent.de.md in another."""
        return self.folder / text_name(name, language, self.config.study.languages[0])

    def vectors(self, embedder: str) -> Path:
        return self.build / f"{embedder}.npy"

    def bins(self, embedder: str) -> Path:
        return self.build / f"{embedder}.bins.json"


def text_name(name: str, language: str, first: str) -> str:
    """The file of a text in a language, where the study's first is `first`."""
    return f"{name}.md" if language == first else f"{name}.{language}.md"


def load_study(folder: Path) -> Study:
    """Read `folder`/study.toml.

    Raises:
        RootnoteError: where the folder or file is missing, is not TOML, or has a key or value that is wrong.
    """
    path = folder / "study.toml"
    if not path.is_file():
        raise RootnoteError(f"{path} does not exist; make a study with `rootnote study init DIR --audio AUDIO_DIR`.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RootnoteError(f"{path} is not valid TOML: {error}.") from error
    try:
        return Study(folder.resolve(), StudyConfig.model_validate(data))
    except ValidationError as error:
        raise RootnoteError(f"{path}: {_explain(error, data)}") from error


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem of a validation error as one sentence, with the key nearest to a misspelt one."""
    # A misspelt key also leaves the right one missing: name the misspelling first.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    location = problem["loc"]
    where = ".".join(str(part) for part in location if part not in ("int", "literal['auto']"))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _known_keys(location[:-1], data), n=1, cutoff=0.5)
        return f"unknown key '{where}'" + (f"; did you mean '{near[0]}'?" if near else ".")
    if problem["type"] == "missing":
        return f"the key '{where}' is missing."
    message = problem["msg"].removeprefix("Value error, ")
    return f"'{where}': {message[0].lower()}{message[1:]}." if where else f"{message}."


def _known_keys(location: tuple[Any, ...], data: Mapping[str, Any]) -> list[str]:
    if location[:1] == ("questions",):
        return list(QUESTION_TYPES[data["questions"][location[1]]["type"]].model_fields)
    if location[:1] == ("prescreen",):
        step = STEPS[location[1]].settings if len(location) > 1 else None
        return list(step.model_fields) if step else ["steps", *configurable_steps()]
    model: type[BaseModel] = StudyConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        # `Section | None`: the section
        annotation = next((one for one in get_args(annotation) if one is not type(None)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
