"""A gunicorn worker that reads requests completely before they take a thread.

gunicorn's threaded worker gives a connection to a thread as soon as anything arrives, and the thread then waits for the
rest: as many half-sent requests as there are threads stop the process, health checks included. Here the main loop
collects the bytes of a request (as a buffering proxy does), and only a complete one is given to a thread. What is not
complete after `REQUEST_SECONDS`, or is the oldest when connections run out, is dropped. Closing a connection does not
stop the main loop either, and a reader who accepts no bytes for `SEND_SECONDS` loses theirs.

Everything goes through `enqueue_req`, which gunicorn calls in the main thread for each connection that may have a
request; no other part of its loop is changed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import resource
import selectors
import socket
import struct
import time
from collections import OrderedDict
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

REQUEST_SECONDS = 20.0  # from the first byte to the last, or until a new connection sends anything
SEND_SECONDS = 20  # without any progress
LINGER_SECONDS = 2.0  # for the client to read a reply's end
STOP_SECONDS = 2.0  # for requests that are half sent when the process stops
HEAD_BYTES = 64 * 1024
BODY_BYTES = 256 * 1024  # the application never accepts more, and says so kindly up to here
FULL = 0.9  # share of worker_connections above which the oldest are dropped
OPEN_FILES = 8192
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LARGE_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,10})[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-f]{1,8})[ \t]*(?:;.*)?", re.IGNORECASE)
CHUNK_LINE = 256  # bytes of a chunk's first line, at most


class _Incoming:
    """The bytes of a request that is being received."""

    def __init__(self, data: bytes, deadline: float) -> None:
        self.data, self.deadline = bytearray(data), deadline
        self._head = -1  # bytes up to the end of the head, once it is there
        self._length = 0  # bytes of the body; below 0: chunked
        self._chunk = 0  # where the next chunk begins
        self.wants_continue = False

    @property
    def is_complete(self) -> bool:
        """Whether a thread can read the whole request without waiting."""
        if self._head < 0 and not self._find_head():
            return False
        if self._length < 0:
            return self._has_last_chunk()
        return len(self.data) - self._head >= self._length

    @property
    def refusal(self) -> bytes:
        """The reply to a request that is too large to be received; empty if it is not."""
        if self._head < 0:
            return TOO_LARGE_HEAD if len(self.data) > HEAD_BYTES else b""
        return TOO_LARGE if max(self._length, len(self.data) - self._head) > BODY_BYTES else b""

    def _has_last_chunk(self) -> bool:
        """Follow the chunks that have arrived; one that is none is left to gunicorn, which refuses it."""
        while (end := self.data.find(b"\r\n", self._chunk)) >= 0:
            size = CHUNK_SIZE.fullmatch(self.data, self._chunk, end)
            if size is None:
                return True
            if int(size[1], 16) == 0:  # after it, lines up to an empty one
                return self.data.find(HEAD_END, end) >= 0
            self._chunk = end + 2 + int(size[1], 16) + 2
        return len(self.data) - self._chunk > CHUNK_LINE

    def _find_head(self) -> bool:
        end = self.data.find(HEAD_END)
        if end < 0:
            return False
        self._head = self._chunk = end + len(HEAD_END)
        head = bytes(self.data[: end + 2])
        if CHUNKED.search(head):
            self._length = -1
        elif found := LENGTH.search(head):
            self._length = int(found[1])
        self.wants_continue = EXPECT.search(head) is not None
        return True


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, for which a connection counts once it has sent a complete request."""

    worker_connections: int
    nr_conns: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._incoming: OrderedDict[Any, _Incoming] = OrderedDict()  # by connection, oldest first
        self._closing: OrderedDict[socket.socket, float] = OrderedDict()  # until when they are drained

    def init_process(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        if soft != resource.RLIM_INFINITY:  # files of the database and of sounds need some
            self.worker_connections = min(self.worker_connections, max(soft // 2, 16))
        super().init_process()

    # ------------------------------------------------------------------ receiving

    def enqueue_req(self, conn: Any) -> None:
        """Receive a request; give the connection to a thread when it is complete."""
        if not conn.initialized:
            conn.close = functools.partial(self._close, conn)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(REQUEST_SECONDS), 0))
            conn.init()
        self._make_room()
        buffered = conn.parser.unreader.take_buffered()
        incoming = _Incoming(buffered, time.monotonic() + REQUEST_SECONDS)
        conn.sock.setblocking(False)
        if buffered and incoming.is_complete:
            self._start(conn, incoming)
        elif self._receive(conn, incoming):
            self._incoming[conn] = incoming
            self.poller.register(conn.sock, selectors.EVENT_READ, functools.partial(self._on_bytes, conn))

    def _on_bytes(self, conn: Any, sock: socket.socket) -> None:
        if not self._receive(conn, self._incoming[conn]):
            self._forget(conn)

    def _receive(self, conn: Any, incoming: _Incoming) -> bool:
        """Read what has arrived; whether the request is still incomplete."""
        try:
            data = conn.sock.recv(HEAD_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return False
        incoming.data += data
        complete = incoming.is_complete
        if incoming.refusal:
            with contextlib.suppress(OSError):
                conn.sock.send(incoming.refusal)
            self._drop(conn, graceful=True)
            return False
        if not complete:
            if incoming.wants_continue:
                incoming.wants_continue = False
                with contextlib.suppress(OSError):
                    conn.sock.send(CONTINUE)
            return True
        if conn in self._incoming:
            self._forget(conn)
        self._start(conn, incoming)
        return False

    def _start(self, conn: Any, incoming: _Incoming) -> None:
        conn.parser.unreader.unread(bytes(incoming.data))
        super().enqueue_req(conn)

    def _forget(self, conn: Any) -> None:
        """Stop waiting for bytes of a connection."""
        if self._incoming.pop(conn, None) is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(conn.sock)

    def _drop(self, conn: Any, *, graceful: bool = False) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close(graceful=graceful)

    def _make_room(self) -> None:
        """Drop the oldest half-sent requests, then idle connections, so that new ones are always accepted."""
        while self.nr_conns > FULL * self.worker_connections:
            if self._incoming:
                self._drop(next(iter(self._incoming)))
            elif self.keepalived_conns:
                idle = self.keepalived_conns.popleft()
                self.poller.unregister(idle.sock)
                self._drop(idle)
            else:
                return

    def murder_pending(self) -> None:
        """Drop what has taken too long; gunicorn calls this at least once a second."""
        super().murder_pending()
        now = time.monotonic()
        if not self.alive:
            for incoming in self._incoming.values():
                incoming.deadline = min(incoming.deadline, now + STOP_SECONDS) if incoming.data else now
        for conn in [one for one, incoming in self._incoming.items() if incoming.deadline <= now]:
            self._drop(conn)
        for sock in [one for one, deadline in self._closing.items() if deadline <= now]:
            self._end(sock)

    # ------------------------------------------------------------------ sending and closing

    def handle_request(self, req: Any, conn: Any) -> Any:
        try:
            return super().handle_request(req, conn)
        except BlockingIOError:  # SEND_SECONDS have passed
            raise ConnectionResetError(errno.ECONNRESET, "the client reads nothing") from None

    def _close(self, conn: Any, graceful: bool = False) -> None:
        """Close a connection; after a reply, only once the client has read it, without waiting for that here."""
        sock = conn.sock
        try:
            if not graceful or len(self._closing) >= self.worker_connections // 4:
                sock.close()
                return
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(False)
            self.poller.register(sock, selectors.EVENT_READ, self._drain)
            self._closing[sock] = time.monotonic() + LINGER_SECONDS
        except (OSError, KeyError, ValueError):
            sock.close()

    def _drain(self, sock: socket.socket) -> None:
        try:
            if sock.recv(HEAD_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        self._closing.pop(sock, None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(sock)
        sock.close()
