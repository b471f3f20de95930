"""The files under deploy/: what they name exists, what they forbid is forbidden, and what can be started is started."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import make_url

import rootnote
from server.db import database
from server.doctor.check import DoctorContext
from server.doctor.run import CHECKS, run_checks
from server.settings import ServerEnvironment, read_settings
from study.config import Study
from tests.deploy.proxies import INSTALLED, PROXIES, wait_for
from tests.reference_pages import reference
from tests.server.conftest import SECRET
from tests.server.real_server import RealServer, real_server
from tests.server.small_study import make_study

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]


def variables(text: str) -> set[str]:
    return set(re.findall(r"\b(?:ROOTNOTE|AWS)_[A-Z_]+\b", text))


def examples(name: str) -> set[str]:
    """The variables that an example of an environment sets, or shows how to."""
    return set(re.findall(r"^#?([A-Z_]+)=", (DEPLOY / name).read_text(), re.MULTILINE))


# ------------------------------------------------------------------ Compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_every_variable_is_read(compose: dict[str, Any]) -> None:
    documents = reference().environment() + (ROOT / "docs/deploy.md").read_text()
    for name in ("compose.yaml", "compose.env.example", "rootnote.env.example", "Dockerfile", "Caddyfile"):
        for variable in variables((DEPLOY / name).read_text()):
            assert f"`{variable}`" in documents, f"{variable} of {name} is not documented"
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert asked == examples("compose.env.example")
    code = "".join(path.read_text() for path in [*(ROOT / "server").rglob("*.py"), DEPLOY / "gunicorn.conf.py"])
    for service in ("migrate", "app", "backup"):
        for variable in compose["services"][service]["environment"]:
            assert variable.startswith("AWS_") or f'"{variable}"' in code, variable
    for variable in examples("rootnote.env.example"):
        assert variable.startswith("AWS_") or f'"{variable}"' in code, variable


def test_the_server_gets_every_variable_that_it_reads(compose: dict[str, Any]) -> None:
    tuning = {"ROOTNOTE_REQUESTS_PER_SECOND", "ROOTNOTE_AT_WORK"}  # the defaults suit one small host
    read = {str(one.validation_alias) for one in ServerEnvironment.model_fields.values()} - tuning
    assert read <= set(compose["services"]["app"]["environment"])
    assert read <= set(re.findall(r"^#?(ROOTNOTE_\w+)=", (DEPLOY / "rootnote.env.example").read_text(), re.MULTILINE))


def test_secrets_have_no_default(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in (
        "ROOTNOTE_SECRET",
        "ROOTNOTE_ADMINISTRATOR_PASSWORD",
        "ROOTNOTE_OWNER_PASSWORD",
        "ROOTNOTE_APP_PASSWORD",
    ):
        assert f"${{{name}:?" in text
        assert f"{name}=\n" in (DEPLOY / "compose.env.example").read_text()


def test_only_the_proxy_is_reached_from_outside_and_the_database_from_the_server_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["caddy"]
    assert services["db"]["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"] is True
    assert "inside" not in services["caddy"]["networks"]
    for name in ("migrate", "app", "backup"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert any(":/study:ro" in volume for volume in services[name]["volumes"])
    assert "rootnote_owner" in services["migrate"]["environment"]["ROOTNOTE_DATABASE_URL"]
    for name in ("app", "backup"):
        assert "rootnote_app" in services[name]["environment"]["ROOTNOTE_DATABASE_URL"]
    assert all(":" in service["image"] or service["image"] == "rootnote" for service in services.values())


def test_mounted_and_copied_files_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (DEPLOY / volume.partition(":")[0]).is_file(), volume
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert (ROOT / re.findall(r"^COPY (deploy/\S+)", dockerfile, re.MULTILINE)[0]).is_file()
    assert re.findall(r"^USER (\w+)", dockerfile, re.MULTILINE) == ["rootnote"]
    let_in = re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert all((ROOT / name).exists() for name in let_in)
    built = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert built is not None
    assert set(re.findall(r'"(\w+)"', built[1])) | {"rootnote.py", "pyproject.toml", "README.md"} <= set(let_in)


def test_the_files_run_existing_commands(compose: dict[str, Any]) -> None:
    texts = [path.read_text() for path in [*SERVICES, DEPLOY / "compose.yaml", ROOT / "docs/deploy.md"]]
    named = {match for text in texts for match in re.findall(r"rootnote[, ]+(server|study)[, ]+([a-z]+)", text)}
    assert {("server", "migrate"), ("server", "backup"), ("server", "doctor")} <= named
    for words in named:
        assert CliRunner().invoke(rootnote.cli, [*words, "--help"]).exit_code == 0, words


def test_every_base_image_can_be_pinned_by_digest(tmp_path: Path) -> None:
    """By the lines that pin-images.sh prints; the digests themselves are not in the repository."""
    compose, dockerfile = (DEPLOY / "compose.yaml").read_text(), (DEPLOY / "Dockerfile").read_text()
    images = dict(re.findall(r"\$\{(ROOTNOTE_\w+_IMAGE):-([\w.:-]+)\}", compose))
    named = re.findall(r"^\s+image: (\S+)$", compose, re.MULTILINE)
    assert [one for one in named if not one.startswith("${")] == ["rootnote"]
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert f"ARG PYTHON_IMAGE={images['ROOTNOTE_PYTHON_IMAGE']}\n" in dockerfile
    example = (DEPLOY / "compose.env.example").read_text()
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho sha256:0123\n")
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = ["sh", str(DEPLOY / "pin-images.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert lines == {name: f"{image}@sha256:0123" for name, image in images.items()}
    assert set(images) == set(re.findall(r"^#(ROOTNOTE_\w+_IMAGE)=$", example, re.MULTILINE))
    docker.write_text("#!/bin/sh\n")
    assert subprocess.run(script, env=environment, capture_output=True).returncode == 1


# ------------------------------------------------------------------ systemd


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_services_have_few_rights(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    service = unit["Service"]
    assert (service["User"], service["NoNewPrivileges"], service["ProtectSystem"]) == ("rootnote", "yes", "strict")
    assert (service["CapabilityBoundingSet"], service["UMask"]) == ("", "0077")
    assert service["EnvironmentFile"] == "/etc/rootnote/rootnote.env"
    timer = path.with_suffix(".timer")
    assert timer.exists() == (service["Type"] == "oneshot")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        # Rootnote itself is not installed where the test runs.
        (tmp_path / path.name).write_text(re.sub(r"=/opt/rootnote/bin/\S+", "=/bin/true", path.read_text()))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "rootnote" in line]) == (0, [])


# ------------------------------------------------------------------ proxies


def test_proxies_log_and_trust_no_addresses(compose: dict[str, Any]) -> None:
    nginx, caddy = (DEPLOY / "nginx.conf").read_text(), (DEPLOY / "Caddyfile").read_text()
    for text in (nginx, caddy):
        assert text.count("{") == text.count("}")
    assert nginx.count("access_log off;") == len(re.findall(r"^server {", nginx, re.MULTILINE)) == 3
    assert "error_log /var/log/nginx/rootnote.log crit;" in nginx
    for line in ("X-Forwarded-For $remote_addr;", "X-Forwarded-Proto $scheme;", "proxy_next_upstream off;"):
        assert line in nginx
    assert "add_header" not in nginx
    assert not re.search(r"^\s*log\b", caddy, re.MULTILINE)
    assert "trusted_proxies" not in caddy


def test_proxies_speak_no_old_tls() -> None:
    nginx, caddy = (DEPLOY / "nginx.conf").read_text(), (DEPLOY / "Caddyfile").read_text()
    assert re.findall(r"ssl_protocols ([^;]+);", nginx) == ["TLSv1.2 TLSv1.3"]
    assert "protocols" not in caddy  # its own choice is 1.2 and 1.3


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RealServer, Study]]:
    """gunicorn on SQLite, for a proxy to stand before."""
    study = make_study(tmp_path / "study", listeners=1)
    url = f"sqlite:///{tmp_path / 'answers.sqlite3'}"
    engine = database.connect(make_url(url))
    database.migrate(engine)
    engine.dispose()
    more = {"ROOTNOTE_PUBLIC_URL": "https://localhost", "ROOTNOTE_TRUSTED_PROXIES": "1"}
    with real_server(study.folder, url, tmp_path / "log", workers=1, more=more) as server:
        yield server, study


def doctor_says(study: Study, port: int, proxy: subprocess.Popen[bytes]) -> dict[str, str]:
    """What the doctor finds of https://localhost:port, once it is there."""
    environment = {
        "ROOTNOTE_SECRET": SECRET,
        "ROOTNOTE_PUBLIC_URL": f"https://localhost:{port}",
        "ROOTNOTE_TRUSTED_PROXIES": "1",
    }
    wait_for(port, proxy)
    case = DoctorContext(study, read_settings(study, environment), environment)
    return {finding.text: finding.level for _, finding in run_checks(case, set(CHECKS) - {"address"})}


def refuses_much(port: int, certificate: Path) -> bool:
    import ssl

    context = ssl.create_default_context(cafile=str(certificate))
    reply = httpx.post(f"https://localhost:{port}/take", content=b"x" * 300_000, verify=context)
    return reply.status_code in (413, 502)  # Caddy 2.6 says 502


@pytest.mark.parametrize("name", INSTALLED)
def test_the_doctor_finds_nothing_wrong_behind_a_proxy(
    name: str, served: tuple[RealServer, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, study = served
    with PROXIES[name](server.port, tmp_path) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
        found = doctor_says(study, proxy.port, proxy.process)
        # Caddy's own certificates are valid for half a day; public ones for months.
        errors = {text for text, level in found.items() if level == "error" and "valid for" not in text}
        assert errors == set(), found
        assert not any("version" in text for text in found)
        assert refuses_much(proxy.port, proxy.certificate)
    log = tmp_path / "error.log"
    assert not log.exists() or "/take" not in log.read_text()


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_nginx_answers_its_own_host_alone(served: tuple[RealServer, Study], tmp_path: Path) -> None:
    server, _ = served
    with PROXIES["nginx"](server.port, tmp_path) as proxy:
        assert proxy.plain_port is not None
        plain = f"http://127.0.0.1:{proxy.plain_port}"
        wait_for(proxy.plain_port, proxy.process)
        own = httpx.get(f"{plain}/take?x=1", headers={"Host": "localhost"})
        assert own.headers["Location"] == "https://localhost/take?x=1"
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{plain}/take", headers={"Host": "evil.example"})
        with pytest.raises(httpx.ConnectError):  # no certificate for another name
            httpx.get(f"https://127.0.0.1:{proxy.port}/take", verify=False)
