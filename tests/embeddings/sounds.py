"""Short synthetic music and files of it in every format."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile

CODECS = {".mp3": "libmp3lame", ".opus": "libopus", ".m4a": "aac", ".ogg": "libvorbis"}


def melody(seconds: float, seed: int = 0, rate: int = 44_100) -> npt.NDArray[np.float32]:
    """Three notes a second with four partials each and a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitches = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12], int(3 * seconds) + 1) / 12)
    phase = 2 * np.pi * np.cumsum(pitches[(3 * time).astype(int)]) / rate
    decay = np.exp(-rng.uniform(2, 6) * ((3 * time) % 1))
    tone = sum(rng.uniform(0.2, 1) * np.sin(partial * phase) for partial in range(1, 5))
    return np.asarray(0.15 * tone * decay + 0.002 * rng.standard_normal(len(time)), dtype=np.float32)


def write(path: Path, samples: npt.NDArray[np.float32], rate: int = 44_100, tags: dict[str, str] | None = None) -> Path:
    """Write `[samples]` or `[samples, channels]` in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".wav", ".flac") and not tags:
        soundfile.write(path, samples, rate, subtype="PCM_16")
        return path
    codec = CODECS.get(path.suffix, "flac" if path.suffix == ".flac" else "pcm_s16le")
    codec = codec if codec in av.codecs_available else "vorbis"
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if codec == "vorbis":  # ffmpeg's own encoder takes two channels only
        samples, channels = np.stack([samples, samples], axis=1), 2
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        options = {"strict": "experimental"} if codec == "vorbis" else {}
        layout = "stereo" if channels == 2 else "mono"
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        planar = np.ascontiguousarray(samples.reshape(-1, channels).T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path
