"""Eligible prompts: spread over tracks, compared by every tag, and a refusal that names the short bin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import DataError
from study.config_sections import BinsConfig, DesignConfig
from study.design.bins import SimilarityBins, find_neighbours
from study.design.eligibility import (
    Prompts,
    compare_eligible,
    prompts_provenance,
    read_prompts,
    spread_over_tracks,
    write_prompts,
)
from study.design.triplets import EmbedderClips, draw_triplets
from tests.study.design.drawing import draw_one
from tests.study.design.test_bin_methods import corpus


@given(st.lists(st.integers(0, 6), max_size=40))
def test_no_track_comes_again_before_every_other_has_come(tracks: list[int]) -> None:
    order = list(spread_over_tracks(range(len(tracks)), np.array(tracks, np.int64)))
    assert sorted(order) == list(range(len(tracks)))
    seen: dict[int, int] = {}
    rounds = []
    for index in order:
        seen[tracks[index]] = seen.get(tracks[index], 0) + 1
        rounds.append(seen[tracks[index]])
    assert rounds == sorted(rounds)


def test_prompts_come_from_distinct_tracks_while_there_are_any() -> None:
    vectors, tracks = corpus(7)
    found = find_neighbours(vectors, BinsConfig(prompts=300, neighbours=100), 7, tracks=tracks)
    bins = SimilarityBins(0.5, 0.15, 0.0, 0.05)
    few = draw_one(vectors, tracks, found, bins, DesignConfig(prompts=10, trials=10), 7).prompts
    assert len(set(few.tracks[few.chosen])) == 10
    assert few.describe().endswith("10 chosen from 10 tracks")
    many = draw_one(vectors, tracks, found, bins, DesignConfig(prompts=60, trials=10), 7).prompts
    uses = np.bincount(many.tracks[many.chosen])
    available = np.bincount(many.tracks[many.eligible], minlength=len(uses))[: len(uses)]
    assert many.chosen.sum() == 60
    assert (uses[available > uses] >= uses.max() - 1).all()  # a track that has more left is used at most one round less
    assert "some several times" in many.describe()


def test_shared_prompts_are_eligible_with_every_embedder() -> None:
    vectors, tracks = corpus(7)
    turned = np.roll(vectors, 1, axis=0)
    bins = SimilarityBins(0.5, 0.15, 0.0, 0.05)
    config = BinsConfig(prompts=300, neighbours=100)
    sources = [
        EmbedderClips(name, own, find_neighbours(own, config, 7, tracks=tracks), bins)
        for name, own in (("one", vectors), ("two", turned))
    ]
    one, two = draw_triplets(sources, tracks, DesignConfig(prompts=20, trials=10, comparison="shared"), 7)
    assert [t.prompt for t in one.triplets] == [t.prompt for t in two.triplets]
    assert [t.triplet for t in (*one.triplets, *two.triplets)] == list(range(240))
    assert [t.clip_high for t in one.triplets] != [t.clip_high for t in two.triplets]
    for drawn in (one, two):
        assert (drawn.prompts.counts[drawn.prompts.chosen] > 0).all()
    with pytest.raises(DataError, match=r"in each bin of every embedder, .*; one: bin \d is short.*; two: bin"):
        draw_triplets(sources, tracks, DesignConfig(prompts=299, trials=10, comparison="shared"), 7)


def test_a_refusal_names_the_bin_that_is_short() -> None:
    vectors, tracks = corpus(8)
    found = find_neighbours(vectors, BinsConfig(prompts=100, neighbours=100), 8, tracks=tracks)
    with pytest.raises(DataError, match=r"bin 1 is short: \d+ prompts? with a clip in it \(bin"):
        draw_one(vectors, tracks, found, SimilarityBins(0.5, 0.245, 0.0, 0.004), DesignConfig(prompts=90), 8)


def test_a_planted_difference_is_found_and_a_file_keeps_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    genre = np.array(["rock", "soul"])[rng.integers(2, size=400)]
    eligible = rng.random(400) < np.where(genre == "rock", 0.6, 0.05)
    prompts = Prompts(
        np.arange(400),
        np.arange(400) // 2,
        np.repeat(eligible[:, None], 3, axis=1).astype(np.int64),
        eligible,
        eligible,
    )
    write_prompts(tmp_path / "p.parquet", prompts, prompts_provenance("one", "f" * 64))
    again = read_prompts(tmp_path / "p.parquet")
    table = pa.table(
        {
            "path": [f"{i}.flac" for i in range(400)],
            "start_s": rng.random(400),
            "rms_dbfs": rng.normal(-20, 3, 400).astype(np.float32),
            "genre": genre,
            "licence": [""] * 400,
        }
    )
    differences = compare_eligible(again, table)
    assert differences[0].tag == "genre"
    assert {one.tag for one in differences if abs(one.difference) > 0.3} == {"genre"}
    rock = next(one for one in differences if one.value == "rock")
    share = (genre == "rock")[eligible].mean(), (genre == "rock")[~eligible].mean()
    expected = (share[0] - share[1]) / np.sqrt((share[0] * (1 - share[0]) + share[1] * (1 - share[1])) / 2)
    assert rock.difference == pytest.approx(expected)
    assert rock.eligible == pytest.approx(eligible[genre == "rock"].mean())
