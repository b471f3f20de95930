"""The README's commands, run as they stand there, on synthetic music in place of ~/Music."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    return [line for block in FENCE.findall(document.read_text(encoding="utf-8")) for line in block.splitlines()]


def test_make_targets_exist() -> None:
    targets = [line.removeprefix("make ") for line in commands(ROOT / "README.md") if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_linked_files_exist() -> None:
    """Links of the pages outside docs/, which mkdocs does not check."""
    for document in sorted(ROOT.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.slow
def test_commands_of_the_readme(tmp_path: Path, demo_music: Path) -> None:
    (tmp_path / "Music").mkdir()
    for track in demo_music.glob("*-1.flac"):  # one performance of each version is music enough
        (tmp_path / "Music" / track.name).hardlink_to(track)
    port = free_port()
    script = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for line in commands(ROOT / "README.md"):
        if line.startswith("make "):
            continue
        if line.startswith("rootnote server run"):
            script += serve_two_listeners(line.replace("8000", str(port)), port)
        elif line.startswith("rootnote server rehearse"):
            script.append(line.replace("--listeners 90", "--listeners 6"))  # tests/demo has more
        else:
            script.append(line)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr.count("Traceback") == 0
    assert (tmp_path / "my-study/rehearsal/report/report.html").is_file()
    assert (tmp_path / "my-study/report/table1.json").is_file()
    assert (tmp_path / "vectors.npy").is_file()


def serve_two_listeners(run: str, port: int) -> list[str]:
    """Run the server in the background until it answers, stop it, and take the study as two listeners."""
    url = f"http://127.0.0.1:{port}"
    ask = f"import urllib.request as u; u.urlopen('{url}/healthz')"
    wait = f'for i in $(seq 100); do {sys.executable} -c "{ask}" 2>/dev/null && break; sleep 0.1; done'
    return [
        f"{run} &",
        wait,
        "kill %1",
        "wait || true",
        f"PYTHONPATH={ROOT} {sys.executable} -m tests.two_listeners my-study",
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
