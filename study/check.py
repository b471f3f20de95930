"""A check of a study: the effort of listeners, the cost, and warnings before it starts."""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from embeddings.errors import RootnoteError
from embeddings.provenance import read_json, read_table
from embeddings.wording import counted
from study.config import Study, StudyConfig
from study.config_sections import PAPER_PROMPTS
from study.consent_check import missing_elements, words_of
from study.design.bin_fit import describe_fit
from study.design.eligibility import describe_prompts
from study.languages import LANGUAGES
from study.leaks import describe_leaks
from study.marketplaces import load_marketplace
from study.money import SIGNS, amount
from study.prescreen.steps import chance_of_guessing, graded_steps, minutes
from study.trial_plan import BUILD, Plan, read_plan

TEXTS = ("consent", "instructions", "debrief")
PLACEHOLDER = re.compile(r"\[[A-Z][A-Z ,]+\]")
FEW_PROMPTS = 30
SCREENED_OUT_SHARE = 0.1  # assumed for the estimate of cost


@dataclass(frozen=True)
class StudyCheck:
    """The study in numbers; money in `currency`, also where a name ends in `_usd`."""

    name: str
    embedders: list[str]
    listeners: int
    trials_per_listener: int
    responses_per_pair: float
    minutes: float
    currency: str
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
    rewards = listeners * pay.reward
    screened_out = round(listeners * SCREENED_OUT_SHARE / (1 - SCREENED_OUT_SHARE)) * pay.screened_out
    if not graded_steps(config):
        screened_out = 0.0
    return StudyCheck(
        name=config.study.name,
        embedders=list(config.embedding.embedders),
        listeners=listeners,
        trials_per_listener=design.scored_trials + design.catch_trials + design.repeat_trials,
        responses_per_pair=design.listener_count * design.scored_trials / 6,
        minutes=pay.minutes,
        currency=config.currency,
        reward_usd=pay.reward,
        hourly_usd=pay.reward / pay.minutes * 60,
        rewards_usd=rewards,
        screened_out_usd=screened_out,
        total_usd=rewards + screened_out,
        guessing={step: chance_of_guessing(step, config) for step in graded_steps(config)},
        prescreen_minutes=minutes(config),
        built=plan is not None,
        warnings=build_warning + _text_warnings(study) + _design_warnings(study, plan) + _fit_warnings(study),
    )


def _read_plan(study: Study) -> tuple[Plan | None, list[str]]:
    try:
        plan = read_plan(study)
        return plan, [f"An earlier version built this study: {describe_leaks(plan.leaks)}."] if plan.leaks else []
    except RootnoteError as error:
        if study.refusal.is_file():
            content, _ = read_json(study.refusal, "refusal", BUILD)
            return None, [f"Not ready to serve: the last `{BUILD}` stopped: {content['reason']}"]
        return None, [f"Not ready to serve: {error}"]


def build_problems(study: Study) -> list[str]:
    """Why the study cannot be served yet; empty if it is built."""
    plan, problems = _read_plan(study)
    return [] if plan is not None else problems


def unfinished_texts(study: Study) -> list[str]:
    """The texts that listeners may not be shown yet: consent.md is missing, or any text has placeholders."""
    found = []
    for language, name in itertools.product(study.config.study.languages, TEXTS):
        path = study.text(name, language)
        if path.is_file():
            found += _placeholders(path.name, path.read_text(encoding="utf-8", errors="replace"))
        elif name == "consent":
            found.append(f"{path.name} is missing.")
    return found


def wage_problem(config: StudyConfig) -> str:
    """Why the marketplace would refuse the pay; empty if it would not."""
    pay, minimum = config.pay, config.recruiter.minimum_hourly
    if minimum is None or pay.reward * 100 * 60 >= minimum * pay.minutes:
        return ""
    name = load_marketplace(config.recruiter.kind).capabilities.name
    least = -(-minimum * pay.minutes // 60) / 100
    return (
        f"The pay of {pay.reward / pay.minutes * 60:.2f} {config.currency} an hour is below the minimum "
        f"of {name}, {minimum / 100:.2f}: pay at least {least:.2f} for {pay.minutes:g} minutes."
    )


def _placeholders(name: str, text: str) -> list[str]:
    found = PLACEHOLDER.findall(text)
    return [f"{name} has placeholders to fill in: {', '.join(dict.fromkeys(found))}."] if found else []


def _fit_warnings(study: Study) -> list[str]:
    """What to know of the bins and of the prompts that can be used."""
    warnings = []
    for name in study.config.embedding.embedders:
        if study.bins(name).is_file():
            warnings += describe_fit(read_json(study.bins(name), "bins", BUILD)[0])
        if study.prompts(name).is_file() and study.corpus.is_file():
            _, *differences = describe_prompts(study.prompts(name), read_table(study.corpus, "corpus", BUILD)[0])
            warnings += [f"{name}: {sentence}." for sentence in differences]
    return warnings


def _text_warnings(study: Study) -> list[str]:
    warnings: list[str] = []
    currency = study.config.currency
    own = (currency, SIGNS.get(currency, currency))
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
        if name == "consent":
            other = [sign for sign in (*SIGNS.values(), *SIGNS) if sign in text and sign not in own]
            warnings += [f"{path.name} mentions {sign}, and the study pays in {currency}." for sign in other[:1]]
        warnings += _placeholders(path.name, text)
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
    wage = pay.reward / pay.minutes * 60
    if wage < pay.floor_per_hour:
        warnings.append(
            f"The pay of {amount(wage, config.currency)} per hour is below "
            f"pay.floor_per_hour = {pay.floor_per_hour:.2f}."
        )
    link = config.recruiter.settings
    if config.recruiter.kind == "link" and pay.most and link.open is None and not config.recruiter.has_arrivals:
        warnings.append(
            "Listeners are paid, and anyone who has the address may take part again and again: set "
            "recruiter.link.open = false (personal links, `rootnote server links`), or true if that is intended."
        )
    if problem := wage_problem(config):
        warnings.append(problem)
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
