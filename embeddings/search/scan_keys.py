"""Keys of the scan: a score and a row in one 64-bit integer, and scores as integers in the same order.

A key is the order of its score (descending) above its row (ascending), so that sorting keys sorts by score and then
by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embeddings.errors import DataError

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
NO_KEY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def not_finite(row: int) -> DataError:
    return DataError(f"the vectors have a value that is not finite in row {row}; embed the corpus again.")


def _ordered(scores: Vectors) -> npt.NDArray[np.uint32]:
    """Unsigned integers in the order of the scores."""
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0: one zero, not two
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def key_limits(bounds: Vectors) -> Keys:
    """The largest key that still reaches the bound."""
    return ((~_ordered(bounds)).astype(np.uint64) << np.uint64(32)) | np.uint64(0xFFFF_FFFF)


def unpacked(keys: Keys) -> tuple[Vectors, Rows]:
    order = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(order >> 31, order & np.uint32(0x7FFF_FFFF), ~order).astype(np.uint32)
    return bits.view(np.float32), (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)


def down_to_bf16(values: Vectors) -> Vectors:
    """The values rounded towards -inf to bfloat16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    lower = bits & np.uint32(0xFFFF_0000)
    # Cutting the low bits rounds towards zero, so a negative value that lost bits is moved one step down.
    step = np.where((values < 0) & (lower != bits), np.uint32(0x1_0000), np.uint32(0))
    return (lower + step).view(np.float32)


def as_sortable(scores: torch.Tensor) -> npt.NDArray[Any]:
    """An array in the same order: the scores themselves, or integers for bfloat16; `from_sortable` is the inverse."""
    if scores.dtype == torch.float32:
        return scores.numpy()
    bits = scores.view(torch.int16).numpy()
    return np.asarray(bits ^ ((bits >> 15) & np.int16(0x7FFF)))


def from_sortable(ordered: npt.NDArray[Any]) -> Vectors:
    if ordered.dtype == np.float32:
        return np.asarray(ordered)
    bits = ordered ^ ((ordered >> 15) & np.int16(0x7FFF))
    scores: Vectors = (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return scores


def sortable_bf16(values: Vectors) -> npt.NDArray[np.int16]:
    """Signed integers in the order of the values rounded down to bfloat16, as used by `keep16`."""
    bits = (down_to_bf16(values).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))
