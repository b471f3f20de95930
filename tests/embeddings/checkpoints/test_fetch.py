"""`rootnote embeddings fetch` with a server that breaks connections, states wrong lengths and changes its files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import rootnote
from embeddings.checkpoints import download as downloading
from embeddings.checkpoints.catalogue import CHECKPOINTS, Checkpoint
from embeddings.checkpoints.fetch import Fetched, cached, fetch
from embeddings.errors import RootnoteError

WEIGHTS = np.random.default_rng(0).bytes(3_000_000)
OTHER = np.random.default_rng(1).bytes(3_000_000)
Move = Callable[[Any], None]


class Handler(BaseHTTPRequestHandler):
    """Makes the server's next move; the last move is repeated."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        moves = self.server.moves
        (moves.pop(0) if len(moves) > 1 else moves[0])(self)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`moves` are its responses to each request in turn; `asked` has the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moves: list[Move] = [sends(WEIGHTS)]
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.base = f"http://127.0.0.1:{self.server_port}/models"

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up, which the tests expect."""


def sends(
    content: bytes,
    *,
    etag: str | None = '"one"',
    upto: int | None = None,
    ranges: bool = True,
    stated: int | None = None,
    if_range: bool = True,
) -> Move:
    """Send the content, or what is asked of it; `upto`: hang up after so many bytes; `stated`: the length claimed."""

    def move(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        fresh = not if_range or handler.headers.get("If-Range") == etag
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranges and fresh else 0
        if begin >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[begin:]
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) if stated is None else stated))
        handler.end_headers()
        handler.wfile.write(body if upto is None else body[:upto])
        handler.close_connection = upto is not None or stated is not None

    return move


def answers(code: int, **headers: str) -> Move:
    def move(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return move


def from_the_start(handler: Handler) -> None:
    """Send the whole file with the status of a partial response."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(WEIGHTS) - 1}/{len(WEIGHTS)}")
    handler.send_header("Content-Length", str(len(WEIGHTS)))
    handler.end_headers()
    handler.wfile.write(WEIGHTS)


def chunks(content: bytes, *, whole: bool = True) -> Move:
    """Send without stating a length."""

    def move(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(content), content) + (b"0\r\n\r\n" if whole else b""))
        handler.close_connection = not whole

    return move


def stalls(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.flush()
    threading.Event().wait(1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, embedder in (("toy", "clmr"), ("toy-unpinned", "clmr")):
        pinned = {"size": len(WEIGHTS), "sha256": sha256(WEIGHTS)} if name == "toy" else {}
        address = f"https://example.org/{name}.pt"
        monkeypatch.setitem(
            CHECKPOINTS, name, Checkpoint(name, embedder, f"{name}.pt", address, "CC0-1.0 (toy)", **pinned)
        )
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run_fetch(server: Server, to: Path, name: str = "toy", **options: Any) -> Fetched:
    return fetch(name, to, base=server.base, **{"attempts": 4, "wait": 0.01, "timeout": 0.5, **options})


def run_command(*args: str) -> Result:
    return CliRunner().invoke(rootnote.cli, ["embeddings", "fetch", *args])


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_command_fetches_once_and_says_what_to_do_next(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTNOTE_FETCH_BASE", server.base)
    monkeypatch.setenv("ROOTNOTE_CACHE", str(tmp_path))
    path = tmp_path / "checkpoints" / "toy.pt"
    first = run_command("toy")
    assert first.exit_code == 0, first.output
    assert path.read_bytes() == WEIGHTS
    for text in (f"Fetched: {path}", "CC0-1.0 (toy)", sha256(WEIGHTS), f"--checkpoint '{path}'", "--embedder clmr"):
        assert text in first.stdout
    assert "Fetching toy: 3 of 3" in first.stderr
    assert server.asked == [("/models/toy.pt", None, None)]
    again = json.loads(run_command("toy", "--json").stdout)
    assert (again["already_there"], again["sha256"], again["path"]) == (True, sha256(WEIGHTS), str(path))
    assert len(server.asked) == 1
    assert visible(path.parent) == ["toy.pt", "toy.pt.json"]
    assert cached(sha256(WEIGHTS)) == path
    assert cached(sha256(OTHER)) is None
    listed = {entry["name"]: entry for entry in json.loads(run_command("--list", "--json").stdout)}
    assert listed["toy"]["path"] == str(path)
    assert listed["clap"]["path"] is None


def test_the_list_names_licence_address_and_size_of_each() -> None:
    text = run_command("--list").stdout
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.address.startswith("https://")
        assert checkpoint.address in text
        assert checkpoint.licence in text
    assert "1,863.6 MB" in text
    assert run_command().exit_code == 2
    unknown = run_command("clapp")
    assert isinstance(unknown.exception, RootnoteError)
    assert "there is no checkpoint 'clapp'; the known ones are: clap, clap-music" in str(unknown.exception)


def test_a_broken_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.moves = [sends(WEIGHTS, upto=1_000_000), answers(503), sends(WEIGHTS, upto=500_000), sends(WEIGHTS)]
    seen: list[int] = []
    done = run_fetch(server, tmp_path, progress=lambda now, total: seen.append(now))
    assert done.path.read_bytes() == WEIGHTS
    begins = [int(asked.removeprefix("bytes=")[:-1]) for _, asked, _ in server.asked if asked]
    assert begins == [1_000_000, 1_000_000, 1_500_000]
    assert {validator for _, asked, validator in server.asked if asked} == {'"one"'}
    assert seen == sorted(seen)
    assert seen[-1] == len(WEIGHTS)
    assert visible(tmp_path) == ["toy.pt", "toy.pt.json"]


def test_a_second_run_resumes_where_the_first_failed(server: Server, tmp_path: Path) -> None:
    server.moves = [sends(WEIGHTS, upto=1_200_000), sends(WEIGHTS, upto=0)]
    with pytest.raises(RootnoteError, match=r"in 4 attempts \(.*\); 1,200,000 bytes are kept; run the same command"):
        run_fetch(server, tmp_path)
    assert visible(tmp_path) == ["toy.pt.part", "toy.pt.part.json"]
    server.moves = [sends(WEIGHTS)]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert server.asked[-1] == ("/models/toy.pt", "bytes=1200000-", '"one"')


def test_a_complete_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.moves = [sends(WEIGHTS, upto=1_200_000), answers(404)]
    with pytest.raises(RootnoteError):
        run_fetch(server, tmp_path)
    with (tmp_path / "toy.pt.part").open("ab") as part:
        part.write(WEIGHTS[1_200_000:])
    asked = len(server.asked)
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (sends(WEIGHTS, ranges=False), "Range is ignored"),
        (sends(WEIGHTS, etag='"two"'), "another version, sent in full"),
        (sends(WEIGHTS, etag='"two"', if_range=False), "another version, If-Range ignored"),
        (answers(416, Content_Range="bytes */7"), "416"),
        (from_the_start, "another range than asked"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_it_starts_again_if_resuming_is_not_safe(server: Server, tmp_path: Path, second: Move, why: str) -> None:
    server.moves = [sends(OTHER, upto=1_000_000), second, sends(WEIGHTS, etag='"two"')]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS, why


def test_without_a_strong_validator_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    server.moves = [sends(OTHER, upto=1_000_000, etag='W/"one"'), sends(WEIGHTS)]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert [asked for _, asked, _ in server.asked] == [None, None]


@pytest.mark.parametrize(
    ("move", "error_message"),
    [
        (sends(OTHER), "was deleted: its SHA-256 is not the published one"),
        (sends(WEIGHTS, stated=2_000_000), "has 2,000,000 bytes, but the published file has 3,000,000"),
        (sends(WEIGHTS, stated=4_000_000), "has 4,000,000 bytes, but the published file has 3,000,000"),
        (sends(WEIGHTS + b"more"), "has 3,000,004 bytes"),
        (chunks(WEIGHTS + b"more"), "sent more than the expected 3,000,000 bytes"),
        (answers(404), "the server answered 404 Not Found"),
        (answers(403), "the server answered 403 Forbidden"),
        (answers(500), r"in 4 attempts \(the server answered 500 Internal Server Error\)"),
        (answers(200, Content_Encoding="gzip"), "sent it compressed"),
        (answers(302, Location="/models/toy.pt"), "redirects to no file"),
        (
            answers(302, Location="http://example.org/toy.pt"),
            "to http://example.org/toy.pt, which is not https",
        ),
        (
            answers(302, Location="ftp://example.org/toy.pt"),
            "to ftp://example.org/toy.pt, which is not https",
        ),
    ],
)
def test_a_file_other_than_the_published_one_is_refused_and_deleted(
    server: Server, tmp_path: Path, move: Move, error_message: str
) -> None:
    server.moves = [move]
    with pytest.raises(RootnoteError, match=error_message):
        run_fetch(server, tmp_path)
    assert visible(tmp_path) == []


def test_a_file_of_unknown_length_is_complete_or_retried(server: Server, tmp_path: Path) -> None:
    server.moves = [chunks(WEIGHTS[:1000], whole=False), chunks(WEIGHTS[:1000]), chunks(WEIGHTS)]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert len(server.asked) == 3


def test_an_unpinned_file_shorter_than_stated_is_refused(server: Server, tmp_path: Path) -> None:
    server.moves = [sends(WEIGHTS, stated=4_000_000)]
    with pytest.raises(RootnoteError, match="in 4 attempts"):
        run_fetch(server, tmp_path, "toy-unpinned")
    assert not (tmp_path / "toy-unpinned.pt").exists()


def test_a_stalled_server_times_out(server: Server, tmp_path: Path) -> None:
    server.moves = [stalls]
    with pytest.raises(RootnoteError, match=r"in 2 attempts \(timed out\)"):
        run_fetch(server, tmp_path, "toy-unpinned", attempts=2, timeout=0.1)


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.moves = [answers(302, Location="/elsewhere"), sends(WEIGHTS)]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert server.asked[1][0] == "/elsewhere"


@pytest.mark.parametrize("base", ["http://example.org/models", "ftp://example.org", "nowhere", "file:///etc"])
def test_a_mirror_must_speak_https_or_be_this_machine(server: Server, tmp_path: Path, base: str) -> None:
    with pytest.raises(RootnoteError, match="over https only"):
        fetch("toy", tmp_path, base=base)
    assert visible(tmp_path) == []


def test_an_unpinned_file_must_equal_its_first_version(server: Server, tmp_path: Path) -> None:
    first = run_fetch(server, tmp_path, "toy-unpinned")
    assert (first.pinned, first.sha256) == (False, sha256(WEIGHTS))
    assert run_fetch(server, tmp_path, "toy-unpinned").already_there
    first.path.unlink()
    server.moves = [sends(OTHER)]
    with pytest.raises(RootnoteError, match=r"not that of the first fetch, .* delete toy-unpinned\.pt\.json"):
        run_fetch(server, tmp_path, "toy-unpinned")
    assert visible(tmp_path) == ["toy-unpinned.pt.json"]
    server.moves = [sends(WEIGHTS)]
    assert run_fetch(server, tmp_path, "toy-unpinned").sha256 == first.sha256
    first.path.unlink()
    (tmp_path / "toy-unpinned.pt.json").unlink()
    server.moves = [sends(OTHER)]
    assert run_fetch(server, tmp_path, "toy-unpinned").sha256 == sha256(OTHER)


def test_an_unpinned_zip_file_must_be_a_zip(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("clmr_checkpoint_10000.pt", WEIGHTS)
    for move in (sends(b"<html>Sign in first</html>"), sends(packed.getvalue(), stated=2_900_000)):
        server.moves = [move]
        with pytest.raises(RootnoteError, match="is not a zip file"):
            run_fetch(server, tmp_path, "clmr")
        assert visible(tmp_path) == []
    server.moves = [sends(packed.getvalue())]
    done = run_fetch(server, tmp_path, "clmr")
    assert done.path == tmp_path / "clmr_checkpoint_10000.zip"
    assert done.path.read_bytes() == packed.getvalue()


def test_a_file_that_was_tampered_with_is_refused(server: Server, tmp_path: Path) -> None:
    for name in ("toy", "toy-unpinned"):
        path = run_fetch(server, tmp_path, name).path
        path.write_bytes(OTHER)
        with pytest.raises(RootnoteError, match=rf"{name}\.pt exists, but its SHA-256 is not .*; move it away"):
            run_fetch(server, tmp_path, name)
        assert path.read_bytes() == OTHER


def test_a_file_placed_by_hand_is_used(server: Server, tmp_path: Path) -> None:
    for name in ("toy", "toy-unpinned"):
        (tmp_path / f"{name}.pt").write_bytes(WEIGHTS)
        assert run_fetch(server, tmp_path, name).already_there
    assert server.asked == []
    (tmp_path / "toy-unpinned.pt").write_bytes(OTHER)
    with pytest.raises(RootnoteError, match="first fetch"):
        run_fetch(server, tmp_path, "toy-unpinned")


def test_two_at_once_do_not_clash(server: Server, tmp_path: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def waits(handler: Handler) -> None:
        arrived.set()
        go_on.wait(5)
        sends(WEIGHTS)(handler)

    server.moves = [waits]
    results: list[Fetched] = []
    one = threading.Thread(target=lambda: results.append(run_fetch(server, tmp_path, timeout=5)))
    one.start()
    assert arrived.wait(5)
    with pytest.raises(RootnoteError, match=r"toy\.pt is being fetched by another process"):
        run_fetch(server, tmp_path)
    go_on.set()
    one.join()
    assert results[0].path.read_bytes() == WEIGHTS
    assert run_fetch(server, tmp_path).already_there


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = downloading.shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(downloading.shutil, "disk_usage", lambda _: replace_free(usage, 1000))
        with pytest.raises(RootnoteError, match="has 1,000 bytes free, but 3,000,000 are needed"):
            run_fetch(server, tmp_path)

    written = 0

    def stopping(now: int, total: int) -> None:
        nonlocal written
        written = now
        if now > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    # The progress function is called where the bytes are written: the nearest place to a write that fails.
    with pytest.raises(RootnoteError, match=r"the disk of .* is full; .* run the same command again"):
        run_fetch(server, tmp_path, progress=stopping)
    assert visible(tmp_path) == ["toy.pt.part", "toy.pt.part.json"]
    assert run_fetch(server, tmp_path).path.read_bytes() == WEIGHTS
    assert server.asked[-1][1] == f"bytes={written}-"


def replace_free(usage: Any, free: int) -> Any:
    return usage._replace(free=free)


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RootnoteError, match=r"file/folder cannot be written .*; choose another folder with --to"):
        run_fetch(server, tmp_path / "file" / "folder")


def test_a_damaged_record_of_a_part_is_ignored(server: Server, tmp_path: Path) -> None:
    for notes in ("{", "[]", json.dumps({"address": 1, "validator": 2, "total": "x"})):
        (tmp_path / "toy.pt.part").write_bytes(OTHER[:1000])
        (tmp_path / "toy.pt.part.json").write_text(notes)
        done = run_fetch(server, tmp_path)
        assert done.path.read_bytes() == WEIGHTS
        done.path.unlink()
    assert {asked for _, asked, _ in server.asked} == {None}


def test_published_digests_are_complete() -> None:
    assert {name for name, one in CHECKPOINTS.items() if one.sha256 is None} <= {"clmr", "toy-unpinned"}
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.sha256 is None or len(bytes.fromhex(checkpoint.sha256)) == 32
    assert len({replace(one, what="", embedder="").file for one in CHECKPOINTS.values()}) == len(CHECKPOINTS)
