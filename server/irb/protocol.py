"""The protocol: purpose, procedure, trials, questions, analysis and participants."""

from __future__ import annotations

from embeddings.wording import counted
from server.irb.blocks import Block, BlockTable, Heading, Points, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import listing, minutes
from study.config import StudyConfig
from study.languages import LANGUAGES
from study.preregistration.exclusion_rules import plan_of
from study.preregistration.planned_test import DESCRIPTIONS, PlannedTest
from study.prescreen.registry import STEPS
from study.prescreen.steps import step_config
from study.questions.base import BaseQuestion


def protocol(facts: PacketContext) -> Section:
    """Purpose, procedure, trials, questions, analysis."""
    config, check = facts.config, facts.check
    blocks: list[Block] = [Heading("Purpose"), Text(_purpose(config))]
    if facts.hypotheses:
        blocks += [Text("The hypotheses in the researchers' words:"), Text(facts.hypotheses)]
    blocks += [
        Heading("What a participant does"),
        Points(_procedure(facts), ordered=True),
        Text(
            f"The study is expected to take {minutes(check.minutes)}. Its clips last "
            f"{counted(facts.clips, 'second')} when each is heard once. There is one session and no follow-up."
        ),
        Heading("The trials"),
        Text(
            f"In each trial a participant listens to three music clips of {config.corpus.clip_seconds:g} seconds, X, A "
            "and B, each as often as they like, and chooses which of A and B is more similar to X. There is no "
            "correct answer. The choice is possible after all three clips were heard to the end."
        ),
        Text(_clips(config)),
        Text(_deception(config)),
    ]
    if config.questions:
        blocks += [Heading("Questions after the trials"), _questions(config)]
    blocks += [Heading("Exclusions and analysis"), *_analysis(facts)]
    return Section("Protocol", blocks)


def _purpose(config: StudyConfig) -> str:
    measures = listing(config.embedding.embedders)
    return (
        "The study tests whether a computational measure of musical similarity agrees with human listeners. Pairs of "
        f"clips are selected by their similarity to a third clip according to the measure ({measures}). Participants "
        "choose the more similar clip of each pair. The result is the share of choices that agree with the measure. "
        "The study follows the listening test of Barnett, Flores García and Pardo, “Exploring Musical Roots” (2024)."
    )


def _procedure(facts: PacketContext) -> list[str]:
    config, design = facts.config, facts.config.design
    steps = [
        "Reads the information and consents by pressing “I agree and want to start”. Nothing is stored before that."
    ]
    steps += [_check(kind, config) for kind in config.prescreen.steps]
    volume = "" if "volume" in config.prescreen.steps else " and sets the volume with a soft sound"
    steps.append(f"Reads the instructions{volume}.")
    extra = [f"{design.catch_trials} to check attention"] if design.catch_trials else []
    extra += [f"{design.repeat_trials} repeated"] if design.repeat_trials else []
    among = f", including {' and '.join(extra)}" if extra else ""
    sure = ", and rates how sure they are (1 to 5)" if config.player.confidence else ""
    steps.append(f"Answers {counted(facts.trials, 'trial')}{among}{sure}.")
    if config.questions:
        steps.append(f"Answers {counted(len(config.questions), 'question')}.")
    steps.append("Reads what the study is about and receives a completion code.")
    return steps


def _check(kind: str, config: StudyConfig) -> str:
    own = step_config(config, kind)
    if not STEPS[kind].graded:
        return f"Before the trials: {STEPS[kind].summary}"
    passed = "all" if own.needed == own.items else str(own.needed)
    tries = f"{counted(own.attempts, 'attempt')}, each with new sounds"
    fails = (
        "Participants who do not pass end here and are paid."
        if own.required
        else "The result is recorded; everyone continues."
    )
    if own.required and not config.pay.screened_out:
        fails = "Participants who do not pass end here."
    return (
        f"Listening check: {STEPS[kind].summary} {counted(own.items, 'sound')}, {passed} must be right, {tries}. "
        f"{fails}"
    )


def _clips(config: StudyConfig) -> str:
    stimuli = config.stimuli
    return (
        "The clips are excerpts from the researchers' music collection. All have the same loudness "
        f"({stimuli.loudness_lufs:g} LUFS, true peak at most {stimuli.true_peak_dbtp:g} dBTP) and fades of "
        f"{stimuli.fade_ms:g} ms. The software cannot judge the content: the researchers have to say whether any clip "
        "contains distressing words or sounds."
    )


def _deception(config: StudyConfig) -> str:
    if not config.design.catch_trials and not config.design.repeat_trials:
        return "There is no deception: participants receive no false information, and the last page explains the study."
    kinds = ["in some trials one of the two clips is X itself"] if config.design.catch_trials else []
    kinds += ["some trials are repeated"] if config.design.repeat_trials else []
    return f"Participants receive no false information. Not announced: {listing(kinds)}, to check reliability."


def _questions(config: StudyConfig) -> BlockTable:
    rows = [[one.text, _answer(one), "yes" if one.required else "no"] for one in config.questions]
    return BlockTable("Questions in their order", ("Question", "Answer", "Required"), rows)


def _answer(question: BaseQuestion) -> str:
    kind = question.description or question.type
    offered = ", ".join(question.offered)
    return f"{kind}: {offered}" if offered else kind


def _analysis(facts: PacketContext) -> list[Block]:
    rules = plan_of(facts.config).as_data()["rules"]
    left = list(rules.values())
    frozen = facts.frozen
    registered = (
        f"The analysis plan was frozen on {frozen.frozen_at:%Y-%m-%d} (hash {frozen.hash[:16]})"
        + ("." if frozen.intact else ", but the file has been edited since.")
        if frozen is not None
        else "No analysis plan has been frozen yet (rootnote study freeze)."
    )
    agree = (
        "For each pair of similarity bins, the number of choices that agree with the measure is tested against chance "
    )
    settings = facts.config.analysis
    test = PlannedTest.from_config(settings) if frozen is None else PlannedTest.from_plan(frozen.plan["tests"])
    described = DESCRIPTIONS[test.primary]
    return [
        Text(agree + f"(test: {described['test']}; correction: {described['correction']}). {registered}"),
        *(
            [Text("Responses are excluded for these reasons:"), Points(left)]
            if left
            else [Text("No response is excluded.")]
        ),
        Text(
            "The researchers' desk shows no results while the study runs. Seeing them earlier requires a reason, which "
            "is logged."
        ),
    ]


def _once(config: StudyConfig) -> str:
    known = "Each person takes part once: people who return are recognised by a keyed hash of their id"
    if config.recruiter.has_arrivals:
        return f"{known} at the marketplace."
    return f"{known} in the link, if each person gets their own link. A shared link cannot distinguish people."


def participants(facts: PacketContext) -> Section:
    """Number of participants and who can take part."""
    config, check = facts.config, facts.check
    languages = listing([LANGUAGES[code].english for code in config.study.languages])
    per = ""
    if len(check.embedders) > 1:
        per = f" ({config.design.listener_count} for each of {len(check.embedders)} measures)"
        if config.design.comparison != "separate":
            per = f" (each hears clips selected by {listing(check.embedders)})"
    points = [
        f"The study needs {counted(check.listeners, 'person', 'people')} who finish{per}, and ends automatically when "
        "all places are filled. People who do not finish or do not pass the listening check are in addition to these.",
        f"The pages are in {languages}.",
        _once(config),
        "The consent text states the minimum age. The software does not verify it.",
        "No special group is targeted. Participants are asked only the questions above, so nothing about health, "
        "origin or beliefs unless a question there does so.",
    ]
    return Section("Participants", [Points(points)])
