"""A check of a study: the effort of listeners, the cost, and warnings before it starts."""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from study.config import Study
from study.config_sections import PAPER_PROMPTS
from study.consent_check import missing_elements, words_of
from study.languages import LANGUAGES
from study.prescreen.steps import chance_of_guessing, graded_steps, minutes
from study.trial_plan import Plan, read_plan

TEXTS = ("consent", "instructions", "debrief")
PLACEHOLDER = re.compile(r"\[[A-Z][A-Z ,]+\]")
FEW_PROMPTS = 30
SCREENED_OUT_SHARE = 0.1  # assumed for the estimate of cost


@dataclass(frozen=True)
class StudyCheck:
    """The study in numbers; money in US dollars."""

    name: str
    embedders: list[str]
    listeners: int
    trials_per_listener: int
    responses_per_pair: float
    minutes: float
    reward_usd: float
    hourly_usd: float
    rewards_usd: float
    screened_out_usd: float
    total_usd: float
    guessing: dict[str, float]  # the probability of passing each graded step of the prescreen by guessing
    prescreen_minutes: float
    built: bool
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_study(study: Study) -> StudyCheck:
    """Count trials, listeners, minutes and money, and collect warnings."""
    config = study.config
    design, pay = config.design, config.pay
    listeners = design.listener_count * len(config.embedding.embedders)
    plan, build_warning = _read_plan(study)
    rewards = listeners * pay.reward_usd
    screened_out = round(listeners * SCREENED_OUT_SHARE / (1 - SCREENED_OUT_SHARE)) * pay.screened_out_usd
    if not graded_steps(config):
        screened_out = 0.0
    return StudyCheck(
        name=config.study.name,
        embedders=list(config.embedding.embedders),
        listeners=listeners,
        trials_per_listener=design.scored_trials + design.catch_trials + design.repeat_trials,
        responses_per_pair=design.listener_count * design.scored_trials / 6,
        minutes=pay.minutes,
        reward_usd=pay.reward_usd,
        hourly_usd=pay.reward_usd / pay.minutes * 60,
        rewards_usd=rewards,
        screened_out_usd=screened_out,
        total_usd=rewards + screened_out,
        guessing={step: chance_of_guessing(step, config) for step in graded_steps(config)},
        prescreen_minutes=minutes(config),
        built=plan is not None,
        warnings=build_warning + _text_warnings(study) + _design_warnings(study, plan),
    )


def _read_plan(study: Study) -> tuple[Plan | None, list[str]]:
    try:
        return read_plan(study), []
    except RootnoteError as error:
        return None, [f"Not ready to serve: {error}"]


def _text_warnings(study: Study) -> list[str]:
    warnings = []
    for language, name in itertools.product(study.config.study.languages, TEXTS):
        path = study.text(name, language)
        if not path.is_file():
            warnings.append(f"{path.name} is missing.")
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if name == "consent" and words_of(language) is None:
            english = LANGUAGES[language].english
            warnings.append(
                f"{path.name} could not be searched for missing elements; there is no word list for {english}."
            )
        if name == "consent" and (missing := missing_elements(text, language)):
            warnings.append(f"{path.name} does not seem to mention: {', '.join(missing)}.")
        placeholders = PLACEHOLDER.findall(text)
        if placeholders:
            warnings.append(f"{path.name} has placeholders to fill in: {', '.join(dict.fromkeys(placeholders))}.")
    return warnings


def _fewest_prompts(study: Study, plan: Plan | None) -> int | None:
    """The prompts of the embedder with the fewest; before the build those of the design, `None` if not yet known."""
    design = study.config.design
    if plan is None:
        return design.prompts or (PAPER_PROMPTS if design.kind == "paper" else None)
    prompts: dict[str, set[int]] = {}
    for trial in (trial for trials in plan.lists.values() for trial in trials if trial.kind == "scored"):
        prompts.setdefault(trial.embedder, set()).add(trial.prompt)
    return min(len(distinct) for distinct in prompts.values())


def _design_warnings(study: Study, plan: Plan | None) -> list[str]:
    config = study.config
    design, pay = config.design, config.pay
    warnings = []
    if not config.study.contact:
        warnings.append("study.contact is empty: give an e-mail address that listeners can write to.")
    wage = pay.reward_usd / pay.minutes * 60
    if wage < pay.floor_usd_per_hour:
        warnings.append(
            f"The pay of ${wage:.2f} per hour is below pay.floor_usd_per_hour = {pay.floor_usd_per_hour:.2f}."
        )
    prompts = _fewest_prompts(study, plan)
    if prompts is not None and prompts < FEW_PROMPTS:
        fix = (
            'design.kind = "robust" uses more prompts with as many responses'
            if design.kind == "paper"
            else "more music gives more prompts"
        )
        warnings.append(
            f"The study has only {counted(prompts, 'prompt')}: if prompts differ, pooled tests are significant too "
            f"often (27 % instead of 5 % with 10 prompts); {fix}."
        )
    if not graded_steps(config):
        warnings.append("There is no prescreen: you cannot tell whether listeners hear the clips (prescreen.steps).")
    if config.storage.stimuli and config.storage.delivery == "redirect":
        warnings.append(
            'The bucket sends the sounds (storage.delivery = "redirect"), so the server cannot count what was sent: '
            'the rules not_heard and impossible_time use its times alone. "proxy" counts every byte.'
        )
    if design.catch_trials == 0:
        warnings.append("There are no catch trials: inattentive listeners cannot be detected (design.catch_trials).")
    return warnings
