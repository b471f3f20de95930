"""Decoding: every format, exact positions, and files with a wrong or damaged content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.audio.decode import Track, find_audio, read_clip, read_clips, windows
from embeddings.errors import AudioError
from tests.embeddings.sounds import melody, write


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a"])
def test_every_format_decodes_to_the_same_music(tmp_path: Path, suffix: str) -> None:
    rate = 48_000  # opus knows no 44.1 kHz
    music = melody(4, rate=rate)
    path = write(tmp_path / f"piece{suffix}", music, rate)
    with Track(path) as track:
        assert track.sample_rate == rate
        decoded = np.concatenate(list(track.blocks()))
    assert decoded.dtype == np.float32
    assert abs(len(decoded) - len(music)) < 0.1 * rate
    # The coders may delay by some samples: compare magnitude spectra.
    size = min(len(decoded), len(music))
    own, reference = (np.abs(np.fft.rfft(x[:size])) for x in (decoded, music))
    assert np.corrcoef(own, reference)[0, 1] > 0.9


def test_channels_are_averaged_and_24_bit_is_read(tmp_path: Path) -> None:
    import soundfile

    left, right = melody(1, 1), melody(1, 2)
    for subtype, close in (("PCM_16", 1e-4), ("PCM_24", 1e-6), ("FLOAT", 1e-7), ("PCM_U8", 1e-2)):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path, np.stack([left, right], axis=1), 44_100, subtype=subtype)
        with Track(path) as track:
            assert np.abs(np.concatenate(list(track.blocks())) - (left + right) / 2).max() < close


def test_clip_positions_are_exact(tmp_path: Path) -> None:
    music = melody(10)
    path = write(tmp_path / "piece.flac", music)
    clip = read_clip(path, 3.0, 3.0, 44_100)
    assert np.abs(clip - music[3 * 44_100 : 6 * 44_100]).max() < 1e-4
    first, second = read_clips(path, [0.0, 6.0], 3.0, 22_050)
    assert len(first) == len(second) == 66_150
    # Half the rate is every other sample, but at the notes' sharp onsets.
    assert np.quantile(np.abs(second - music[6 * 44_100 : 9 * 44_100 : 2]), 0.99) < 0.01


def test_a_clip_past_the_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "piece.wav", melody(4))
    with pytest.raises(AudioError, match=r"piece\.wav .*ends before 5\.000 s"):
        read_clip(path, 2.0, 3.0, 22_050)


@given(
    sizes=st.lists(st.integers(0, 50), max_size=20),
    length=st.integers(1, 40),
    hop=st.integers(1, 60),
)
def test_windows_equal_slices(sizes: list[int], length: int, hop: int) -> None:
    stream = np.arange(sum(sizes), dtype=np.float32)
    blocks = np.split(stream, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(windows(blocks, range(0, 10_000, hop), length))
    wanted = [stream[b : b + length] for b in range(0, len(stream) - length + 1, hop)]
    assert len(found) == len(wanted)
    assert all((one == other).all() for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp3", b"", "empty"),
        ("text.mp3", b"This is no music.\n" * 500, "not an audio file"),
        ("noise.flac", bytes(range(7, 251)) * 400, "not an audio file"),
        ("noise.m4a", bytes(range(7, 251)) * 400, "not an audio file"),
        ("playlist.mp3", b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nother.wav\n", "not an audio file"),
    ],
)
def test_files_without_audio_are_refused_with_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    write(tmp_path / "other.wav", melody(4))
    with pytest.raises(AudioError, match=reason):
        Track(tmp_path / name)


def test_tags_are_read_from_containers_and_streams(tmp_path: Path) -> None:
    tags = {"title": "Été", "artist": "A", "album": "B", "genre": "C", "date": "2007-05-01"}
    for suffix in (".mp3", ".ogg", ".flac", ".m4a", ".opus"):
        path = write(tmp_path / f"piece{suffix}", melody(1, rate=48_000), 48_000, tags)
        with Track(path) as track:
            found = track.tags
        assert (found.title, found.artist, found.album, found.genre) == ("Été", "A", "B", "C"), suffix
        assert found.year == "2007"


def test_hidden_files_and_loops_of_links(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.WAV", "a.flac", ".hidden.wav", ".hidden/x.wav", "b/._1.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert find_audio(tmp_path) == ["a.flac", "b/1.WAV", "b/2.wav"]
