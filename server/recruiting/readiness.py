"""What a study still lacks before listeners may be invited; needs no network, no database and no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embeddings.errors import RootnoteError
from server.identity.vault import read_vault
from server.payments.formatting import as_money
from server.recruiting.marketplaces.base import Marketplace
from server.settings import read_settings, require_secret
from server.web.loopback import is_loopback
from study.check import build_problems, unfinished_texts
from study.config import Study, StudyConfig, cents


def missing_before_launch(study: Study, marketplace: Marketplace, environment: Mapping[str, str]) -> list[str]:
    """Everything that is missing, one sentence each: texts, pay, the build, addresses, keys, credentials."""
    return [
        *build_problems(study),
        *study_problems(study, marketplace),
        *_environment_problems(study, environment),
        *marketplace.missing_credentials(environment),
    ]


def study_problems(study: Study, marketplace: Marketplace) -> list[str]:
    """What must be changed in the study's folder: texts with placeholders, no contact, pay that is refused."""
    problems = unfinished_texts(study)
    if not study.config.study.contact.strip():
        problems.append("study.contact in study.toml is empty: give an e-mail address that listeners can write to.")
    return [*problems, *pay_problems(study.config, marketplace)]


def pay_problems(config: StudyConfig, marketplace: Marketplace) -> list[str]:
    """Amounts that this marketplace cannot pay, or does not allow."""
    pay, capabilities = config.pay, marketplace.capabilities
    reward = cents(pay.reward)
    if reward == 0 and not capabilities.pays_by_hand:
        return [f"pay.reward in study.toml is 0; {capabilities.name} needs a reward."]
    problem = _problem(lambda: marketplace.check_terms(reward, pay.minutes))
    problems = [problem] if problem else []
    if capabilities.pays_unsubmitted or capabilities.pays_by_hand:
        return problems
    for name in ("screened_out", "without_sound", "withdrawn", "expired"):
        if cents(getattr(pay, name) or 0) > reward:
            problems.append(
                f"pay.{name} in study.toml is above pay.reward = {as_money(reward)}; "
                f"on {capabilities.name} everyone who submits is paid the reward."
            )
    return problems


def require_ready(study: Study, marketplace: Marketplace) -> None:
    """Refuse to invite listeners to a study that is not ready.

    Raises:
        RootnoteError: with the first problem, and how many others there are.
    """
    _refuse(study_problems(study, marketplace), f"rootnote server open {study.folder} --dry-run")


def require_payable(config: StudyConfig, marketplace: Marketplace) -> None:
    """Refuse pay that this marketplace cannot send, or does not allow.

    Raises:
        RootnoteError: with the first problem, and how many others there are.
    """
    _refuse(pay_problems(config, marketplace), "rootnote server open --dry-run")


def _refuse(found: list[str], command: str) -> None:
    if found:
        more = f" ({len(found) - 1} more: {command})" if len(found) > 1 else ""
        raise RootnoteError(f"{found[0]}{more}")


def _environment_problems(study: Study, environment: Mapping[str, str]) -> list[str]:
    checks: list[Callable[[], object]] = [
        lambda: require_secret(environment),
        lambda: read_settings(study, environment, secret=False),
    ]
    if study.config.recruiter.has_arrivals:
        checks.append(lambda: read_vault(environment))
    found = [problem for check in checks if (problem := _problem(check))]
    url = environment.get("ROOTNOTE_PUBLIC_URL", "")
    if not url:
        found.append(
            "The environment variable ROOTNOTE_PUBLIC_URL is not set: it is the address of the server, such as "
            "https://study.example.org."
        )
    elif not url.startswith("https://") or is_loopback(url.partition("://")[2].partition(":")[0].strip("/")):
        found.append(f"ROOTNOTE_PUBLIC_URL is {url}: listeners elsewhere need an https address.")
    return list(dict.fromkeys(found))


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except RootnoteError as error:
        text = str(error)
        return text[0].upper() + text[1:]
    return ""
