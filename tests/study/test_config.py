"""study.toml: which settings are refused, and with which messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from embeddings.errors import RootnoteError
from study.config import load_study

GOOD = '[study]\nname = "T"\n[corpus]\naudio = "music"\n'


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD))
    assert (study.config.design.listener_count, study.config.design.scored_trials) == (90, 10)
    assert (study.config.corpus.clip_seconds, study.config.corpus.hop_seconds) == (3.0, 3.0)
    assert study.config.bins.half_width == 0.02
    assert study.config.pay.reward == 1.50
    assert study.audio == tmp_path / "music"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[study]\nname = 'T'\nsede = 1\n[corpus]\naudio = 'm'",
            "unknown key 'study.sede'; did you mean 'seed'",
        ),
        (GOOD + "[desing]\nkind = 'paper'", "unknown key 'desing'; did you mean 'design'"),
        (GOOD + "[bins]\nhalf_widht = 0.1", "did you mean 'half_width'"),
        (GOOD + "[[questions]]\nid='a'\ntype='text'\ntextt='x'", "did you mean 'text'"),
        (GOOD + "[design]\nkind = 'papr'", "design.kind"),
        (GOOD + "[bins]\nneighbours = 3", "bins.neighbours"),
        (GOOD + "[corpus2", "not valid TOML"),
        ("[study]\nname = 'T'\n", "'corpus' is missing"),
        ("[study]\n[corpus]\naudio='m'", "'study.name' is missing"),
        (GOOD + "[pay]\nreward = -1", "pay.reward"),
        (GOOD + "[pay]\nreward = 1.505", "1.505 is not a whole number of cents"),
        (GOOD + "[prescreen]\nmin_tones = 8\nmax_tones = 8", "max_tones must be above min_tones"),
        (GOOD + "[embedding]\nembedders = ['a', 'a']", "distinct"),
        (GOOD + "[[questions]]\nid='a'\ntype='single'\ntext='x'", "at least two options"),
        (GOOD + "[embedding.clap]\nchekpoint = 'x.pt'", "'embedding.clap.chekpoint'; did you mean 'checkpoint'"),
        (GOOD + "[embedding.clap]", "'embedding.clap.checkpoint' is missing"),
        (GOOD + "[embedding.clmr]\ncheckpoint = 'x'\nwindows = 'last'", "embedding.clmr.windows"),
        (GOOD + "[embedding.musicnn]\ncheckpoint = 'x'\nwindows = 'mean'", "'embedding.musicnn.windows'"),
        (GOOD + "[embedding]\ndtype = 'float8'", "embedding.dtype"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RootnoteError) as caught:
        load_study(write(tmp_path, text))
    message = str(caught.value)
    assert words in message
    assert "study.toml" in message
    assert "\n" not in message


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(RootnoteError, match="rootnote study init"):
        load_study(tmp_path)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RootnoteError, match="not valid TOML"):
        load_study(tmp_path)
