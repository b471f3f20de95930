"""`rootnote embeddings cut`: whole clips of all usable files in a fixed order, and errors that name bad input."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import rootnote
from embeddings.audio.corpus import CutSettings, corpus_provenance, cut
from embeddings.errors import RootnoteError
from tests.embeddings.sounds import melody, write


def run_cut(audio: Path, out: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(
        rootnote.cli,
        ["embeddings", "cut", str(audio), "--out", str(out), "--json", *options],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_a_folder_tree_becomes_whole_clips_in_order(tmp_path: Path) -> None:
    audio = tmp_path / "music"
    write(audio / "b" / "long.wav", melody(10.5, 1))
    write(audio / "a.mp3", melody(7, 2), tags={"title": "Second", "date": "1999"})
    write(audio / "c.flac", melody(2.9, 3))
    summary = run_cut(audio, tmp_path / "corpus.parquet")
    assert (summary["tracks"], summary["clips"]) == (2, 5)
    assert summary["hours"] == pytest.approx(15 / 3600)
    assert summary["skipped"] == [{"path": "c.flac", "reason": "it is shorter than 3 s"}]
    rows = pq.read_table(tmp_path / "corpus.parquet").to_pylist()
    assert [row["clip"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["track"] for row in rows] == [0, 0, 1, 1, 1]
    assert [row["path"] for row in rows] == ["a.mp3"] * 2 + ["b/long.wav"] * 3
    assert [row["start_s"] for row in rows] == [0, 3, 0, 3, 6]
    assert (rows[0]["title"], rows[0]["year"], rows[2]["title"]) == ("Second", "1999", None)
    again = tmp_path / "again.parquet"
    run_cut(audio, again)
    assert again.read_bytes() == (tmp_path / "corpus.parquet").read_bytes()


def test_silent_clips_are_left_out(tmp_path: Path) -> None:
    music = melody(9)
    music[3 * 44_100 : 6 * 44_100] *= 1e-4
    write(tmp_path / "music" / "piece.wav", music)
    write(tmp_path / "music" / "silence.wav", np.zeros(5 * 44_100, np.float32))
    summary = run_cut(tmp_path / "music", tmp_path / "corpus.parquet")
    assert (summary["clips"], summary["silent_clips"]) == (2, 2)
    assert summary["skipped"] == [{"path": "silence.wav", "reason": "it is silent"}]
    table = pq.read_table(tmp_path / "corpus.parquet")
    assert table["start_s"].to_pylist() == [0, 6]
    rms = 10 * np.log10(np.mean(melody(9)[: 3 * 44_100].astype(float) ** 2))
    assert table["rms_dbfs"][0].as_py() == pytest.approx(rms, abs=0.01)


def test_hop_and_length_are_settings(tmp_path: Path) -> None:
    write(tmp_path / "music" / "piece.wav", melody(5))
    out = tmp_path / "corpus.parquet"
    assert run_cut(tmp_path / "music", out, "--clip-seconds", "2", "--hop-seconds", "1")["clips"] == 4
    assert run_cut(tmp_path / "music", out, "--clip-seconds", "2")["clips"] == 2


def test_bad_files_are_listed_and_the_others_are_cut(tmp_path: Path) -> None:
    audio = tmp_path / "music"
    write(audio / "good.ogg", melody(6.2))
    (audio / "empty.mp3").touch()
    (audio / "text.mp3").write_text("no music\n" * 400)
    whole = write(tmp_path / "whole.flac", melody(30)).read_bytes()
    (audio / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (audio / "corrupt.wav").write_bytes(os.urandom(4000))
    (audio / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    latin = Path(os.fsdecode(os.fsencode(audio) + b"/caf\xe9.wav"))
    write(tmp_path / "cafe.wav", melody(4)).rename(latin)
    summary = run_cut(audio, tmp_path / "corpus.parquet")
    reasons = {one["path"]: one["reason"] for one in summary["skipped"]}
    assert set(reasons) == {"empty.mp3", "text.mp3", "corrupt.wav", "dangling.wav", "caf\\udce9.wav"}
    assert "empty" in reasons["empty.mp3"]
    assert "not an audio file" in reasons["text.mp3"]
    assert "UTF-8" in reasons["caf\\udce9.wav"]
    paths = pq.read_table(tmp_path / "corpus.parquet")["path"].to_pylist()
    assert paths.count("good.ogg") == 2
    # A truncated file is used as far as it goes, and named.
    assert [one["path"] for one in summary["damaged"]] == ["truncated.flac"]
    assert re.fullmatch(r"it ends at 1\d\.\d s of 30\.0 s", summary["damaged"][0]["reason"])
    assert 3 <= paths.count("truncated.flac") <= 5
    words = CliRunner().invoke(rootnote.cli, ["embeddings", "cut", str(audio), "--out", str(tmp_path / "c.parquet")])
    assert "5 files skipped:" in words.stdout
    assert "text.mp3: it is not an audio file" in words.stdout


@pytest.mark.parametrize("files", [{}, {"a.mp3": b""}, {"readme.txt": b"hello"}])
def test_no_clip_is_an_error_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, bytes]
) -> None:
    audio, out = tmp_path / "music", tmp_path / "out" / "corpus.parquet"
    audio.mkdir()
    for name, content in files.items():
        (audio / name).write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        rootnote.main(["embeddings", "cut", str(audio), "--out", str(out)])
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f"rootnote: {audio} ")
    assert not out.parent.exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RootnoteError, match="nowhere is not a directory"):
        cut(tmp_path / "nowhere")


def test_metadata_csv(tmp_path: Path) -> None:
    audio = tmp_path / "music"
    write(audio / "sub" / "a.wav", melody(3))
    write(audio / "b.mp3", melody(3), tags={"title": "Tag"})
    (audio / "metadata.csv").write_text(
        "path,title,artist,licence,mood\nsub/a.wav,Été,Somebody,CC BY 4.0,calm\n", encoding="utf-8-sig"
    )
    run_cut(audio, tmp_path / "corpus.parquet")
    rows = {row["path"]: row for row in pq.read_table(tmp_path / "corpus.parquet").to_pylist()}
    described = rows["sub/a.wav"]
    assert (described["title"], described["licence"], described["year"]) == ("Été", "CC BY 4.0", None)
    assert rows["b.mp3"]["title"] == "Tag"


@pytest.mark.parametrize(
    ("text", "error_message"),
    [
        ("file,title\na.wav,A\n", "no column 'path'"),
        ("path,title\nb.wav,A\n", r"row 2: path 'b\.wav' is not"),
        ("path,title\na.wav,A\na.wav,B\n", r"row 3: path 'a\.wav' occurs twice"),
        ("", "no column 'path'"),
    ],
)
def test_a_wrong_metadata_csv_is_refused(tmp_path: Path, text: str, error_message: str) -> None:
    write(tmp_path / "music" / "a.wav", melody(3))
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(RootnoteError, match=error_message):
        cut(tmp_path / "music", metadata=tmp_path / "data.csv")
    with pytest.raises(RootnoteError, match=r"nothing\.csv cannot be read"):
        cut(tmp_path / "music", metadata=tmp_path / "nothing.csv")


def test_provenance_is_known_without_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody(3))
    settings = CutSettings()
    before = corpus_provenance(tmp_path, settings)
    assert cut(tmp_path, settings).provenance == before
    assert corpus_provenance(tmp_path, CutSettings(hop_seconds=2)).fingerprint != before.fingerprint
    os.utime(path, (0, 0))
    assert corpus_provenance(tmp_path, settings).fingerprint != before.fingerprint
