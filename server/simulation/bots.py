"""Simulated listeners: they take the study over HTTP as people do, and answer by a psychometric function.

A listener knows what a person knows: pages and sounds. It answers the prescreen by what reaches its `Ears`, and
recognises the clips of a trial by the SHA-256 of what it downloaded, against build/stimuli. What it would answer
comes from a `Mind`; what it does besides (fails, leaves, vanishes, reloads, clicks twice) from its `Habits`.
Conventions: listener `index` of `seed` has two streams of its own, one for answers and one for habits, so its n-th
answer depends on the trial and (seed, index, n) alone. Who hears which TrialList depends on who comes first;
with one listener at a time the whole rehearsal is reproducible.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile

from server.simulation.hearing import ANSWERS, HEADPHONES, LOUDSPEAKERS
from server.simulation.page_parser import ParsedForm, ParsedPage, read_page
from study.config import RehearsalConfig
from study.design.simulated_listener import p_agree
from study.prescreen.item import INTERVALS
from study.trial_plan import Plan
from study.trials import PlannedTrial

Outcome = Literal["finished", "screened_out", "withdrawn", "vanished", "expired", "full", "complete", "taken"]
TIMEOUT = 60.0
MAX_PAGES = 2000  # a study has far fewer; more means that the listener walks in circles


class BotError(Exception):
    """The web study did not do what a listener may expect of it; the message says at which step."""


class _GoneError(BotError):
    """A sound is not there (any more)."""


@dataclass(frozen=True)
class ResponseModel:
    """How answers come about: from the difference in similarity, or from `true_rates` by bin pair ("1-2" -> p)."""

    config: RehearsalConfig
    true_rates: Mapping[str, float] = field(default_factory=dict)

    def p_agree(self, trial: PlannedTrial) -> float:
        """The probability that the clip of the more similar bin is chosen."""
        rate = self.true_rates.get(f"{trial.bin_high}-{trial.bin_low}")
        if rate is not None and trial.kind != "catch":
            return rate
        return p_agree(trial.similarity_high - trial.similarity_low, self.config)

    def agrees(self, trial: PlannedTrial, rng: np.random.Generator) -> bool:
        """Draw one answer; takes exactly one number from `rng`."""
        return bool(rng.random() < self.p_agree(trial))


def answer_stream(seed: int, index: int) -> np.random.Generator:
    """The stream that a listener's answers are drawn from, one number each."""
    return np.random.default_rng([seed, index, 1])


@dataclass(frozen=True)
class BehaviourProfile:
    """What a listener does besides answering: drawn once, before it comes in."""

    fails_prescreen: bool
    gives_up_at: int | None  # position of the trial it does not answer
    says_goodbye: bool  # leaves by the button; else just vanishes
    reload: float
    double_submit: float
    loudspeakers: bool = False


def draw_profile(rng: np.random.Generator, config: RehearsalConfig, trials: int) -> BehaviourProfile:
    """Draw what a listener will do, by the rates of study.toml's [rehearsal]."""
    gives_up = int(rng.integers(1, trials, endpoint=True)) if rng.random() < config.abandon else None
    fails, goodbye = rng.random() < config.fail_prescreen, rng.random() < 0.5
    # Nothing is drawn where all have headphones, so that older rehearsals stay as they were.
    loud = config.loudspeakers > 0 and rng.random() < config.loudspeakers
    return BehaviourProfile(bool(fails), gives_up, bool(goodbye), config.reload, config.double_submit, bool(loud))


@functools.cache
def _tls() -> ssl.SSLContext:
    # One for all: making it reads every root certificate anew, which takes longer than many pages.
    return httpx.create_ssl_context()


class StimulusLookup:
    """What the rehearsal knows of the study's sounds: which trials a position and three clips may be."""

    def __init__(self, plan: Plan) -> None:
        self._keys = {stimulus.sha256: key for key, stimulus in plan.stimuli.items()}
        self._trials: dict[tuple[int, str, str, str], list[PlannedTrial]] = {}
        for trials in plan.lists.values():
            for trial in trials:
                self._trials.setdefault(_as_heard(trial), []).append(trial)
        self.trials_per_list = max(len(trials) for trials in plan.lists.values())

    def recognise(self, position: int, sounds: Mapping[str, bytes]) -> list[PlannedTrial]:
        """The trials, one or more TrialLists', that sound so (slot X, A, B -> audio) at this position.

        Raises:
            WalkError: where a sound or their combination is none of the study's.
        """
        keys = [self._keys.get(hashlib.sha256(sounds[slot]).hexdigest()) for slot in ("X", "A", "B")]
        x, a, b = keys
        if x is None or a is None or b is None:
            raise BotError("a trial's sounds are none of build/stimuli")
        if (position, x, a, b) not in self._trials:
            raise BotError("a trial's three sounds are in no TrialList at this position")
        return self._trials[position, x, a, b]


def _as_heard(trial: PlannedTrial) -> tuple[int, str, str, str]:
    """A trial as a listener meets it: its position and the stimuli in slots X, A and B."""
    high, low = trial.stimulus_key("high"), trial.stimulus_key("low")
    a, b = (high, low) if trial.high_side == "A" else (low, high)
    return trial.position, trial.stimulus_key("x"), a, b


def _seconds(data: bytes) -> float:
    return float(soundfile.info(io.BytesIO(data)).duration)


@dataclass
class BotSession:
    """One listener's way through the study: what came of it and what was done on the way."""

    index: int
    outcome: Outcome = "vanished"
    answered: int = 0
    agreed: int = 0
    reloads: int = 0
    double_submits: int = 0


class SimulatedListener:
    """One listener with a browser of its own; `take` walks the study from the consent page to the end."""

    def __init__(
        self, url: str, index: int, seed: int, memory: StimulusLookup, mind: ResponseModel, take: str = ""
    ) -> None:
        """`take`: the whole address to begin at, where it is not just the server's /take."""
        self._take = take or url.rstrip("/") + "/take"
        self._memory, self._mind = memory, mind
        self._answers = answer_stream(seed, index)
        self._rng = np.random.default_rng([seed, index, 0])
        self._habits = draw_profile(self._rng, mind.config, memory.trials_per_list)
        self._ears = LOUDSPEAKERS if self._habits.loudspeakers else HEADPHONES
        self._lists: set[int] | None = None  # those that sound like what was heard so far
        self.walk = BotSession(index)
        self.page = ParsedPage()  # the last that was seen

    def take(self) -> BotSession:
        """Take the study.

        Raises:
            WalkError: where the study did not behave.
            httpx.HTTPError: where the server could not be reached.
        """
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, verify=_tls()) as client:
            self._client = client
            page = self._open(self._take)
            for _ in range(MAX_PAGES):
                if self._ends(page):
                    return self.walk
                page = self._do_or_look_again(page)
        raise BotError(f"listener {self.walk.index} walks in circles at '{page.step}'")

    def _ends(self, page: ParsedPage) -> bool:
        ends: dict[str, Outcome] = {
            "done": "finished",
            "screened_out": "screened_out",
            "withdrawn": "withdrawn",
            "expired": "expired",
            "full": "full",
            "taken": "taken",
        }
        if page.step not in ends:
            gives_up = page.step == "trial" and page.position == self._habits.gives_up_at
            return gives_up and not self._habits.says_goodbye
        self.walk.outcome = ends[page.step]
        if page.step == "full":
            self.walk.outcome = "complete" if "data-complete" in page.attributes else "full"
        elif page.step != "taken" and not page.code:
            raise BotError(f"the page '{page.step}' shows no completion code")
        return True

    def _do_or_look_again(self, page: ParsedPage) -> ParsedPage:
        """Do what a page asks; where its sounds are gone because the place was, see the page that says so."""
        try:
            return self._do(page)
        except _GoneError:
            again = self._open(self._address)
            if again.step == page.step:
                raise
            return again

    def _do(self, page: ParsedPage) -> ParsedPage:
        """Do what a page asks, and give the page that follows."""
        steps = {
            "consent": self._consent,
            "prescreen": self._screen,
            "instructions": self._set_volume,
            "trial": self._compare,
            "questions": self._reply,
        }
        if page.step not in steps:
            raise BotError(f"an unexpected page: '{page.step}'")
        if page.step != "consent" and self._rng.random() < self._habits.reload:
            page = self._reload(page)
        return steps[page.step](page)

    def _reload(self, page: ParsedPage) -> ParsedPage:
        again = self._open(self._address)
        self.walk.reloads += 1
        if (again.step, again.position, again.sounds) != (page.step, page.position, page.sounds):
            raise BotError(f"reloading '{page.step}' {page.position} led to '{again.step}' {again.position}")
        return again

    def _consent(self, page: ParsedPage) -> ParsedPage:
        return self._send(page.form("/take"))

    def _screen(self, page: ParsedPage) -> ParsedPage:
        """Answer by what is heard; somebody who is to fail answers beside it."""
        kind, form = page.attributes.get("data-kind", ""), page.form("/prescreen")
        [address] = page.sounds.values()
        answer = ANSWERS[kind](self._fetch(address), self._ears, self._rng)
        if kind == "volume":
            return self._send(form)
        wrong = self._habits.fails_prescreen
        if kind == "tones":
            form.fields["count"] = str(answer + wrong)
        else:
            form.fields["interval"] = str(answer % INTERVALS + 1 if wrong else answer)
        return self._send(form)

    def _set_volume(self, page: ParsedPage) -> ParsedPage:
        if "volume" in page.sounds:
            self._fetch(page.sounds["volume"])
        return self._send(page.form("/instructions"))

    def _compare(self, page: ParsedPage) -> ParsedPage:
        if page.position == self._habits.gives_up_at:
            return self._leave(page)
        slots = [("X", "A", "B")[i] for i in self._rng.permutation(3)]
        sounds = {slot: self._fetch(page.sounds[slot]) for slot in slots}
        trial = self._recognise(page.position, sounds)
        agrees = self._mind.agrees(trial, self._answers)
        form = page.form("/trial")
        form.fields["choice"] = trial.high_side if agrees else "AB".replace(trial.high_side, "")
        form.fields |= self._hear(slots, sounds)
        for name, values in form.choices.items():
            if name != "choice":
                form.fields[name] = str(self._rng.choice(values))
        following = self._send(form)
        self.walk.answered += 1
        self.walk.agreed += agrees
        return following

    def _hear(self, slots: list[str], sounds: Mapping[str, bytes]) -> dict[str, str]:
        """What a browser would tell of hearing each clip to its end, some of them once more, and then thinking."""
        again = [slot for slot in slots if self._rng.random() < 0.3]
        order = [*slots, *again]
        seconds = {slot: order.count(slot) * _seconds(sounds[slot]) for slot in slots}
        told = {"play_order": "".join(order), "focus_losses": str(int(self._rng.random() < 0.1))}
        for slot in slots:
            told[f"plays_{slot.lower()}"] = str(order.count(slot))
            told[f"seconds_{slot.lower()}"] = f"{seconds[slot]:.3f}"
        thinking = float(self._rng.lognormal(1.2, 0.6))
        return told | {"response_ms": str(round(1000 * (sum(seconds.values()) + thinking)))}

    def _recognise(self, position: int, sounds: Mapping[str, bytes]) -> PlannedTrial:
        """The trial; one list's trials are all of one embedder, so what was heard before tells twins apart."""
        trials = self._memory.recognise(position, sounds)
        possible = [trial for trial in trials if self._lists is None or trial.list in self._lists]
        if not possible:
            raise BotError(f"trial {position} is of another TrialList than those before it")
        self._lists = {trial.list for trial in possible}
        return possible[0]

    def _reply(self, page: ParsedPage) -> ParsedPage:
        form = page.form("/questions")
        for name in form.fields:
            speaks = self._rng.random() < 0.2 or name in form.required
            form.fields[name] = "A simulated listener's remark." if speaks else ""
        for name, (least, most) in form.numbers.items():
            form.fields[name] = str(self._rng.integers(math.ceil(least), math.floor(most), endpoint=True))
        for name, values in form.choices.items():
            chosen = self._rng.permutation(values)[: form.several.get(name, 1)]
            form.fields[name] = chosen.tolist() if name in form.several else str(chosen[0])
        return self._send(form)

    def _leave(self, page: ParsedPage) -> ParsedPage:
        confirm = self._send(page.form("/leave"), twice=False)
        return self._send(confirm.form("/leave"), twice=False)

    # ------------------------------------------------------------------ the browser

    def _open(self, address: str) -> ParsedPage:
        return self._read(self._client.get(address))

    def _fetch(self, address: str) -> bytes:
        response = self._client.get(self._join(address))
        if response.status_code == 404:
            raise _GoneError("a sound that is due is not there")
        if response.status_code != 200:
            raise BotError(f"a sound answered with status {response.status_code}")
        return response.content

    def _send(self, form: ParsedForm, twice: bool = True) -> ParsedPage:
        """Send a form; now and then twice at once, as a double click does."""
        address = self._join(form.action)
        if not twice or self._rng.random() >= self._habits.double_submit:
            return self._read(self._client.post(address, data=form.fields))
        self.walk.double_submits += 1
        with ThreadPoolExecutor(2) as clicks:
            both = list(clicks.map(lambda _: self._client.post(address, data=form.fields), range(2)))
        pages = [self._read(response) for response in both]
        if "/a/" in str(both[0].url) and both[0].url != both[1].url:
            raise BotError(f"a double click on '{pages[0].step}' led to two addresses")
        return pages[0]

    def _read(self, response: httpx.Response) -> ParsedPage:
        page = read_page(response.text)
        if response.status_code != 200:
            raise BotError(f"the page '{page.step}' answered with status {response.status_code}")
        self._address, self.page = str(response.url), page
        return page

    def _join(self, address: str) -> str:
        joined = httpx.URL(self._take).join(address)
        if urlsplit(str(joined)).netloc != urlsplit(self._take).netloc:
            raise BotError(f"a page asks for another host: {joined}")
        return str(joined)
