"""FLAC files that reveal nothing but their sound: all of one size, without compression statistics.

The compressed size depends on the sound. Of two clips, the one more similar to X is usually closer to X in size, and a
catch trial's copy of X differs by a few bytes: someone who watches the transfer, or Content-Length, could answer
without listening. So every file is filled up to the largest one with a PADDING block, and the frame sizes and the
checksum of the samples in STREAMINFO are set to 0, "unknown". Format: RFC 9639, Sections 8.1 to 8.3.
"""

from __future__ import annotations

MARKER = b"fLaC"
INFO_END = 42  # marker, then the header (4 bytes) and the body (34) of STREAMINFO, which is always first
FRAME_SIZES = slice(12, 18)
CHECKSUM = slice(26, 42)
LAST = 0x80
PADDING = 1
SPARE = 4  # the header of a block: the least that a file can grow by
MOST = (1 << 24) - 1


def size_for_all(sizes: list[int]) -> int:
    """The size in bytes that files of these sizes can all be filled up to."""
    return max(sizes) + SPARE


def fill_up(flac: bytes, size: int) -> bytes:
    """The same sound in a file of exactly `size` bytes.

    Raises:
        ValueError: if this is not a FLAC file, or `size` leaves too little or too much room.
    """
    if len(flac) < INFO_END or not flac.startswith(MARKER) or flac[4] & ~LAST:
        raise ValueError("this is not a FLAC file")
    room = size - len(flac) - SPARE
    if not 0 <= room <= MOST:
        raise ValueError(f"{len(flac)} bytes cannot be filled up to {size}")
    info = bytearray(flac[:INFO_END])
    info[FRAME_SIZES], info[CHECKSUM] = bytes(6), bytes(16)
    last = info[4] & LAST
    info[4] &= ~LAST & 0xFF
    return bytes(info) + bytes([last | PADDING]) + room.to_bytes(3, "big") + bytes(room) + flac[INFO_END:]
