"""Options of the suite, how it is spread over processes, and fixtures of several folders.

`make test` runs everything with small counts. `make quick` (--quick) leaves out what is marked slow, browser or
network and every PostgreSQL, and takes only the first parameters of each test. `make soak` (--soak) runs full counts,
and both databases wherever a test has a database. tests/scale.py gives the counts.

Conventions: one thread per test process, since pytest-xdist runs as many processes as there are cores and each starts
programs of its own (set here before numpy, torch and numba are imported; those programs inherit it). One process runs
all tests of a file, so that the fixtures of the file are made once. Files that took longest in the last run start
first, so that no process is left alone with one of them at the end.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests import scale

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

DURATIONS = "rootnote/seconds_by_file"  # in pytest's cache, written after each run
SECONDS_BY_MARK = {"slow": 10.0, "browser": 4.0, "network": 2.0}  # assumed for each test of a file that never ran
# Examples of each property, as a multiple of those that it states (Hypothesis' default is 100).
EXAMPLES_IN_TEST, EXAMPLES_IN_SOAK = 0.4, 10.0
NOT_QUICK = ("slow", "browser", "network")
# Folders of such tests, which a quick run does not even import.
NOT_QUICK_FOLDERS = [
    Path(__file__).parent / name for name in ("browser", "embeddings/models", "embeddings/distributed")
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rootnote")
    group.addoption("--quick", action="store_true", help="no slow, browser or network tests, no PostgreSQL")
    group.addoption("--soak", action="store_true", help="full counts, new random examples, both databases everywhere")


def pytest_configure(config: pytest.Config) -> None:
    from hypothesis import settings

    config.stash[_STARTED] = time.monotonic()
    os.environ[scale.VARIABLE] = "1" if config.getoption("--soak") else "0"
    settings.register_profile("test", derandomize=True, deadline=None, database=None)
    settings.register_profile("soak", deadline=None, print_blob=True)
    settings.load_profile("soak" if scale.is_soak() else "test")


_STARTED = pytest.StashKey[float]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--quick") and collection_path in NOT_QUICK_FOLDERS else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a database runs on SQLite; marked both_databases, and in a soak, on PostgreSQL too."""
    if "database_url" not in metafunc.fixturenames or hasattr(metafunc.module, "database_url"):
        return
    marks = list(metafunc.definition.iter_markers())
    chosen = any(mark.name == "parametrize" and mark.args[0] == "database_url" for mark in marks)
    if not chosen and (scale.is_soak() or any(mark.name == "both_databases" for mark in marks)):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = [item for item in items if _is_wanted(config, item)]
    if config.getoption("--quick"):
        wanted = list({item.nodeid.partition("[")[0]: item for item in reversed(wanted)}.values())[::-1]
    kept = set(wanted)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = wanted
    _scale_examples(items, EXAMPLES_IN_SOAK if scale.is_soak() else EXAMPLES_IN_TEST)
    cache: pytest.Cache | None = getattr(config, "cache", None)  # none under -p no:cacheprovider
    expected = cache.get(DURATIONS, {}) if cache else {}
    unknown: dict[str, float] = defaultdict(float)
    for item in items:
        marked = [seconds for name, seconds in SECONDS_BY_MARK.items() if item.get_closest_marker(name)]
        unknown[_file(item.nodeid)] += max(marked, default=0.1)
    items.sort(key=lambda item: -expected.get(_file(item.nodeid), unknown[_file(item.nodeid)]))


def _is_wanted(config: pytest.Config, item: pytest.Item) -> bool:
    if item.get_closest_marker("soak") and not scale.is_soak():
        return False
    return not config.getoption("--quick") or _is_quick(item)


def _scale_examples(items: list[pytest.Item], factor: float) -> None:
    """Multiply the examples that each property states (Hypothesis offers no public way to change them later)."""
    from hypothesis import settings

    for function in {getattr(item, "obj", None) for item in items}:
        stated = getattr(function, "_hypothesis_internal_use_settings", None)
        if stated is not None:
            scaled = settings(stated, max_examples=math.ceil(factor * stated.max_examples))
            function._hypothesis_internal_use_settings = scaled  # type: ignore[union-attr]


def _is_quick(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    on_postgres = "postgres" in getattr(item, "fixturenames", ()) or (
        parameters is not None and parameters.params.get("database_url") == "postgresql"
    )
    return not on_postgres and not any(item.get_closest_marker(name) for name in NOT_QUICK)


def pytest_collection_finish() -> None:
    _freeze_modules()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if len(sys.modules) > _frozen_modules + 100:  # a test before has imported a heavy library
        _freeze_modules()


_frozen_modules = 0


def _freeze_modules() -> None:
    """Keep the garbage collector from visiting the two million objects of all modules and tests each time."""
    global _frozen_modules
    gc.collect()
    gc.freeze()
    _frozen_modules = len(sys.modules)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes for two cores: browsers, servers and simulated listeners wait much of their time."""
    return math.ceil(1.5 * (os.cpu_count() or 1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remember how long each file took (in the process that hears of all tests)."""
    config = session.config
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is not None and _seconds and not hasattr(config, "workerinput"):
        cache.set(DURATIONS, {**cache.get(DURATIONS, {}), **_seconds})


_seconds: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[_file(report.nodeid)] += report.duration


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of `make test`, `make quick` and `make soak`."""
    started = config.stash.get(_STARTED, None)
    name = os.environ.get("ROOTNOTE_TEST_TARGET")
    if started is not None and name and not hasattr(config, "workerinput"):
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"{name}: {minutes} min {seconds} s", flush=True)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this run share; lock what is made in it (tests/shared.py)."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def demo_music(shared_folder: Path) -> Path:
    """The demo's music of seed 1, made once per run: in `make test` two of the four performances of each version."""
    from demo.music import synthesise
    from tests.shared import made_once

    tracks = scale.count(72, soak=144)
    return made_once(shared_folder / "demo-music", lambda folder: synthesise(folder, seed=1, tracks=tracks))
