"""An attacker who collects every byte that listeners get except the samples, and learns to tell the more similar side.

What it sees of a trial: the page's source and headers, and of each sound the address, the time and headers of the
reply (with their order), and the layout of the file (tests.server.participant.file_reader). It compares A with B and
each with X, and looks at the page alone. Every number that results is a feature of a ridge regression, which learns
from other listeners than the one whose trials it guesses.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binom
from werkzeug.test import TestResponse

from server.assignments.trials import SLOTS
from tests.server.conftest import Walker
from tests.server.participant.file_reader import as_flac, layout, outside_samples

HASHED = 32  # features that words and headers are hashed into
FOLDS = 6
Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sound:
    """The reply to a request for a sound."""

    address: str
    status: int
    headers: tuple[tuple[str, str], ...]
    data: bytes
    seconds: float


@dataclass(frozen=True)
class Evidence:
    """What a listener got in one trial, and the answer that the attacker wants."""

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
    return Sound(address, reply.status_code, tuple(reply.headers), reply.data, time.perf_counter() - began)


# ------------------------------------------------------------------ features


def features(evidence: Evidence) -> Features:
    """Numbers that are positive, by and large, where A and negative where B stands out, and numbers of the page."""
    x, a, b = (_numbers(evidence.sounds[slot]) for slot in SLOTS)
    words = [_words(evidence.sounds[slot]) for slot in SLOTS]
    alike = [
        float(words[1].get(name) == words[0][name]) - float(words[2].get(name) == words[0][name])
        for name in sorted(words[0])
    ]
    alike = (alike + [0.0] * HASHED)[:HASHED]
    # Random addresses are looked at letter by letter above; here they would only drown the words.
    words_of_page = re.findall(r"[\w-]+|[^\w\s]", re.sub(r"[\w-]{40,}", "address", evidence.page))
    page = _bag(words_of_page) + _bag(map(str, evidence.headers))
    spot = [evidence.position % 2, evidence.listener % 2, len(evidence.page), evidence.page.count(" ")]
    places = [evidence.page.find(evidence.sounds[slot].address) for slot in SLOTS]
    order = np.sign([places[1] - places[2], places[0] - places[1], places[0] - places[2]])
    nearer = abs(x - a) - abs(x - b)
    return np.concatenate([a - b, nearer, np.sign(nearer), alike, page, spot, order])


def _numbers(sound: Sound) -> Features:
    """Everything of a sound that is a number, or can be made one."""
    name = sound.address.rpartition("/")[2]
    letters = [float(ord(letter)) for letter in name[:8].ljust(8)]
    shape = [len(name), sum(map(ord, name)), sum(map(str.isupper, name)), sum(map(str.isdigit, name))]
    outside = outside_samples(sound.data)
    wait = round(np.log2(max(sound.seconds, 1e-4)))  # coarsely: in steps of a factor of two
    whole = [len(outside), sum(outside), sound.status, len(str(sound.headers)), wait]
    head = list(outside[:64].ljust(64, b"\0"))
    return np.array([*letters, *shape, *head, *layout(sound.data), *whole, *_bag(map(str, sound.headers))], float)


def _words(sound: Sound) -> dict[str, str]:
    """Everything of a sound that may be equal to that of another."""
    told = {f"{name} {number}": value for number, (name, value) in enumerate(sound.headers)}
    outside = {"outside": hashlib.sha256(outside_samples(sound.data)).hexdigest(), "size": str(len(sound.data))}
    return told | outside | {f"letter {i}": letter for i, letter in enumerate(sound.address.rpartition("/")[2][:8])}


def _bag(words: Iterable[str]) -> list[float]:
    """How often words occur, hashed into a fixed number of counts."""
    counts = [0.0] * HASHED
    for word in words:
        counts[zlib.crc32(word.encode()) % HASHED] += 1
    return counts


# ------------------------------------------------------------------ learning


@dataclass(frozen=True)
class Verdict:
    """How often the attacker was right about listeners that it had not learnt from."""

    right: int
    trials: int

    @property
    def chance(self) -> float:
        """The probability to be so far from half by guessing alone (binomial, two-sided)."""
        far = max(self.right, self.trials - self.right)
        return float(min(1.0, 2 * binom.sf(far - 1, self.trials, 0.5)))


def attack(seen: Sequence[Evidence]) -> Verdict:
    """Guess each listener's trials after learning from five sixths of the other listeners."""
    table = np.array([features(one) for one in seen])
    high = np.array([1.0 if one.high_side == "A" else -1.0 for one in seen])
    fold = np.array([one.listener % FOLDS for one in seen])
    right = 0
    for number in range(FOLDS):
        learn = fold != number
        mean, scale = table[learn].mean(axis=0), table[learn].std(axis=0)
        kept = scale > 0
        z, new = (np.clip((table[of][:, kept] - mean[kept]) / scale[kept], -10, 10) for of in (learn, ~learn))
        # Ridge regression in its dual form, because there are more features than trials.
        weights = z.T @ np.linalg.solve(z @ z.T + 30 * np.eye(len(z)), high[learn])
        right += int(np.sum((new @ weights > 0) == (high[~learn] > 0)))
    return Verdict(right, len(seen))


# ------------------------------------------------------------------ planted leaks


def _packed(evidence: Evidence, size: int = 0) -> Evidence:
    sounds = {slot: replace(sound, data=as_flac(sound.data, size)) for slot, sound in evidence.sounds.items()}
    return replace(evidence, sounds=sounds)


def _padded(evidence: Evidence) -> Evidence:
    return _packed(evidence, max(2 * len(sound.data) for sound in evidence.sounds.values()))


def _on_the_high_side(change: Callable[[Sound], Sound]) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, sounds=seen.sounds | {seen.high_side: change(seen.sounds[seen.high_side])})


# The same evidence with a leak: this shows that an attack that finds nothing would find it. Those of the files are what
# earlier versions had.
LEAKS: dict[str, Callable[[Evidence], Evidence]] = {
    "compressed size": _packed,
    "padding to one size": _padded,
    "one byte more": _on_the_high_side(lambda sound: replace(sound, data=sound.data + b"\0")),
    "a header": _on_the_high_side(lambda sound: replace(sound, headers=(*sound.headers, ("X-Kind", "h")))),
    "a date as X has": _on_the_high_side(
        lambda sound: replace(sound, headers=(*sound.headers, ("Last-Modified", "Monday")))
    ),
    "an address": _on_the_high_side(
        lambda sound: replace(sound, address=sound.address.replace("/audio/", "/audio/0")[:-1])
    ),
    "four times as slow": _on_the_high_side(lambda sound: replace(sound, seconds=4 * sound.seconds)),
    "a word in the page": lambda seen: replace(seen, page=f"{seen.page} data-side-{seen.high_side}"),
}
