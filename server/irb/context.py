"""The facts of the packet, from the study, the code and the databases; the sections put them into words.

Amounts are in the study's currency, durations in minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from embeddings.provenance import digest
from embeddings.version import VERSION
from server.irb.timings import Measured, measure
from server.recruiting.marketplaces.base import PostingOrder
from server.recruiting.marketplaces.registry import make_marketplace
from server.web.markdown import StudyTexts, read_study_texts
from study.check import TEXTS, StudyCheck, check_study
from study.config import Study, StudyConfig, cents
from study.preregistration.document import EXCLUDED_SECTIONS, HYPOTHESES, FrozenPlan, read_frozen, text_of
from study.trial_plan import Plan, read_plan

CLIPS_OF_A_TRIAL = 3


@dataclass(frozen=True)
class Advert:
    """The advertisement that people see before they arrive: the place, and pairs of (part, text)."""

    where: str
    shown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PacketContext:
    """All facts about a study when the packet is made."""

    study: Study
    plan: Plan
    check: StudyCheck
    pages: Mapping[str, StudyTexts]  # by language
    texts: Mapping[str, str]  # consent texts as Markdown, by language
    hypotheses: str
    frozen: FrozenPlan | None
    advert: Advert
    measured: tuple[Measured, ...]
    fingerprint: str
    made_at: datetime
    version: str = VERSION

    @property
    def config(self) -> StudyConfig:
        return self.study.config

    @property
    def trials(self) -> int:
        return self.check.trials_per_listener

    @property
    def clips(self) -> int:
        """Total length of the clips of a run in seconds, each heard once."""
        return round(self.trials * CLIPS_OF_A_TRIAL * self.config.corpus.clip_seconds)

    @property
    def consent_hash(self) -> str:
        """The hash of the consent text in the study's first language."""
        return self.pages[self.config.study.languages[0]].consent_version


def gather(study: Study, environment: Mapping[str, str], now: datetime) -> PacketContext:
    """Collect the facts.

    Raises:
        RootnoteError: if the study is not built, a text is missing, or a database cannot be read.
    """
    plan = read_plan(study)
    languages = study.config.study.languages
    return PacketContext(
        study=study,
        plan=plan,
        check=check_study(study),
        pages=read_study_texts(study),
        texts={code: study.text("consent", code).read_text(encoding="utf-8") for code in languages},
        hypotheses=text_of(study.folder / HYPOTHESES),
        frozen=read_frozen(study.folder),
        advert=_advert(study, environment),
        measured=measure(study, plan, environment),
        fingerprint=_fingerprint(study, plan),
        made_at=now,
    )


def _advert(study: Study, environment: Mapping[str, str]) -> Advert:
    """The advertisement that the marketplace would show for all places; no request is sent."""
    config = study.config
    recruiter = make_marketplace(study)
    places = config.design.listener_count * len(config.embedding.embedders)
    address = environment.get("ROOTNOTE_PUBLIC_URL", "").rstrip("/") or "https://(the server's address)"
    reward = cents(config.pay.reward)
    order = PostingOrder("packet", "packet", places, places, reward, f"{address}/take", config.pay.minutes)
    return Advert(recruiter.capabilities.name, recruiter.advert(order))


def _fingerprint(study: Study, plan: Plan) -> str:
    """SHA-256 over settings, schedule and texts; it changes with the protocol."""
    files = (study.text(name, code) for code in study.config.study.languages for name in TEXTS)
    return digest(
        {
            "settings": study.config.model_dump(mode="json", exclude=set(EXCLUDED_SECTIONS)),
            "schedule": plan.schedule_fingerprint,
            "texts": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()},
        }
    )
