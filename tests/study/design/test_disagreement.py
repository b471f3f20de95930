"""Triplets that two embedders order differently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embeddings.errors import DataError
from study.config import StudyConfig
from study.config_sections import BinsConfig, CorpusConfig, DesignConfig, EmbeddingConfig, StudyInfo
from study.design.bin_pairs import BIN_PAIRS
from study.design.bins import find_neighbours, fit_bins, random_scores
from study.design.disagreement import draw_disagreements
from study.design.triplets import EmbedderClips
from tests.study.design.test_bin_methods import corpus, unit


def sources(alike: float) -> tuple[list[EmbedderClips], np.ndarray]:
    """Two embedders of the same clips; the second is the first mixed with noise of its own."""
    one, tracks = corpus(11, tracks=60, clips=20)
    other = unit(
        alike * one + (1 - alike) * corpus(12, tracks=60, clips=20)[0][: len(one)].repeat(3, axis=0)[: len(one)]
    )
    config = BinsConfig(prompts=150, neighbours=150, half_width=0.04)
    made = []
    for name, vectors in (("one", one), ("two", other)):
        found = find_neighbours(vectors, config, 3, tracks=tracks)
        bins = fit_bins(found.neighbours.scores, random_scores(vectors, 300, 3, tracks=tracks), 0.04)
        made.append(EmbedderClips(name, vectors, found, bins))
    return made, tracks


def test_the_two_embedders_order_every_triplet_differently() -> None:
    (one, two), tracks = sources(0.3)
    design = DesignConfig(prompts=5, trials=5, comparison="disagreement")
    drawn = draw_disagreements([one, two], tracks, design, 3)
    assert [{t.embedder for t in own.triplets} for own in drawn] == [{"one against two"}, {"two against one"}]
    assert [t.triplet for own in drawn for t in own.triplets] == list(range(60))
    assert drawn[0].prompts.chosen.sum() == 5
    for own, (mine, rival) in zip(drawn, ((one, two), (two, one)), strict=True):
        assert [(t.bin_high, t.bin_low) for t in own.triplets] == list(BIN_PAIRS) * 5
        for t in own.triplets:
            similarity, opposed = (
                [float(source.vectors[t.prompt] @ source.vectors[clip]) for clip in (t.clip_high, t.clip_low)]
                for source in (mine, rival)
            )
            assert similarity[0] > similarity[1]
            assert opposed[1] > opposed[0] + 2 * rival.bins.half_width
            assert similarity == pytest.approx([t.similarity_high, t.similarity_low], abs=1e-6)
            for number, value in zip((t.bin_high, t.bin_low), similarity, strict=True):
                assert abs(value - mine.bins.centres[number]) <= mine.bins.half_width + 1e-6
            assert len({int(tracks[clip]) for clip in (t.prompt, t.clip_high, t.clip_low)}) == 3


def test_embedders_that_agree_are_refused() -> None:
    made, tracks = sources(1.0)
    with pytest.raises(DataError, match=r"only 0 of 150 prompts .* order differently .* \(of [1-9]\d* with"):
        draw_disagreements(made, tracks, DesignConfig(prompts=5, trials=5, comparison="disagreement"), 3)


def test_embedders_that_differ_by_less_than_a_bin_are_refused() -> None:
    (one, two), tracks = sources(0.3)
    wide = replace(two, bins=replace(two.bins, half_width=0.9))
    with pytest.raises(DataError, match=r"only 0 of 150 prompts"):
        draw_disagreements([one, wide], tracks, DesignConfig(prompts=5, trials=5, comparison="disagreement"), 3)


def test_disagreement_needs_two_embedders() -> None:
    with pytest.raises(ValueError, match="compares two embedders, but"):
        StudyConfig(
            study=StudyInfo(name="s"), corpus=CorpusConfig(audio="x"), design=DesignConfig(comparison="disagreement")
        )
    config = StudyConfig(
        study=StudyInfo(name="s"),
        corpus=CorpusConfig(audio="x"),
        embedding=EmbeddingConfig(embedders=["logmel", "melspec"]),
        design=DesignConfig(comparison="disagreement"),
    )
    assert config.compared == ["logmel against melspec", "melspec against logmel"]
