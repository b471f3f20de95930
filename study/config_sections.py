"""The sections of study.toml, one model each.

Durations are in seconds unless the name says otherwise; money is in the currency of [pay].
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from embeddings.models.registry import embedder_names, is_embedder
from study.languages import LANGUAGES


class ConfigSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


PAPER_PROMPTS = 15


class StudyInfo(ConfigSection):
    """The study's name, people and languages."""

    name: str = Field(min_length=1, max_length=80, description="The name of the study, in exports, reports and links.")
    seed: int = Field(default=1, ge=0)
    researcher: str = ""
    contact: str = ""
    languages: list[str] = Field(
        default=["en"],
        min_length=1,
        description="The languages of the pages; the first is that of study.toml and consent.md.",
    )

    @model_validator(mode="after")
    def _known_languages(self) -> StudyInfo:
        unknown = [language for language in self.languages if language not in LANGUAGES]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is not a language of the pages; choose from {', '.join(LANGUAGES)}")
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("languages must be distinct")
        return self


class CorpusConfig(ConfigSection):
    """The location of the music, and how it is cut into clips."""

    audio: str = Field(description="The folder with the music, relative to the study folder.")
    metadata: str = ""  # a CSV with a `path` column; empty: tags, or metadata.csv in the audio folder
    duplicates: str = ""  # a file of `rootnote embeddings duplicates`; all but the first of each group are left out
    clip_seconds: float = Field(default=3.0, ge=0.1, le=60)
    hop_seconds: float = Field(default=3.0, gt=0.1, le=600)
    silence_dbfs: float = Field(default=-60.0, ge=-120, le=0)


class ModelConfig(ConfigSection):
    """[embedding.NAME]: a model's weights, as a path relative to the study folder, or for clap a Hugging Face id."""

    checkpoint: str = Field(
        min_length=1,
        description="The file with the weights, relative to the study folder; for clap also a Hugging Face id.",
    )


class ClmrConfig(ModelConfig):
    """CLMR hears 2.7 s: the first 2.7 s of a clip, or the mean of its first and last."""

    windows: Literal["first", "mean"] = Field(
        default="first",
        description="What of a clip CLMR takes: its first 2.7 s, or the mean of its first and last 2.7 s.",
    )


class EmbeddingConfig(ConfigSection):
    """Which similarity measures the study tests; [embedding.NAME] says where the weights of an embedder are."""

    # Sections of embedders: kept under their names, as if they were fields.
    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, ModelConfig] = Field(init=False)

    embedders: list[str] = Field(default=["logmel"], min_length=1)
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="The precision of the vector files; float16 halves their size."
    )
    clmr: ClmrConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_sections(cls, data: Any) -> Any:
        """Refuse a section that is not named after an embedder."""
        for name in data if isinstance(data, dict) else ():
            if name not in cls.model_fields and not is_embedder(name):
                near = difflib.get_close_matches(name, [*cls.model_fields, *embedder_names()], n=1, cutoff=0.5)
                raise ValueError(f"unknown key 'embedding.{name}'" + (f"; did you mean '{near[0]}'?" if near else "."))
        return data

    @model_validator(mode="after")
    def _distinct(self) -> EmbeddingConfig:
        if len(set(self.embedders)) != len(self.embedders):
            raise ValueError("embedders must be distinct")
        return self

    @property
    def models(self) -> dict[str, ModelConfig]:
        """The sections of embedders by name."""
        own = {"clmr": self.clmr} if self.clmr else {}
        return {**self.__pydantic_extra__, **own}


class BinsConfig(ConfigSection):
    """How similarity is cut into bins (Section 4.1 of the paper)."""

    prompts: int = Field(default=1000, ge=1)
    neighbours: Literal["auto"] | Annotated[int, Field(ge=10)] = "auto"
    random_clips: int = Field(default=1000, ge=2)
    half_width: float = Field(default=0.02, gt=0, le=0.5)
    method: Literal["gaussian", "quantile", "per_prompt"] = Field(
        default="gaussian",
        description="Where bins 1 to 3 lie: µ + 2σ, µ + σ and µ of a Gaussian (the paper), the same quantiles of the "
        "similarities, or µ and σ of each prompt's own nearest clips.",
    )

    def fingerprinted(self) -> dict[str, Any]:
        """The settings as they are fingerprinted: `method` only if it is not the one that was once the only one."""
        return self.model_dump(exclude={"method"} if self.method == "gaussian" else None)


class DesignConfig(ConfigSection):
    """How many listeners hear which trials. `None` takes the default of the kind."""

    kind: Literal["paper", "robust"] = "paper"
    prompts: int | None = Field(default=None, ge=1, description="How many prompts; the default depends on `kind`.")
    listeners: int | None = Field(
        default=None, ge=1, description="How many listeners per embedder; default: 90 (paper) or 150 (robust)."
    )
    trials: int | None = Field(
        default=None, ge=1, description="How many scored trials per listener; default: 10 (paper) or 6 (robust)."
    )
    catch_trials: int = Field(default=0, ge=0, le=10)
    repeat_trials: int = Field(default=0, ge=0, le=10)
    same_track: bool = False
    comparison: Literal["separate", "shared", "disagreement"] = Field(
        default="separate",
        description="How several embedders are compared: each with its own prompts and listeners; all on the same "
        "prompts, heard by the same listeners; or two of them on triplets that they order differently.",
    )

    def fingerprinted(self) -> dict[str, Any]:
        """The settings as they are fingerprinted: `comparison` only if it is not the one that was once the only one."""
        return self.model_dump(exclude={"comparison"} if self.comparison == "separate" else None)

    @property
    def scored_trials(self) -> int:
        return self.trials or (10 if self.kind == "paper" else 6)

    @property
    def listener_count(self) -> int:
        return self.listeners or (90 if self.kind == "paper" else 150)


class StimuliConfig(ConfigSection):
    """How clips are prepared for listening."""

    loudness_lufs: float = Field(
        default=-23.0, ge=-40, le=-10, description="Integrated loudness of every stimulus, by ITU-R BS.1770."
    )
    true_peak_dbtp: float = Field(
        default=-1.0, ge=-20, le=0, description="The highest true peak of a stimulus; a louder one is turned down."
    )
    fade_ms: float = Field(
        default=10.0, ge=0, le=500, description="Length of the fade at the start and the end of a stimulus."
    )
    sample_rate: Literal[44100, 48000] = Field(default=44100, description="Sample rate of the stimuli, in Hz.")


class StorageConfig(ConfigSection):
    """The source of the stimuli for listeners: build/stimuli (empty) or an S3 bucket."""

    stimuli: str = ""
    delivery: Literal["redirect", "proxy"] = Field(
        default="redirect",
        description="redirect: browsers fetch from a signed address of the bucket; proxy: the server sends the sounds.",
    )
    seconds: int = Field(default=120, ge=10, le=3600)  # how long a signed address is valid

    @model_validator(mode="after")
    def _bucket(self) -> StorageConfig:
        if self.stimuli and not re.fullmatch(
            r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?", self.stimuli
        ):
            raise ValueError(f"stimuli is '{self.stimuli}', not written like s3://bucket/folder")
        return self


EXCLUSION_RULES = (
    "failed_prescreen", "incomplete", "duplicate_person", "catch_missed", "too_fast", "not_heard", "impossible_time",
    "straight_lining", "one_side",
)  # fmt: skip


class ExclusionsConfig(ConfigSection):
    """Which listeners and responses do not count; what each rule does is in analysis.responses.exclusions."""

    rules: list[str] = Field(
        default=["failed_prescreen", "incomplete"],
        description="The rules that leave out listeners or responses: " + ", ".join(EXCLUSION_RULES) + ".",
    )
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


class AnalysisConfig(ConfigSection):
    """[analysis]: the primary test of each bin pair, which `study freeze` records and the report applies."""

    primary: Literal["two_way_holm", "exact_holm", "mixed_holm"] = Field(
        default="two_way_holm",
        description=(
            "two_way_holm: listeners and prompts as random; mixed_holm: a logistic mixed model; exact_holm: the "
            "paper's exact binomial test. All with Holm's correction over the bin pairs."
        ),
    )
    alternative: Literal["two-sided", "greater"] = Field(
        default="two-sided", description="greater: test only for more agreement than chance."
    )
    smallest_effect: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="The smallest effect of interest, as a rate above 0.5: with 0.05, below 55 % is of no interest.",
    )


class PlayerConfig(ConfigSection):
    """How a trial's clips are played, and whether listeners say how sure they are (1 to 5)."""

    switching: Literal["restart", "position"] = Field(
        default="restart",
        description="restart: a clip starts from its beginning; position: where the previous clip was.",
    )
    confidence: bool = False


CURRENCIES = ("USD", "GBP", "EUR")


def _in_dollars(name: str) -> str:
    """The name that a key of [pay] had when all amounts were US dollars."""
    return "floor_usd_per_hour" if name == "floor_per_hour" else f"{name}_usd"


def _amount(name: str, **settings: Any) -> Any:
    """A field for an amount of money, which study.toml may also give under its earlier name."""
    return Field(validation_alias=AliasChoices(name, _in_dollars(name)), **settings)


class PayConfig(ConfigSection):
    """The pay of listeners, by outcome; `budget` is the most that a launch may cost, fees included.

    `without_sound` is for those who consented and cannot use sound at all; None: the reward. Keys that end in `_usd`
    are the earlier names of the same amounts, in US dollars.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    currency: Literal["USD", "GBP", "EUR"] | None = Field(
        default=None, description="USD, GBP or EUR: the currency of all amounts; default: that of the marketplace."
    )
    reward: float = _amount("reward", default=1.50, ge=0, le=1000, description="The reward for a finished run.")
    minutes: float = Field(default=4.0, gt=0)
    screened_out: float = _amount(
        "screened_out",
        default=1.50,
        ge=0,
        le=1000,
        description="The pay of listeners who fail the prescreen; the paper paid them.",
    )
    without_sound: float | None = _amount("without_sound", default=None, ge=0, le=1000)
    withdrawn: float = _amount("withdrawn", default=0.0, ge=0, le=1000)
    expired: float = _amount("expired", default=0.0, ge=0, le=1000)
    floor_per_hour: float = _amount("floor_per_hour", default=15.0, ge=0)
    budget: float | None = _amount("budget", default=None, gt=0, le=1_000_000)

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, data: Any) -> Any:
        """Refuse a section that mixes amounts with and without `_usd`, or gives US dollars in another currency."""
        if not isinstance(data, Mapping):
            return data
        earlier = [_in_dollars(name) for name in AMOUNTS if _in_dollars(name) in data]
        current = [name for name in AMOUNTS if name in data]
        if earlier and current:
            raise ValueError(
                f'[pay] has both {current[0]} and {earlier[0]}; write all amounts without `usd`, and currency = "USD"'
            )
        if earlier and data.get("currency", "USD") != "USD":
            name = next(name for name in AMOUNTS if _in_dollars(name) == earlier[0])
            raise ValueError(f"{earlier[0]} is in US dollars and currency is {data['currency']}; write {name} instead")
        return data

    @field_validator("reward", "screened_out", "without_sound", "withdrawn", "expired", "budget")
    @classmethod
    def _whole_cents(cls, value: float | None) -> float | None:
        if value is not None and Decimal(str(value)) * 100 % 1:
            raise ValueError(f"{value:g} is not a whole number of cents")
        return value

    @model_serializer(mode="wrap")
    def _by_stored_names(self, serialize: Callable[[PayConfig], dict[str, Any]]) -> dict[str, Any]:
        """Frozen plans and launches keep the names that amounts in US dollars have always had there."""
        found = serialize(self)
        if self.currency not in (None, "USD"):
            return found
        return {_in_dollars(key) if key in AMOUNTS else key: found[key] for key in found if key != "currency"}

    @property
    def unheard(self) -> float:
        """The pay of a listener who cannot use sound."""
        return self.reward if self.without_sound is None else self.without_sound

    @property
    def most(self) -> float:
        """The highest pay that any outcome of a run has; 0 if nobody is paid."""
        return max(self.reward, self.screened_out, self.unheard, self.withdrawn, self.expired)


AMOUNTS = tuple(name for name in PayConfig.model_fields if name not in ("currency", "minutes"))


class PrivacyConfig(ConfigSection):
    """How long marketplace identities are kept: days after the last payment, or after closing if that is later."""

    identity_days: float = Field(default=30, ge=1, le=3650)


class RehearsalConfig(ConfigSection):
    """Simulated listeners: P(agree) = 0.5 + (0.5 - lapse) * (1 - exp(-(difference / scale) ** shape))."""

    scale: float = Field(
        default=0.12,
        gt=0,
        description="The difference of similarities at which P(agree) has covered 63 % of its range.",
    )
    shape: float = Field(default=1.0, gt=0, description="How steep P(agree) is.")
    lapse: float = Field(default=0.02, ge=0, le=0.5, description="How far P(agree) stays below 1 at large differences.")
    fail_prescreen: float = Field(
        default=0.05, ge=0, le=1, description="The share of simulated listeners who fail the prescreen."
    )
    loudspeakers: float = Field(
        default=0.0, ge=0, le=1, description="The share who use loudspeakers; the others use headphones."
    )
    abandon: float = Field(default=0.04, ge=0, le=1, description="The share who leave or vanish before the end.")
    reload: float = Field(default=0.05, ge=0, le=1, description="The share who reload pages.")
    double_submit: float = Field(default=0.05, ge=0, le=1, description="The share who submit an answer twice.")
