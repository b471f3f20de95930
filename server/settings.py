"""Settings: what the server takes from environment variables, never from study.toml.

`ServerEnvironment` lists the variables with their meaning; `RehearsalEnvironment` is the same for a rehearsal, which
has a database of its own, so that simulated listeners never touch the real one. `read_settings` checks them and returns
`Settings`. The key of the vault (ROOTNOTE_VAULT_KEY) is read by `server.identity.vault`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL

from embeddings.errors import RootnoteError
from server.db.urls import parse_database_url
from server.identity.vault import Vault, has_keys, read_vault
from server.web import request_queue
from server.web.loopback import is_loopback
from study.config import Study, StudyConfig

SECRET_LENGTH = 32
METRICS_TOKEN_LENGTH = 16
REQUESTS_PER_SECOND = 200.0


@dataclass(frozen=True)
class Settings:
    """The settings of one running server."""

    database: URL
    secret: str = field(default="", repr=False)
    rehearsal: bool = False
    reservation_minutes: float | None = None
    public_url: str = ""
    trusted_proxies: int = 0
    metrics_token: str = field(default="", repr=False)
    requests_per_second: float = REQUESTS_PER_SECOND
    vault: Vault | None = field(default=None, repr=False)
    market_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    erasures: str = ""
    factor_required: bool = False
    at_work: int = request_queue.AT_WORK

    @property
    def unconfirmed_limited(self) -> bool:
        """Whether one address may begin only a few unconfirmed runs; a rehearsal's listeners share one address."""
        return not self.rehearsal

    @property
    def secure(self) -> bool:
        """Whether listeners reach the server by https."""
        return self.public_url.startswith("https://")

    def erasures_of(self, study: Study) -> Path:
        """The journal of erasures; a rehearsal has one of its own."""
        if self.rehearsal:
            return study.folder / "rehearsal.erasures.jsonl"
        return study.folder / (self.erasures or "erasures.jsonl")

    def witness_of(self, study: Study) -> Path | None:
        """The witness (server.audit.witness), next to the journal of erasures; a rehearsal has none."""
        return None if self.rehearsal else self.erasures_of(study).with_name("witness.jsonl")

    def adjust(self, config: StudyConfig) -> StudyConfig:
        """The study's configuration with what the environment overrides."""
        if self.reservation_minutes is None:
            return config
        recruiter = config.recruiter.model_copy(update={"reservation_minutes": self.reservation_minutes})
        return config.model_copy(update={"recruiter": recruiter})


# ------------------------------------------------------------------ the variables


def _check_public_url(value: str) -> str:
    value = value.rstrip("/")
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query):
        raise ValueError(f"is '{value}', not an address like https://study.example.org.")
    return value


def _check_market_url(value: str) -> str:
    value = value.rstrip("/")
    parts = urlsplit(value)
    if value and (parts.scheme != "http" or not is_loopback(parts.hostname) or not parts.port):
        raise ValueError(f"is '{value}', not a marketplace on this machine, such as http://127.0.0.1:8080.")
    return value


def _check_metrics_token(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < METRICS_TOKEN_LENGTH:
        raise ValueError(
            f"has fewer than {METRICS_TOKEN_LENGTH} characters; make one with `openssl rand -hex 16`, or unset it to "
            "switch /metrics off."
        )
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    if value:
        parse_database_url(value.get_secret_value())
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]  # it may contain a password


def _variable(name: str, default: Any, description: str, **constraints: Any) -> Any:
    """A field that is read from the environment variable `name`."""
    return Field(default, validation_alias=name, description=description, **constraints)


class ServerEnvironment(BaseSettings):
    """The environment variables of a server; an empty one counts as unset.

    The text of `json_schema_extra["expected"]` completes "is '…', not …" if a value is refused.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, case_sensitive=True, extra="ignore", frozen=True)
    database_file: ClassVar[str] = "rootnote.sqlite3"

    secret: SecretStr = _variable(
        "ROOTNOTE_SECRET",
        SecretStr(""),
        "Signs links and keys the hashes of worker ids; at least 32 characters, the same for the whole study.",
    )
    database_url: DatabaseUrl = _variable(
        "ROOTNOTE_DATABASE_URL",
        SecretStr(""),
        "The database: postgresql://user:password@host/name or sqlite:////folder/file.sqlite3 (default: "
        "rootnote.sqlite3 in the study's folder).",
    )
    public_url: Annotated[str, AfterValidator(_check_public_url)] = _variable(
        "ROOTNOTE_PUBLIC_URL",
        "",
        "Where listeners reach the server, such as https://study.example.org; with https every reply has HSTS and "
        "cookies are Secure.",
    )
    trusted_proxies: int = _variable(
        "ROOTNOTE_TRUSTED_PROXIES",
        0,
        "How many proxies in front of the server set X-Forwarded-For and X-Forwarded-Proto; 0 (default) ignores them.",
        ge=0,
        le=10,
        json_schema_extra={"expected": "a whole number from 0 to 10"},
    )
    metrics_token: Annotated[SecretStr, AfterValidator(_check_metrics_token)] = _variable(
        "ROOTNOTE_METRICS_TOKEN",
        SecretStr(""),
        "Opens /metrics; at least 16 characters. Without it there is no /metrics.",
    )
    requests_per_second: float = _variable(
        "ROOTNOTE_REQUESTS_PER_SECOND",
        REQUESTS_PER_SECOND,
        "How many requests one address may send per second (default: 200, with 20,000 saved up; in a rehearsal no "
        "limit); 0 sets no limit.",
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        json_schema_extra={"expected": "a number from 0 to 1000000"},
    )
    webhook_secret: SecretStr = _variable(
        "ROOTNOTE_WEBHOOK_SECRET",
        SecretStr(""),
        "The secret with which the marketplace signs its events; `rootnote server webhooks` prints it. Without it the "
        "server receives none.",
    )
    erasures: str = _variable(
        "ROOTNOTE_ERASURES",
        "",
        "The file that records erasures (default: erasures.jsonl in the study's folder); keep it with the backups.",
    )
    desk_second_factor: Literal["optional", "required"] = _variable(
        "ROOTNOTE_DESK_SECOND_FACTOR",
        "optional",
        "Whether every user of the desk must set up a second factor: 'optional' (default) or 'required'.",
        json_schema_extra={"expected": "'optional' or 'required'"},
    )
    at_work: int = _variable(
        "ROOTNOTE_AT_WORK",
        request_queue.AT_WORK,
        "How many requests one process works on at a time, from 1 to 16 (default: 4); the others wait, answers first.",
        ge=1,
        le=request_queue.MAX_AT_WORK,
        json_schema_extra={"expected": f"a whole number from 1 to {request_queue.MAX_AT_WORK}"},
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *args: Any, **kwargs: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # only what `read` found

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables of an environment.

        Raises:
            RootnoteError: naming the first variable that is refused, and what to write instead.
        """
        source = EnvSettingsSource(cls)
        source.env_vars = {name: value for name, value in environment.items() if value}
        try:
            return cls(**source())
        except ValidationError as error:
            raise RootnoteError(cls._explain(error)) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        """One sentence about the first problem."""
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "value_error":
            return f"the environment variable {name} {first['ctx']['error']}"
        extra = next(one.json_schema_extra for one in cls.model_fields.values() if one.validation_alias == name)
        assert isinstance(extra, dict)
        return f"the environment variable {name} is '{first['input']}', not {extra['expected']}."


class RehearsalEnvironment(ServerEnvironment):
    """The environment variables of a rehearsal."""

    database_file: ClassVar[str] = "rehearsal.sqlite3"

    database_url: DatabaseUrl = _variable(
        "ROOTNOTE_REHEARSAL_DATABASE_URL",
        SecretStr(""),
        "The database of rehearsals (default: rehearsal.sqlite3 in the study's folder).",
    )
    # A rehearsal's listeners share one address and do not stop to think.
    requests_per_second: float = _variable(
        "ROOTNOTE_REQUESTS_PER_SECOND",
        0.0,
        "How many requests one address may send per second; 0 sets no limit.",
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        json_schema_extra={"expected": "a number from 0 to 1000000"},
    )
    reservation_minutes: float | None = _variable(
        "ROOTNOTE_RESERVATION_MINUTES",
        None,
        "Replaces recruiter.reservation_minutes of study.toml, so that the places of simulated listeners who vanish "
        "are soon free.",
        gt=0,
        lt=1e6,
        allow_inf_nan=False,
        json_schema_extra={"expected": "a number of minutes above 0"},
    )
    market_url: Annotated[str, AfterValidator(_check_market_url)] = _variable(
        "ROOTNOTE_MARKET_URL", "", "A marketplace on this machine that replaces the real one."
    )


# ------------------------------------------------------------------ reading them


def read_settings(
    study: Study, environment: Mapping[str, str], *, rehearsal: bool = False, secret: bool = True
) -> Settings:
    """Read the settings of a study from the environment.

    Args:
        secret: whether ROOTNOTE_SECRET is needed; without it there is no vault either.

    Raises:
        RootnoteError: if the secret is needed and missing or too short, or a variable has a value that cannot be
            used.
    """
    found = (RehearsalEnvironment if rehearsal else ServerEnvironment).read(environment)
    key = _require_secret(found) if secret else ""
    overrides: dict[str, Any] = {}
    if isinstance(found, RehearsalEnvironment):
        overrides = {"reservation_minutes": found.reservation_minutes, "market_url": found.market_url}
    return Settings(
        database=_database(study, found),
        secret=key,
        rehearsal=rehearsal,
        public_url=found.public_url,
        trusted_proxies=found.trusted_proxies,
        metrics_token=found.metrics_token.get_secret_value(),
        requests_per_second=found.requests_per_second,
        vault=_open_vault(study, environment, key if rehearsal else "") if secret else None,
        webhook_secret=found.webhook_secret.get_secret_value(),
        erasures=found.erasures,
        factor_required=found.desk_second_factor == "required",
        at_work=found.at_work,
        **overrides,
    )


def former_secrets(environment: Mapping[str, str]) -> list[str]:
    """Earlier values of ROOTNOTE_SECRET, which sealed older entries of the audit log: ROOTNOTE_FORMER_SECRETS."""
    return [one.strip() for one in environment.get("ROOTNOTE_FORMER_SECRETS", "").split(",") if one.strip()]


def require_secret(environment: Mapping[str, str]) -> str:
    """ROOTNOTE_SECRET of an environment.

    Raises:
        RootnoteError: if it is not set or too short.
    """
    return _require_secret(ServerEnvironment.read(environment))


def _require_secret(environment: ServerEnvironment) -> str:
    value = environment.secret.get_secret_value()
    if len(value) >= SECRET_LENGTH:
        return value
    problem = "is not set" if not value else f"has fewer than {SECRET_LENGTH} characters"
    raise RootnoteError(
        f"the environment variable ROOTNOTE_SECRET {problem}; make one with "
        "`export ROOTNOTE_SECRET=$(openssl rand -hex 32)` and keep it for the whole study."
    )


def _database(study: Study, environment: ServerEnvironment) -> URL:
    given = environment.database_url.get_secret_value()
    if not given:
        return URL.create("sqlite", database=str(study.folder / environment.database_file))
    return parse_database_url(given)


def _open_vault(study: Study, environment: Mapping[str, str], rehearsal_secret: str) -> Vault | None:
    if not study.config.recruiter.has_arrivals and not has_keys(environment):
        return None  # listeners by plain links have no marketplace identity
    return read_vault(environment, rehearsal_secret=rehearsal_secret)
