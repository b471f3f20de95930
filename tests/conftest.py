"""How the suite is spread over processes, and what tests of several folders look at.

Conventions: one thread a test process, since pytest-xdist runs as many of them as there are cores and each starts
programs of its own (this is read before numpy, torch and numba are, and those programs inherit it). A file goes to one
process as a whole, so that what its fixtures make for the file (a study, a browser's server, a Ray cluster) is made
once. The longest go first, so that no process is left alone with one of them in the end.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# These files share what session fixtures below make: one process takes them all, in this order.
TOGETHER = ("tests/demo/test_demo.py", "tests/test_readme.py")
# By how long they take, the longest first; a file that is not named comes after them.
LONGEST = (
    *TOGETHER,
    "tests/embeddings/distributed/test_embed.py",
    "tests/browser/test_marketplaces.py",
    "tests/server/simulation/test_rehearsal.py",
    "tests/analysis/retrieval/test_robustness.py",
    "tests/embeddings/models/test_clap.py",
    "tests/embeddings/models/test_clmr.py",
    "tests/embeddings/models/test_musicnn.py",
    "tests/browser/test_player.py",
    "tests/browser/test_whole_study.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(file) if (file := _file(item.nodeid)) in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Spare the collector the two million objects of every module and test: each look at them takes half a second."""
    gc.collect()
    gc.freeze()


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadgroup` by file; xdist 3.8's own takes groups from names that pytest 9.2 no longer lets it change."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = _file(nodeid)
            return TOGETHER[0] if file in TOGETHER else file

    config.option.loadscopereorder = False  # xdist's own order: by the number of tests
    return ByFile(config, log)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the test of the demo runs it; nothing is there before."""
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="session")
def demo_music(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's music: what its test left, or the same made here."""
    from demo.music import synthesise

    if (demo_folder / "build").is_dir():
        return demo_folder / "music"
    folder = tmp_path_factory.mktemp("music")
    synthesise(folder, seed=1)
    return folder
