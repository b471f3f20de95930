"""melspec: a copy is nearest as long as the events keep their times, and is lost when they are shifted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions, embed_clips
from embeddings.models.registry import load_embedder
from tests.embeddings.sounds import melody

RATE = 22_050
LENGTH = 3 * RATE


@pytest.fixture(scope="module")
def corpus():
    """Sixty clips of different melodies, with the embedder and its fitted projection."""
    sounds = np.stack([melody(5, number, RATE) for number in range(60)])
    embedder = load_embedder("melspec")
    clips = sounds[:, :LENGTH]
    projection = embedder.fit(embedder.embed(clips))
    return sounds, embed_clips(embedder, projection, clips), lambda batch: embed_clips(embedder, projection, batch)


CHANGES = {
    "louder": lambda sounds: 3 * sounds[:, :LENGTH],
    "duller": lambda sounds: scipy.signal.lfilter([1], [1, -0.8], sounds[:, :LENGTH]),
    "noisier": lambda sounds: sounds[:, :LENGTH] + 0.003 * np.random.default_rng(0).standard_normal((60, LENGTH)),
    "50 ms late": lambda sounds: sounds[:, RATE // 20 : RATE // 20 + LENGTH],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_nearest(corpus, change):
    sounds, vectors, embed = corpus
    scores = embed(np.asarray(CHANGES[change](sounds), np.float32)) @ vectors.T
    assert (scores.argmax(axis=1) == np.arange(60)).mean() >= (0.9 if "late" in change else 0.98)


def test_a_shift_by_a_second_is_no_copy(corpus):
    sounds, vectors, embed = corpus
    moved = embed(sounds[:, RATE : RATE + LENGTH])
    assert np.median((moved * vectors).sum(axis=1)) < 0.3


def test_silence_and_other_lengths_are_embedded(corpus):
    _, _, embed = corpus
    for clip in (np.zeros((1, LENGTH), np.float32), np.full((1, LENGTH), 0.5, np.float32), melody(2.9, 1, RATE)[None]):
        vector = embed(clip)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", [ModelOptions("x.pt"), ModelOptions(windows="mean"), ModelOptions(backend="torch")])
def test_unsupported_options_are_refused(options):
    with pytest.raises(RootnoteError, match="melspec"):
        load_embedder("melspec", options)
