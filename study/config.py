"""study.toml: every scientific decision of a study, validated when it is read.

Unknown keys are refused, with the nearest known key. Secrets and the database URL are in the environment, not here.
Durations are in seconds unless the name says otherwise; money is in the study's currency.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from embeddings.errors import ConfigError
from study.config_sections import (
    AnalysisConfig,
    BinsConfig,
    ConfigSection,
    CorpusConfig,
    DesignConfig,
    EmbeddingConfig,
    ExclusionsConfig,
    ModelConfig,
    PayConfig,
    PlayerConfig,
    PrivacyConfig,
    RehearsalConfig,
    StimuliConfig,
    StorageConfig,
    StudyInfo,
)
from study.marketplaces import RecruiterConfig, SectionError, known_keys, share_currency
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


def cents(amount: float) -> int:
    """An amount of study.toml in cents (or pence): everywhere else money is whole cents, never a float."""
    return int(Decimal(str(amount)) * 100)


class StudyConfig(ConfigSection):
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
    analysis: AnalysisConfig = AnalysisConfig()
    player: PlayerConfig = PlayerConfig()
    questions: list[Question] = DEFAULT_QUESTIONS
    pay: PayConfig = PayConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    recruiter: RecruiterConfig = Field(default_factory=RecruiterConfig)
    rehearsal: RehearsalConfig = RehearsalConfig()

    @property
    def compared(self) -> list[str]:
        """The measures as triplets and answers name them: the embedders, or each of two against the other."""
        embedders = self.embedding.embedders
        if self.design.comparison != "disagreement":
            return list(embedders)
        one, other = embedders
        return [f"{one} against {other}", f"{other} against {one}"]

    @model_validator(mode="after")
    def _two_embedders_disagree(self) -> StudyConfig:
        if self.design.comparison == "disagreement" and len(self.embedding.embedders) != 2:
            raise ValueError(
                f'design.comparison = "disagreement" compares two embedders, but embedding.embedders has '
                f"{len(self.embedding.embedders)}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_currency(cls, data: Any) -> Any:
        return share_currency(data) if isinstance(data, Mapping) else data

    @property
    def currency(self) -> str:
        """The currency of all amounts: pay.currency, else that of the marketplace's section, else USD."""
        return self.pay.currency or self.recruiter.currency

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
            raise ValueError(f"question '{question}' has no translation; add [questions.translations.{language}]")
        return self


@dataclass(frozen=True)
class Study:
    """A study folder: its configuration and the paths of its files."""

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
    def key(self) -> Path:
        """The secret key, in the folder itself: deleting build/ must not delete it."""
        return self.folder / "secret.key"

    @property
    def published(self) -> Path:
        return self.build / "published.json"

    @property
    def refusal(self) -> Path:
        """The reason why the last build was refused, if it was."""
        return self.build / "refusal.json"

    def text(self, name: str, language: str) -> Path:
        """The path of a text in a language: consent.md in the study's first, consent.de.md in another."""
        return self.folder / text_name(name, language, self.config.study.languages[0])

    def vectors(self, embedder: str) -> Path:
        return self.build / f"{embedder}.npy"

    def prompts(self, embedder: str) -> Path:
        return self.build / f"{embedder}.prompts.parquet"

    def bins(self, embedder: str) -> Path:
        return self.build / f"{embedder}.bins.json"


def text_name(name: str, language: str, first: str) -> str:
    """The file of a text in a language, where the study's first is `first`."""
    return f"{name}.md" if language == first else f"{name}.{language}.md"


def load_study(folder: Path) -> Study:
    """Read `folder`/study.toml.

    Raises:
        ConfigError: if the folder or file is missing, is not TOML, or has a wrong key or value.
    """
    path = folder / "study.toml"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; create a study with `rootnote study init DIR --audio AUDIO_DIR`.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        return Study(folder.resolve(), StudyConfig.model_validate(data))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, data)}") from error


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem of a validation error as one sentence, with the key nearest to a misspelt one."""
    # A misspelt key also leaves the right one missing: name the misspelling first.
    problem = min(_problems(error), key=lambda item: item["type"] != "extra_forbidden")
    location = problem["loc"]
    where = ".".join(str(part) for part in location if part not in ("int", "literal['auto']"))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _known_keys(location[:-1], data), n=1, cutoff=0.5)
        return f"unknown key '{where}'" + (f"; did you mean '{near[0]}'?" if near else ".")
    if problem["type"] == "missing":
        return f"the key '{where}' is missing."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if message.startswith("unknown key"):
        return message
    return f"'{where}': {message[0].lower()}{message[1:]}." if where else f"{message}."


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    """The problems of a validation error; those of a marketplace's own section with their place in study.toml."""
    found: list[dict[str, Any]] = []
    for item in error.errors():
        inner = item.get("ctx", {}).get("error")
        within: list[dict[str, Any]] = inner.problems if isinstance(inner, SectionError) else [{**item, "loc": ()}]
        found += [{**one, "loc": (*item["loc"], *one["loc"])} for one in within]
    return found


def _known_keys(location: tuple[Any, ...], data: Mapping[str, Any]) -> list[str]:
    if location[:1] == ("questions",):
        return list(QUESTION_TYPES[data["questions"][location[1]]["type"]].model_fields)
    if location[:1] == ("recruiter",):
        return known_keys(location[1:])
    if location[:1] == ("prescreen",):
        step = STEPS[location[1]].settings if len(location) > 1 else None
        return list(step.model_fields) if step else ["steps", *configurable_steps()]
    model: type[BaseModel] = StudyConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if annotation is None and model is EmbeddingConfig:  # [embedding.NAME]
            annotation = ModelConfig
        # `Section | None`: the section
        annotation = next((one for one in get_args(annotation) if one is not type(None)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
