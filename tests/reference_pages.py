"""The generated reference pages of the documentation, for tests that compare the code with them."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType


@functools.cache
def reference() -> ModuleType:
    """The module scripts/docs_reference.py."""
    path = Path(__file__).parent.parent / "scripts" / "docs_reference.py"
    spec = importlib.util.spec_from_file_location("docs_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
