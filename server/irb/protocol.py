"""Protocol: what the study is for, what a participant does, who takes part, and what becomes of the answers."""

from __future__ import annotations

from server.irb.blocks import Block, BlockTable, Heading, Points, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import count, listing, minutes
from study.config import StudyConfig
from study.languages import LANGUAGES
from study.preregistration.exclusion_rules import plan_of
from study.prescreen.registry import STEPS
from study.prescreen.steps import step_config
from study.questions.base import BaseQuestion


def protocol(facts: PacketContext) -> Section:
    """Purpose, procedure, trials, questions, analysis."""
    config, check = facts.config, facts.check
    blocks: list[Block] = [Heading("Purpose"), Text(_purpose(config))]
    if facts.hypotheses:
        blocks += [Text("The researchers' hypotheses, as they wrote them:"), Text(facts.hypotheses)]
    blocks += [
        Heading("What a participant does"),
        Points(_procedure(facts), ordered=True),
        Text(
            f"A run is expected to take {minutes(check.minutes)}; its clips alone last {facts.clips} seconds, each "
            "heard once. There is one visit and no follow-up."
        ),
        Heading("The trials"),
        Text(
            f"In each trial a participant hears three excerpts of music of {config.corpus.clip_seconds:g} seconds: X, "
            "A and B, each as often as they like, and chooses which of A and B is more similar to X. There is no "
            "right answer. An answer can be given once all three were heard to the end."
        ),
        Text(_clips(config)),
        Text(_not_told(config)),
    ]
    if config.questions:
        blocks += [Heading("Questions after the trials"), _questions(config)]
    blocks += [Heading("What counts and how it is analysed"), *_analysis(facts)]
    return Section("Protocol", blocks)


def _purpose(config: StudyConfig) -> str:
    measures = listing(config.embedding.embedders)
    return (
        "The study asks whether a computer's measure of musical similarity agrees with what people hear. Pairs of "
        "clips are chosen by how similar the measure "
        f"({measures}) says they are to a third; participants say which of the two is more similar; how often the two "
        "agree is the result. It follows the listening test of Barnett, Flores García and Pardo, “Exploring Musical "
        "Roots” (2024)."
    )


def _procedure(facts: PacketContext) -> list[str]:
    config, design = facts.config, facts.config.design
    steps = ["Reads the information and consents by pressing “I agree and want to start”. Nothing is stored before."]
    steps += [_check(kind, config) for kind in config.prescreen.steps]
    volume = "" if "volume" in config.prescreen.steps else ", and sets the volume with a soft sound"
    steps.append(f"Reads the instructions{volume}.")
    extra = [f"{design.catch_trials} to check attention"] if design.catch_trials else []
    extra += [f"{design.repeat_trials} asked a second time"] if design.repeat_trials else []
    among = f" ({', '.join(extra)} among them)" if extra else ""
    sure = ", and says how sure they are (1 to 5)" if config.player.confidence else ""
    steps.append(f"Answers {count(facts.trials, 'trial')}{among}{sure}.")
    if config.questions:
        steps.append(f"Answers {count(len(config.questions), 'question')}.")
    steps.append("Is thanked, told what the study is about, and given a completion code.")
    return steps


def _check(kind: str, config: StudyConfig) -> str:
    own = step_config(config, kind)
    if not STEPS[kind].graded:
        return f"Before the trials: {STEPS[kind].summary}"
    passed = "all" if own.needed == own.items else str(own.needed)
    tries = f"{count(own.attempts, 'attempt')}, each with new sounds"
    fails = "Who does not pass ends here and is paid." if own.required else "The outcome is noted; everybody goes on."
    if own.required and not config.pay.screened_out_usd:
        fails = "Who does not pass ends here."
    return f"Listening check: {STEPS[kind].summary} {count(own.items, 'sound')}, {passed} to be right, {tries}. {fails}"


def _clips(config: StudyConfig) -> str:
    stimuli = config.stimuli
    return (
        "The clips are excerpts of the researchers' collection of music, all brought to the same loudness "
        f"({stimuli.loudness_lufs:g} LUFS, true peak at most {stimuli.true_peak_dbtp:g} dBTP), with fades of "
        f"{stimuli.fade_ms:g} ms. What they sound like is not known to the software: whether any has words or sounds "
        "that may distress is for the researchers to say."
    )


def _not_told(config: StudyConfig) -> str:
    if not config.design.catch_trials and not config.design.repeat_trials:
        return "There is no deception: nothing untrue is told, and what the study compares is told at the end."
    kinds = ["in some trials one of the two clips is X itself"] if config.design.catch_trials else []
    kinds += ["some trials are asked twice"] if config.design.repeat_trials else []
    return f"Nothing untrue is told. Not announced beforehand: {listing(kinds)}, to see whether answers are reliable."


def _questions(config: StudyConfig) -> BlockTable:
    rows = [[one.text, _answer(one), "yes" if one.required else "no"] for one in config.questions]
    return BlockTable("Questions, in their order", ("Question", "Answer", "Required"), rows)


def _answer(question: BaseQuestion) -> str:
    kind = question.description or question.type
    offered = ", ".join(question.offered)
    return f"{kind}: {offered}" if offered else kind


def _analysis(facts: PacketContext) -> list[Block]:
    rules = plan_of(facts.config).as_data()["rules"]
    left = list(rules.values())
    frozen = facts.frozen
    registered = (
        f"The plan was frozen on {frozen.frozen_at:%Y-%m-%d} (hash {frozen.hash[:16]})"
        + ("." if frozen.intact else "; the file was edited since.")
        if frozen is not None
        else "No plan of analysis has been frozen yet (rootnote study freeze)."
    )
    agree = (
        "For each pair of similarity bins the number of answers that agree with the measure is tested against chance "
    )
    return [
        Text(agree + f"(exact binomial test). {registered}"),
        *([Text("Answers do not count where:"), Points(left)] if left else [Text("Every answer counts.")]),
        Text(
            "The researchers' desk shows no result while the study runs; who asks for it earlier gives a reason, which "
            "is logged."
        ),
    ]


def _once(config: StudyConfig) -> str:
    known = "Each person takes part once: who came before is recognised by a keyed hash of their id"
    if config.recruiter.has_arrivals:
        return f"{known} at the marketplace."
    return f"{known} in the link, where each is sent a link of their own; an open link cannot tell two people apart."


def participants(facts: PacketContext) -> Section:
    """Who takes part, how many, and who may not."""
    config, check = facts.config, facts.check
    languages = listing([LANGUAGES[code].english for code in config.study.languages])
    per = f" ({config.design.listener_count} for each of {len(check.embedders)} measures)" * (len(check.embedders) > 1)
    points = [
        f"{check.listeners} people finish the study{per}; the places are counted, and the study ends by itself when "
        "all are filled. Those who do not finish or do not pass the listening check come on top.",
        f"The pages are in {languages}.",
        _once(config),
        "The age that is asked for is the one in the consent text. The software does not verify it.",
        "No cohort is targeted: nothing is asked of health, origin or belief unless a question above does.",
    ]
    return Section("Participants", [Points(points)])
