"""Simulated listeners: they take the study over HTTP as people do, and answer by a psychometric function.

A listener gets what a person gets: pages and sounds. It answers the prescreen by what it hears (`Hearing`), and
recognises the clips of a trial by the SHA-256 of what it downloaded, against build/stimuli. A `ResponseModel` decides
its answers to trials; a `BehaviourProfile` decides whether it fails, leaves, vanishes, reloads or clicks twice.
It does not wait: it states how long it listened, which a rehearsal server adds to its own clock
(server.assignments.rehearsal_clock).
Conventions: listener `index` of `seed` has two random streams, one for answers and one for behaviour, so its n-th
answer depends only on the trial and (seed, index, n). Which listener gets which TrialList depends on who comes first;
with one listener at a time the whole rehearsal is reproducible.
"""

from __future__ import annotations

import functools
import hashlib
import io
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile

from server.assignments.rehearsal_clock import HEADER
from server.simulation.hearing import HEADPHONES, LOUDSPEAKERS, answer_by_ear
from server.simulation.page_parser import ParsedForm, ParsedPage, read_page
from study.config_sections import RehearsalConfig
from study.design.simulated_listener import p_agree
from study.prescreen.registry import STEPS
from study.questions.base import BaseQuestion
from study.trial_plan import Plan
from study.trials import PlannedTrial

Outcome = Literal["finished", "screened_out", "withdrawn", "vanished", "expired", "full", "complete", "taken"]
TIMEOUT = 60.0
TRY_AGAIN_SECONDS = 0.5
FIELD_PREFIX = "q_"  # of the fields of questions
MAX_PAGES = 2000  # a study has far fewer; more means that the same pages come again and again


class BotError(Exception):
    """The web study did not behave as expected; the message names the step."""


class _MissingSoundError(BotError):
    """A sound is not available (any more)."""


@dataclass(frozen=True)
class ResponseModel:
    """How trials are answered: by the difference in similarity, or by `true_rates` by bin pair ("1-2" -> p)."""

    config: RehearsalConfig
    true_rates: Mapping[str, float] = field(default_factory=dict)

    def p_agree(self, trial: PlannedTrial) -> float:
        """The probability that the clip of the more similar bin is chosen."""
        rate = self.true_rates.get(f"{trial.bin_high}-{trial.bin_low}")
        if rate is not None and trial.kind != "catch":
            return rate
        return p_agree(trial.similarity_high - trial.similarity_low, self.config)

    def agrees(self, trial: PlannedTrial, rng: np.random.Generator) -> bool:
        """Draw one answer; consumes exactly one number from `rng`."""
        return bool(rng.random() < self.p_agree(trial))


def answer_stream(seed: int, index: int) -> np.random.Generator:
    """The random stream of a listener's answers to trials; each takes one number."""
    return np.random.default_rng([seed, index, 1])


@dataclass(frozen=True)
class BehaviourProfile:
    """The behaviour of a listener apart from answering; drawn once, before it arrives."""

    fails_prescreen: bool
    gives_up_at: int | None  # position of the trial that it does not answer
    uses_leave_button: bool  # else it closes the page
    reload: float
    double_submit: float
    loudspeakers: bool = False


def draw_profile(rng: np.random.Generator, config: RehearsalConfig, trials: int) -> BehaviourProfile:
    """Draw what a listener will do, by the rates in [rehearsal] of study.toml."""
    gives_up = int(rng.integers(1, trials, endpoint=True)) if rng.random() < config.abandon else None
    fails, uses_button = rng.random() < config.fail_prescreen, rng.random() < 0.5
    # No number is drawn if all have headphones, so that older rehearsals are reproduced.
    loud = config.loudspeakers > 0 and rng.random() < config.loudspeakers
    return BehaviourProfile(bool(fails), gives_up, bool(uses_button), config.reload, config.double_submit, bool(loud))


@functools.cache
def _tls() -> ssl.SSLContext:
    # Shared: creating one reads every root certificate, which takes longer than many pages.
    return httpx.create_ssl_context()


class StimulusLookup:
    """The study's trials by position and sounds, and its questions by id."""

    def __init__(self, plan: Plan, questions: Sequence[BaseQuestion] = ()) -> None:
        self.questions = {question.id: question for question in questions}
        self._keys = {stimulus.sha256: key for key, stimulus in plan.stimuli.items()}
        self._trials: dict[tuple[int, str, str, str], list[PlannedTrial]] = {}
        for trials in plan.lists.values():
            for trial in trials:
                self._trials.setdefault(_trial_key(trial), []).append(trial)
        self.trials_per_list = max(len(trials) for trials in plan.lists.values())

    def recognise(self, position: int, sounds: Mapping[str, bytes]) -> list[PlannedTrial]:
        """The trials of any TrialList with these sounds (slot X, A, B -> audio) at this position.

        Raises:
            BotError: if a sound or their combination does not belong to the study.
        """
        keys = [self._keys.get(hashlib.sha256(sounds[slot]).hexdigest()) for slot in ("X", "A", "B")]
        x, a, b = keys
        if x is None or a is None or b is None:
            raise BotError("a trial has a sound that is not in build/stimuli")
        if (position, x, a, b) not in self._trials:
            raise BotError("a trial's three sounds are in no TrialList at this position")
        return self._trials[position, x, a, b]


def _trial_key(trial: PlannedTrial) -> tuple[int, str, str, str]:
    """A trial as a listener gets it: its position and the stimuli in slots X, A and B."""
    high, low = trial.stimulus_key("high"), trial.stimulus_key("low")
    a, b = (high, low) if trial.high_side == "A" else (low, high)
    return trial.position, trial.stimulus_key("x"), a, b


def _seconds(data: bytes) -> float:
    return float(soundfile.info(io.BytesIO(data)).duration)


@dataclass
class BotSession:
    """One listener's visit: its outcome, and what was done."""

    index: int
    outcome: Outcome = "vanished"
    answered: int = 0
    agreed: int = 0
    reloads: int = 0
    double_submits: int = 0


class SimulatedListener:
    """One listener with a browser of its own; `take_study` goes from the consent page to the end."""

    def __init__(
        self, url: str, index: int, seed: int, lookup: StimulusLookup, model: ResponseModel, start_url: str = ""
    ) -> None:
        """`start_url`: the first address, if it is not just the server's /take."""
        self._start_url = start_url or url.rstrip("/") + "/take"
        self._lookup, self._model = lookup, model
        self._answers = answer_stream(seed, index)
        self._rng = np.random.default_rng([seed, index, 0])
        self._profile = draw_profile(self._rng, model.config, lookup.trials_per_list)
        self._hearing = LOUDSPEAKERS if self._profile.loudspeakers else HEADPHONES
        self._lists: set[int] | None = None  # the TrialLists that agree with the sounds so far
        self.session = BotSession(index)
        self.page = ParsedPage()  # the latest

    def take_study(self) -> BotSession:
        """Take the study.

        Raises:
            BotError: if the study did not behave.
            httpx.HTTPError: if the server could not be reached.
        """
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, verify=_tls()) as client:
            self._client = client
            page = self._open(self._start_url)
            for _ in range(MAX_PAGES):
                if self._ends(page):
                    return self.session
                page = self._act_or_reload(page)
        raise BotError(f"listener {self.session.index} gets the page '{page.step}' again and again")

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
            gives_up = page.step == "trial" and page.position == self._profile.gives_up_at
            return gives_up and not self._profile.uses_leave_button
        self.session.outcome = ends[page.step]
        if page.step == "full":
            self.session.outcome = "complete" if "data-complete" in page.attributes else "full"
        elif page.step != "taken" and not page.code:
            raise BotError(f"the page '{page.step}' shows no completion code")
        return True

    def _act_or_reload(self, page: ParsedPage) -> ParsedPage:
        """Do what a page asks; if its sounds are gone because the place was given away, load the page that says so."""
        try:
            return self._act(page)
        except _MissingSoundError:
            again = self._open(self._address)
            if again.step == page.step:
                raise
            return again

    def _act(self, page: ParsedPage) -> ParsedPage:
        """Do what a page asks; the page that follows."""
        steps = {
            "consent": self._consent,
            "waiting": self._try_again,
            "prescreen": self._answer_prescreen,
            "instructions": self._set_volume,
            "trial": self._answer_trial,
            "questions": self._answer_questions,
        }
        if page.step not in steps:
            raise BotError(f"an unexpected page: '{page.step}'")
        if page.step not in ("consent", "waiting") and self._rng.random() < self._profile.reload:
            page = self._reload(page)
        return steps[page.step](page)

    def _reload(self, page: ParsedPage) -> ParsedPage:
        again = self._open(self._address)
        self.session.reloads += 1
        if (again.step, again.position, again.sounds) != (page.step, page.position, page.sounds):
            raise BotError(f"reloading '{page.step}' {page.position} led to '{again.step}' {again.position}")
        return again

    def _consent(self, page: ParsedPage) -> ParsedPage:
        return self._send(page.form("/take"))

    def _try_again(self, page: ParsedPage) -> ParsedPage:
        """The marketplace has not listed this worker yet: wait a little and press the button."""
        time.sleep(TRY_AGAIN_SECONDS)
        return self._send(page.form("/take"), twice=False)

    def _answer_prescreen(self, page: ParsedPage) -> ParsedPage:
        """Answer by what is heard; a listener chosen to fail gives another answer."""
        kind, form = page.attributes.get("data-kind", ""), page.form("/prescreen")
        [address] = page.sounds.values()
        if kind not in STEPS:
            raise BotError(f"the page shows a prescreen step '{kind}', which is not installed here")
        sound = self._fetch(address)
        try:
            answer = answer_by_ear(kind, sound, self._hearing, self._rng)
        except NotImplementedError:
            raise BotError(
                f"simulated listeners cannot answer the prescreen step '{kind}'; add a method `simulate` to its class"
            ) from None
        field = STEPS[kind].field
        form.fields[field.name] = str(field.other(answer) if self._profile.fails_prescreen else answer)
        return self._send(form, seconds=_seconds(sound))

    def _set_volume(self, page: ParsedPage) -> ParsedPage:
        if "volume" in page.sounds:
            self._fetch(page.sounds["volume"])
        return self._send(page.form("/instructions"))

    def _answer_trial(self, page: ParsedPage) -> ParsedPage:
        if page.position == self._profile.gives_up_at:
            return self._leave(page)
        slots = [("X", "A", "B")[i] for i in self._rng.permutation(3)]
        sounds = {slot: self._fetch(page.sounds[slot]) for slot in slots}
        trial = self._recognise(page.position, sounds)
        agrees = self._model.agrees(trial, self._answers)
        form = page.form("/trial")
        form.fields["choice"] = trial.high_side if agrees else "AB".replace(trial.high_side, "")
        heard = self._hear(slots, sounds)
        form.fields |= heard
        for name, values in form.choices.items():
            if name != "choice":
                form.fields[name] = str(self._rng.choice(values))
        following = self._send(form, seconds=int(heard["response_ms"]) / 1000)
        self.session.answered += 1
        self.session.agreed += agrees
        return following

    def _hear(self, slots: list[str], sounds: Mapping[str, bytes]) -> dict[str, str]:
        """The telemetry of a browser that plays each clip to its end, some of them twice, then pauses to think."""
        again = [slot for slot in slots if self._rng.random() < 0.3]
        order = [*slots, *again]
        seconds = {slot: order.count(slot) * _seconds(sounds[slot]) for slot in slots}
        fields = {"play_order": "".join(order), "focus_losses": str(int(self._rng.random() < 0.1))}
        for slot in slots:
            fields[f"plays_{slot.lower()}"] = str(order.count(slot))
            fields[f"seconds_{slot.lower()}"] = f"{seconds[slot]:.3f}"
        thinking = float(self._rng.lognormal(1.2, 0.6))
        return fields | {"response_ms": str(round(1000 * (sum(seconds.values()) + thinking)))}

    def _recognise(self, position: int, sounds: Mapping[str, bytes]) -> PlannedTrial:
        """The trial; a list has trials of one embedder only, so the sounds so far decide between equal trials."""
        trials = self._lookup.recognise(position, sounds)
        possible = [trial for trial in trials if self._lists is None or trial.list in self._lists]
        if not possible:
            raise BotError(f"trial {position} belongs to another TrialList than those before it")
        self._lists = {trial.list for trial in possible}
        return possible[0]

    def _answer_questions(self, page: ParsedPage) -> ParsedPage:
        form = page.form("/questions")
        asked = {name for name in form.names if name.startswith(FIELD_PREFIX)}
        for name in sorted(asked):
            question = self._lookup.questions.get(name.removeprefix(FIELD_PREFIX))
            if question is None:
                raise BotError(f"the page has a field '{name}', which is not a question in study.toml")
        for question in self._lookup.questions.values():
            self._answer_question(question, form)
        return self._send(form)

    def _answer_question(self, question: BaseQuestion, form: ParsedForm) -> None:
        name = f"{FIELD_PREFIX}{question.id}"
        if name not in form.names:
            raise BotError(f"the page has no field for the question '{question.id}'")
        try:
            values = question.simulate(self._rng)
        except NotImplementedError:
            raise BotError(
                f"simulated listeners cannot answer a question of type '{question.type}'; add a method `simulate` to "
                "its class"
            ) from None
        if name in form.choices and not set(values) <= set(form.choices[name]):
            raise BotError(f"the page does not offer every answer to the question '{question.id}'")
        form.fields[name] = values

    def _leave(self, page: ParsedPage) -> ParsedPage:
        confirm = self._send(page.form("/leave"), twice=False)
        return self._send(confirm.form("/leave"), twice=False)

    # ------------------------------------------------------------------ the browser

    def _open(self, address: str) -> ParsedPage:
        return self._read(self._client.get(address))

    def _fetch(self, address: str) -> bytes:
        response = self._client.get(self._join(address))
        if response.status_code == 404:
            raise _MissingSoundError("a sound of the page is missing")
        if response.status_code != 200:
            raise BotError(f"a sound has status {response.status_code}")
        return response.content

    def _send(self, form: ParsedForm, twice: bool = True, seconds: float = 0.0) -> ParsedPage:
        """Send a form after `seconds` of simulated time; sometimes twice at the same time, as a double click does."""
        address = self._join(form.action)

        def post(_: int = 0) -> httpx.Response:
            return self._client.post(address, data=form.fields, headers={HEADER: f"{seconds:.3f}"})

        if not twice or self._rng.random() >= self._profile.double_submit:
            return self._read(post())
        self.session.double_submits += 1
        with ThreadPoolExecutor(2) as clicks:
            both = list(clicks.map(post, range(2)))
        pages = [self._read(response) for response in both]
        if "/a/" in str(both[0].url) and both[0].url != both[1].url:
            raise BotError(f"a double click on '{pages[0].step}' led to two addresses")
        return pages[0]

    def _read(self, response: httpx.Response) -> ParsedPage:
        page = read_page(response.text)
        if response.status_code != 200:
            raise BotError(f"the page '{page.step}' has status {response.status_code}")
        self._address, self.page = str(response.url), page
        return page

    def _join(self, address: str) -> str:
        joined = httpx.URL(self._start_url).join(address)
        if urlsplit(str(joined)).netloc != urlsplit(self._start_url).netloc:
            raise BotError(f"a page refers to another host: {joined}")
        return str(joined)
