"""gunicorn for Rootnote: `gunicorn -c deploy/gunicorn.conf.py`, with the study's folder in ROOTNOTE_STUDY.

One process per core, because a Python process keeps one core busy, and in each as many threads as requests may wait at
once: the request queue (server.web.request_queue) admits only a few, answers first, and a waiting request costs a
sleeping thread. An idle connection takes none, and neither does a half-sent request
(server.web.buffering_worker). Only admitted requests hold a database connection, so processes × 16
must stay below PostgreSQL's max_connections (100 by default).
"""

import os
from pathlib import Path

from server.web import logs

wsgi_app = "server.wsgi:make()"
bind = os.environ.get("ROOTNOTE_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)
threads = int(os.environ.get("ROOTNOTE_THREADS") or 512)
worker_class = "server.web.buffering_worker.BufferingWorker"
worker_connections = 4000
backlog = 2048
# The application is made before the fork: it reports a failed start once, and the processes share memory.
preload_app = True

# Longer than a proxy keeps its connections (usually 60 s), so that none is closed during a request.
keepalive = 75
# A process that hangs for so long is replaced; at a stop, running requests may finish.
timeout = 60
graceful_timeout = 30
# Its heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (gunicorn makes a private file there)

# Only ROOTNOTE_TRUSTED_PROXIES says which proxies to trust: gunicorn itself trusts no header.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
limit_request_line = 8190  # a signed arrival has a token of up to 4096 characters
limit_request_fields = 60
limit_request_field_size = 8190

# The application writes its own lines, without addresses; an access log would hold listeners' tokens.
accesslog = None
errorlog = "-"
loglevel = "warning"


def on_starting(server: object) -> None:
    """gunicorn's own lines become JSON lines too."""
    logs.configure()
