"""An attacker who collects every byte that listeners get and learns to tell the more similar side from it.

What it sees of a trial: the page's source, the address, size, headers (with their order) and time of each sound's
reply, and of the sound the bytes before the audio, but for where this begins: whoever reads so far has the sound and
can see how well it compresses. It compares A with B and each with X, and looks at the page
alone; every number that comes of it is a feature of a logistic regression, trained on one half of the listeners and
tried on the other. It hears nothing: the audio frames are left out, because whoever listens can of course tell.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binom
from study.stimuli.flac import INFO_END
from werkzeug.test import TestResponse

from server.assignments.trials import SLOTS
from tests.server.conftest import Walker

HASHED = 32  # features that words and headers are hashed into
Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sound:
    """A sound's reply but for its audio."""

    address: str
    status: int
    headers: tuple[tuple[str, str], ...]
    size: int
    before_audio: bytes
    seconds: float


@dataclass(frozen=True)
class Evidence:
    """What a listener got in one trial, and the answer that the attacker is after."""

    listener: int
    position: int
    page: str
    headers: tuple[tuple[str, str], ...]
    sounds: dict[str, Sound]
    high_side: str


def collect(walker: Walker, listener: int, high_side: str) -> Evidence:
    """Fetch the sounds of the trial that is shown, in a random order as the page does."""
    assert walker.page is not None
    order = np.random.default_rng().permutation(list(SLOTS))
    sounds = {str(slot): _fetch(walker, str(slot)) for slot in order}
    position = int(walker.find(r'data-position="(\d+)"'))
    return Evidence(listener, position, walker.html, tuple(walker.page.headers), sounds, high_side)


def _fetch(walker: Walker, slot: str) -> Sound:
    address, began = walker.sound(slot), time.perf_counter()
    reply: TestResponse = walker.client.get(address)
    seconds, data = time.perf_counter() - began, reply.data
    return Sound(address, reply.status_code, tuple(reply.headers), len(data), data[:INFO_END], seconds)


# ------------------------------------------------------------------ features


def features(evidence: Evidence) -> Features:
    """Numbers that are positive, by and large, where A and negative where B stands out, and numbers of the page."""
    x, a, b = (_numbers(evidence.sounds[slot]) for slot in SLOTS)
    words = [_words(evidence.sounds[slot]) for slot in SLOTS]
    alike = [float(one == words[0][name]) - float(words[2].get(name) == words[0][name])
             for name, one in sorted(words[1].items()) if name in words[0]]  # fmt: skip
    alike = (alike + [0.0] * HASHED)[:HASHED]
    # Random addresses are looked at letter by letter above; here they would only drown the words.
    words_of_page = re.findall(r"[\w-]+|[^\w\s]", re.sub(r"[\w-]{40,}", "address", evidence.page))
    page = _bag(words_of_page) + _bag(map(str, evidence.headers))
    spot = [evidence.position % 2, evidence.listener % 2, len(evidence.page), evidence.page.count(" ")]
    places = [evidence.page.find(evidence.sounds[slot].address) for slot in SLOTS]
    order = np.sign([places[1] - places[2], places[0] - places[1], places[0] - places[2]])
    return np.concatenate([a - b, abs(x - a) - abs(x - b), alike, page, spot, order])


def _numbers(sound: Sound) -> Features:
    """Everything of a sound that is a number, or can be made one."""
    name = sound.address.rpartition("/")[2]
    letters = [float(ord(letter)) for letter in name[:8].ljust(8)]
    shape = [len(name), sum(map(ord, name)), sum(map(str.isupper, name)), sum(map(str.isdigit, name))]
    head = list(sound.before_audio[:64].ljust(64, b"\0"))
    # Coarsely: in steps of a factor of two.
    wait = round(np.log2(max(sound.seconds, 1e-4)))
    headers = _bag(map(str, sound.headers))
    whole = [sound.size, len(sound.before_audio), sum(sound.before_audio), sound.status, len(str(sound.headers)), wait]
    return np.array([*letters, *shape, *head, *whole, *headers], float)


def _words(sound: Sound) -> dict[str, str]:
    """Everything of a sound that may be equal to that of another."""
    told = {f"{name} {number}": value for number, (name, value) in enumerate(sound.headers)}
    before = {"before": hashlib.sha256(sound.before_audio).hexdigest(), "size": str(sound.size)}
    return told | before | {f"letter {i}": letter for i, letter in enumerate(sound.address.rpartition("/")[2][:8])}


def _bag(words: Sequence[str] | object) -> list[float]:
    """How often words come, hashed into a fixed number of counts."""
    counts = [0.0] * HASHED
    for word in words:  # type: ignore[attr-defined]
        counts[zlib.crc32(word.encode()) % HASHED] += 1
    return counts


# ------------------------------------------------------------------ learning


@dataclass(frozen=True)
class Verdict:
    """How often the attacker was right on listeners that it had not seen."""

    right: int
    trials: int

    @property
    def chance(self) -> float:
        """The probability to be so far from half by guessing alone (binomial, two-sided)."""
        far = max(self.right, self.trials - self.right)
        return float(min(1.0, 2 * binom.sf(far - 1, self.trials, 0.5)))


def attack(seen: Sequence[Evidence]) -> Verdict:
    """Learn from listeners with an even number halved by two, guess the others'."""
    table = np.array([features(one) for one in seen])
    high = np.array([one.high_side == "A" for one in seen])
    learn = np.array([one.listener // 2 % 2 == 0 for one in seen])
    scale = table[learn].std(axis=0)
    kept = scale > 0
    z = (table[:, kept] - table[learn][:, kept].mean(axis=0)) / scale[kept]
    weights = _logistic(z[learn], high[learn])
    guesses = (z[~learn] @ weights[1:] + weights[0]) > 0
    return Verdict(int((guesses == high[~learn]).sum()), int((~learn).sum()))


def _logistic(z: Features, y: npt.NDArray[np.bool_], penalty: float = 3.0) -> Features:
    """Logistic regression with a ridge, by Newton's method."""
    design = np.column_stack([np.ones(len(z)), z])
    ridge = penalty * np.eye(design.shape[1])
    weights = np.zeros(design.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (p - y) + ridge @ weights
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if abs(step).max() < 1e-6:
            break
    return weights


def plant(evidence: Evidence, leak: str) -> Evidence:
    """The same evidence with a leak in it: how an attack that finds nothing is known to be able to."""
    high = evidence.sounds[evidence.high_side]
    changed = {
        "one byte more": replace(high, size=high.size + 1),
        "a header": replace(high, headers=(*high.headers, ("X-Kind", "h"))),
        "an address": replace(
            high, address=high.address.rpartition("/")[0] + "/0" + high.address.rpartition("/")[2][1:]
        ),
        "a date as X has": replace(high, headers=(*high.headers, ("Last-Modified", "Monday"))),
        "four times as slow": replace(high, seconds=4 * high.seconds),
    }
    if leak in changed:
        return replace(evidence, sounds={**evidence.sounds, evidence.high_side: changed[leak]})
    assert leak == "a word in the page"
    return replace(evidence, page=evidence.page + f" data-side-{evidence.high_side}")
