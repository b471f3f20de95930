"""Results as JSON-able data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A copy of `value` for JSON: numpy numbers become Python's, NaN and infinity become None.

    Keys become text, with a plain hyphen between bins ("1–2" becomes "1-2").
    """
    if isinstance(value, Mapping):
        return {str(key).replace("–", "-"): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
