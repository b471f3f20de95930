"""Settings: what the server takes from the environment, never from study.toml.

ROOTNOTE_SECRET signs what listeners hold and keys the pseudonyms; ROOTNOTE_DATABASE_URL says where answers lie
(default: rootnote.sqlite3 in the study's folder); ROOTNOTE_REHEARSAL_DATABASE_URL says where rehearsed ones lie
(default: rehearsal.sqlite3), so that simulated listeners never meet the real database. In a rehearsal alone,
ROOTNOTE_RESERVATION_MINUTES takes the place of study.toml's, so that those who vanish soon free their place.

ROOTNOTE_PUBLIC_URL is where listeners reach the server; ROOTNOTE_TRUSTED_PROXIES says how many proxies before it may
tell a request's address and scheme (default 0: their headers are not believed); ROOTNOTE_METRICS_TOKEN opens
/metrics; ROOTNOTE_REQUESTS_PER_SECOND is what one address may send (0: no limit); ROOTNOTE_AT_WORK is how many
requests a process works at (server.web.request_queue). ROOTNOTE_VAULT_KEY, or the file that ROOTNOTE_VAULT_KEY_FILE
names, encrypts
workers' ids (server.identity.vault). ROOTNOTE_DESK_SECOND_FACTOR says whether researchers may (optional) or must
(required)
have a second factor. In a rehearsal alone, ROOTNOTE_MARKET_URL is a marketplace on this machine in place of the real
one.

ROOTNOTE_FORMER_SECRETS, with commas between, are what ROOTNOTE_SECRET was before: `server audit` knows older seals by
them. ROOTNOTE_ERASURES is the file in which erasures are written down beside the database (server.privacy.erasure).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from embeddings.errors import RootnoteError
from server.identity.vault import Vault, has_keys, read_vault
from server.web import request_queue
from server.web.loopback import is_loopback
from study.config import Study, StudyConfig

SECRET_LENGTH = 32
METRICS_TOKEN_LENGTH = 16
REQUESTS_PER_SECOND = 200.0


@dataclass(frozen=True)
class Settings:
    """The secret and the database of one running server."""

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
    erasures: str = ""
    factor_required: bool = False
    at_work: int = request_queue.AT_WORK

    @property
    def secure(self) -> bool:
        """Whether listeners come by https."""
        return self.public_url.startswith("https://")

    def erasures_of(self, study: Study) -> Path:
        """Where erasures are written down; a rehearsal's own, which are no one's, in a file of their own."""
        if self.rehearsal:
            return study.folder / "rehearsal.erasures.jsonl"
        return study.folder / (self.erasures or "erasures.jsonl")

    def adjust(self, config: StudyConfig) -> StudyConfig:
        """The study's configuration as this server follows it."""
        if self.reservation_minutes is None:
            return config
        recruiter = config.recruiter.model_copy(update={"reservation_minutes": self.reservation_minutes})
        return config.model_copy(update={"recruiter": recruiter})


def former_secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets of before, by which older entries of the log were sealed: ROOTNOTE_FORMER_SECRETS, with commas."""
    return [one.strip() for one in environment.get("ROOTNOTE_FORMER_SECRETS", "").split(",") if one.strip()]


def read_settings(
    study: Study, environment: Mapping[str, str], *, rehearsal: bool = False, secret: bool = True
) -> Settings:
    """Read the settings of a study from the environment.

    Raises:
        RootnoteError: where the secret is missing or short (and `secret` asks for it), or an URL is none.
    """
    key = _secret(environment) if secret else ""
    return Settings(
        _database(study, environment, rehearsal),
        key,
        rehearsal,
        _reservation(environment) if rehearsal else None,
        _public_url(environment),
        int(_number(environment, "ROOTNOTE_TRUSTED_PROXIES", 0, 10, whole=True)),
        _metrics_token(environment),
        # A rehearsal's listeners come from one address and do not stop to think.
        _number(environment, "ROOTNOTE_REQUESTS_PER_SECOND", 0.0 if rehearsal else REQUESTS_PER_SECOND, 1e6),
        _vault(study, environment, key if rehearsal else "") if secret else None,
        _market_url(environment) if rehearsal else "",
        environment.get("ROOTNOTE_ERASURES", ""),
        _factor_required(environment),
        int(_number(environment, "ROOTNOTE_AT_WORK", request_queue.AT_WORK, request_queue.MOST, least=1, whole=True)),
    )


def _factor_required(environment: Mapping[str, str]) -> bool:
    value = environment.get("ROOTNOTE_DESK_SECOND_FACTOR", "") or "optional"
    if value not in ("optional", "required"):
        raise RootnoteError(
            f"the environment variable ROOTNOTE_DESK_SECOND_FACTOR is '{value}', neither 'optional' nor 'required'."
        )
    return value == "required"


def _vault(study: Study, environment: Mapping[str, str], rehearsal_secret: str) -> Vault | None:
    if not study.config.recruiter.has_arrivals and not has_keys(environment):
        return None  # nobody is named
    return read_vault(environment, rehearsal_secret=rehearsal_secret)


def _market_url(environment: Mapping[str, str]) -> str:
    value = environment.get("ROOTNOTE_MARKET_URL", "").rstrip("/")
    parts = urlsplit(value)
    if value and (parts.scheme != "http" or not is_loopback(parts.hostname) or not parts.port):
        raise RootnoteError(
            f"the environment variable ROOTNOTE_MARKET_URL is '{value}', not a marketplace on this machine, such as "
            "http://127.0.0.1:8080."
        )
    return value


def _public_url(environment: Mapping[str, str]) -> str:
    value = environment.get("ROOTNOTE_PUBLIC_URL", "").rstrip("/")
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query):
        raise RootnoteError(
            f"the environment variable ROOTNOTE_PUBLIC_URL is '{value}', not an address like https://study.example.org."
        )
    return value


def _number(
    environment: Mapping[str, str], name: str, default: float, most: float, *, least: float = 0, whole: bool = False
) -> float:
    value = environment.get(name, "")
    if not value:
        return default
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise RootnoteError(f"the environment variable {name} is '{value}', not a number from {least:g} to {most:g}.")
    return number


def _metrics_token(environment: Mapping[str, str]) -> str:
    value = environment.get("ROOTNOTE_METRICS_TOKEN", "")
    if value and len(value) < METRICS_TOKEN_LENGTH:
        raise RootnoteError(
            f"the environment variable ROOTNOTE_METRICS_TOKEN has fewer than {METRICS_TOKEN_LENGTH} characters; "
            "make one with `openssl rand -hex 16`, or unset it to have no /metrics."
        )
    return value


def _reservation(environment: Mapping[str, str]) -> float | None:
    value = environment.get("ROOTNOTE_RESERVATION_MINUTES", "")
    if not value:
        return None
    try:
        minutes = float(value)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise RootnoteError(
            f"the environment variable ROOTNOTE_RESERVATION_MINUTES is '{value}', not a number of minutes above 0."
        )
    return minutes


def _secret(environment: Mapping[str, str]) -> str:
    value = environment.get("ROOTNOTE_SECRET", "")
    if len(value) >= SECRET_LENGTH:
        return value
    problem = "is not set" if not value else f"has fewer than {SECRET_LENGTH} characters"
    raise RootnoteError(
        f"the environment variable ROOTNOTE_SECRET {problem}; make one with "
        "`export ROOTNOTE_SECRET=$(openssl rand -hex 32)` and keep it for the whole study."
    )


def _database(study: Study, environment: Mapping[str, str], rehearsal: bool) -> URL:
    name = "ROOTNOTE_REHEARSAL_DATABASE_URL" if rehearsal else "ROOTNOTE_DATABASE_URL"
    given = environment.get(name, "")
    if not given:
        file = "rehearsal.sqlite3" if rehearsal else "rootnote.sqlite3"
        return URL.create("sqlite", database=str(study.folder / file))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise RootnoteError(
            f"the environment variable {name} is no database address; write it like "
            "postgresql://user:password@host/name or sqlite:////folder/file.sqlite3."
        ) from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise RootnoteError(
        f"the environment variable {name} names neither a PostgreSQL nor a SQLite file "
        f"('{url.drivername}'); use postgresql://… or sqlite:////folder/file.sqlite3."
    )


def show(url: URL) -> str:
    """The address of a database as a person may see it: without its password."""
    return str(url.database) if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
