"""One thread a test process: pytest-xdist runs as many of them as there are cores, and each starts programs of its own.

Conventions: this is read before numpy, torch and numba are, and programs that tests start inherit it.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
