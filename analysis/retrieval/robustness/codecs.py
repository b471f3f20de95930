"""Codecs: encode a clip with a lossy codec and decode it again, in memory.

Conventions: mono float32 with full scale at ±1; the result has the length and position of the input
(encoders add silence at both ends; the container states how much and the decoder removes it, the rest is cut off).
"""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float32]

# codec -> (encoder, container, sample format, the only sample rate it accepts, or None)
_CODECS: dict[str, tuple[str, str, str, int | None]] = {
    "mp3": ("libmp3lame", "mp3", "fltp", None),
    "opus": ("libopus", "ogg", "flt", 48_000),
}


def through(codec: str, clip: Samples, rate: int, kbit_s: float) -> Samples:
    """`clip` `[samples]` encoded by "mp3" or "opus" at a constant `kbit_s` and decoded again.

    Raises:
        KeyError: if the codec is neither.
    """
    encoder, container, layout, own_rate = _CODECS[codec]
    if own_rate is not None and own_rate != rate:
        there = soxr.resample(clip, rate, own_rate)
        back = soxr.resample(through(codec, there, own_rate, kbit_s), own_rate, rate)
        return _fitted(back, len(clip))
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(encoder, rate=rate, layout="mono")
        stream.bit_rate = round(kbit_s * 1000)
        stream.format = layout
        # Encoders accept frames of any length; the encoder's buffer completes the last one.
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clip[None]), format=layout, layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as encoded:
        blocks = [block.to_ndarray().reshape(-1) for block in encoded.decode(audio=0)]
    return _fitted(np.concatenate(blocks).astype(np.float32), len(clip))


def _fitted(samples: Samples, length: int) -> Samples:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
