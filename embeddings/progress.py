"""Progress of long work on standard error: a bar on a terminal, otherwise a line at every tenth."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def showing(what: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that shows the progress of `what`; with a `unit`, also pace and time left."""
    if sys.stderr.isatty():
        yield from _bar(what, unit)
    else:
        yield _lines(what, unit)


class Pace:
    """The speed of the work in this run; work done by an earlier run does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int, int] | None = None

    def in_words(self, done: int, total: int, unit: str) -> str:
        """Such as "41.2 clips/s, 0:03:10 left"; empty before the first measurement."""
        now = time.monotonic()
        if self._first is None or self._first[2] != total:
            self._first = (now, done, total)
        began, before, _ = self._first
        if not unit or now - began <= 0 or done <= before:
            return ""
        pace = (done - before) / (now - began)
        left = round((total - done) / pace)
        return f"{pace:,.1f} {unit}/s, {left // 3600}:{left % 3600 // 60:02}:{left % 60:02} left"


def _bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    end = TextColumn("{task.fields[pace]}") if unit else TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), end)
    pace = Pace()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, pace="")
        yield lambda done, total: bar.update(task, completed=done, total=total, pace=pace.in_words(done, total, unit))


def _lines(what: str, unit: str) -> Callable[[int, int], None]:
    shown = 0
    pace = Pace()

    def show(done: int, total: int) -> None:
        nonlocal shown
        speed = pace.in_words(done, total, unit)
        tenth = 10 * done // max(1, total)
        if tenth > shown:
            shown = tenth
            end = f" ({speed})" if speed else ""
            print(f"{what}: {done:,} of {total:,}{end}", file=sys.stderr, flush=True)

    return show
