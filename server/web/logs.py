"""Logs: one JSON object per line about what happened on which kind of page, never to whom.

A line holds the time (UTC), the level, the event, the route (not the path, which contains the listener's token), the
method, the status, and the milliseconds of work and of waiting in the request queue. An error adds the exception's type
and where it was raised, but not its message, which may quote what a listener sent. The random reference of a request is
shown on the error page, so that a listener can tell the researcher which line to look for.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

FIELDS = ("route", "method", "status", "ms", "waited_ms", "reference")
ROOT = str(Path(__file__).resolve().parents[2])
FOREIGN = ("waitress", "gunicorn.error")  # they have handlers of their own


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, without messages of exceptions."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            # Another library's arguments may hold a path or a value: its messages are logged without them.
            "event": record.getMessage() if record.name.split(".")[0] == "server" else str(record.msg),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1] is not None:
            line |= _explain(record.exc_info[1])
        return json.dumps(line)


def _explain(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    shown = [f"{frame.filename.removeprefix(ROOT + '/')}:{frame.lineno} {frame.name}" for frame in frames]
    causes = [type(error).__qualname__]
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
        causes.append(type(error).__qualname__)
    return {"error": causes[0], "causes": causes[1:], "at": shown[-12:]}


def configure(stream: IO[str] | None = None) -> None:
    """Send every line of this process to `stream` (default: stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    for name in FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("server").setLevel(logging.INFO)
