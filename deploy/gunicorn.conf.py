"""gunicorn for Rootnote: `gunicorn -c deploy/gunicorn.conf.py`, the study's folder in ROOTNOTE_STUDY.

One process a core, because Python keeps one core busy, and in each as many threads as requests may wait at once: at
the gate (server.web.request_queue) only a few are worked at, answers first, and one that waits costs a sleeping
thread. A connection
that waits for its browser's next request takes none. Only who is at work holds a database connection, so processes × 16
must stay below PostgreSQL's max_connections (100 as installed).
"""

import os
from pathlib import Path

from server.web import logs

wsgi_app = "server.wsgi:make()"
bind = os.environ.get("ROOTNOTE_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)
threads = int(os.environ.get("ROOTNOTE_THREADS") or 512)
worker_class = "gthread"
worker_connections = 2000
backlog = 2048
# Made before the fork: what cannot start says so once, and the processes share the schedule's memory.
preload_app = True

# Longer than a proxy keeps its connections (60 s as a rule), so that none is closed under a request.
keepalive = 75
# A process that does nothing for so long is replaced; a stop lets requests under way end.
timeout = 60
graceful_timeout = 30
# Its sign of life must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (gunicorn makes a private file there)

# Which proxies to believe is said by ROOTNOTE_TRUSTED_PROXIES alone: gunicorn itself believes no header.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
limit_request_line = 2048
limit_request_fields = 60
limit_request_field_size = 8190

# The application writes its own lines, without addresses; an access log would hold listeners' tokens.
accesslog = None
errorlog = "-"
loglevel = "warning"


def on_starting(server: object) -> None:
    """gunicorn's own lines become JSON lines too."""
    logs.configure()
