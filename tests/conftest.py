"""How the suite is spread over processes, and what tests of several folders look at.

Conventions: one thread a test process, since pytest-xdist runs as many of them as there are cores and each starts
programs of its own (this is read before numpy, torch and numba are, and those programs inherit it). A file goes to one
process as a whole, so that what its fixtures make for the file is made once. The longest go first, so that no process
is left alone with one of them in the end.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

TESTS = Path(__file__).parent
# Groups by how long they take, the longest first; a group that is not named comes after them.
LONGEST = (
    "demo",
    "cluster",
    "browser/test_marketplaces",
    "server/test_rehearsal",
    "analysis/test_robustness",
    "embeddings/test_clmr",
    "embeddings/test_clap",
    "embeddings/test_musicnn",
    "milvus",
    "browser/test_player",
    "browser/test_whole_study",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # xdist's own order: by the number of tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).with_suffix("").as_posix()))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    group = marker.args[0]
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


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
