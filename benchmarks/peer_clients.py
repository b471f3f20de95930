"""Another laboratory's clients against the local marketplaces: what passes, and why the rest does not.

    python benchmarks/peer_clients.py [--venv FOLDER]
    DALLINGER_SRC=FOLDER python benchmarks/peer_clients.py

Installs Dallinger from PyPI into a virtual environment of its own, without its dependencies but for those that
`dallinger.prolific` and `dallinger.mturk` import, and lets its two services do everything they can against the local
marketplaces on this machine. With DALLINGER_SRC, a checkout of its repository, its own Mechanical Turk tests run too:
the wheel on PyPI has none. Modules of Dallinger that need its database or its experiments are replaced by empty ones.
Ends with status 1 if anything fails that is not explained here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import types
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("boto3", "requests", "tenacity", "python-dateutil", "pytest", "tzlocal")
TOKEN = "rehearsal-token"  # noqa: S105 (opens nothing but the local Prolific)
CODE, PARTICIPANTS = "A1B2C3", [f"{number:024x}" for number in range(1, 5)]

# Checks and tests that cannot pass, each with its reason.
EXPLAINED = {
    "get_unread_messages": "the local Prolific has no messages",
    "screen_out": "Prolific has removed this route",
    "draft_study, word for word": "it sends fields that Prolific's API description does not have, one of them refused",
    "TestSNSService": "Amazon's notification service (SNS) is not Mechanical Turk",
    "a person is needed": "the test asks a person to look",
}


# ------------------------------------------------------------------ in Rootnote's environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "rootnote-peer-clients")
    parser.add_argument("--drive", choices=("prolific", "mturk"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(options.drive)
    from server.simulation.fake_mturk import FakeMTurk
    from server.simulation.fake_prolific import FakeProlific

    python = _prepare(options.venv)
    unexplained = 0
    with FakeProlific("10000.00") as prolific:
        for person in PARTICIPANTS:
            prolific.participants.add(person)
        unexplained += _show("Prolific", _drive(python, "prolific", prolific.url))
    with FakeMTurk("10000.00") as mturk:
        mturk.workers.add("A1WORKER")
        unexplained += _show("Mechanical Turk", _drive(python, "mturk", mturk.url))
    if source := os.environ.get("DALLINGER_SRC"):
        with FakeMTurk("10000.00") as mturk:
            mturk.workers.add("A1WORKER")
            unexplained += _show("Dallinger's own Mechanical Turk tests", _own_tests(python, Path(source), mturk.url))
    else:
        print("\nDALLINGER_SRC is not set: Dallinger's own Mechanical Turk tests were not run.")
    return 1 if unexplained else 0


def _prepare(folder: Path) -> Path:
    """The interpreter of an environment with Dallinger and what its two services import."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for packages in (PACKAGES, ("--no-deps", "dallinger")):
            subprocess.run([*install, *packages], check=True, stderr=subprocess.DEVNULL)
    return python


def _environment(url: str) -> dict[str, str]:
    """Without the variables of real accounts and of Rootnote's own environment."""
    left_out = ("AWS_", "PROLIFIC_", "PYTHONPATH", "VIRTUAL_ENV", "ROOTNOTE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    return kept | nowhere | {"MARKET_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}


def _drive(python: Path, which: str, url: str) -> list[dict[str, str]]:
    command = [str(python), str(Path(__file__).resolve()), "--drive", which]
    ran = subprocess.run(command, env=_environment(url), capture_output=True, text=True, check=False, timeout=600)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return lines or [{"name": which, "problem": ran.stderr.strip().splitlines()[-1] if ran.stderr else "no output"}]


def _own_tests(python: Path, source: Path, url: str) -> list[dict[str, str]]:
    """Run tests/test_mturk.py of a checkout, with fixtures that lead to the local Mechanical Turk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_mturk.py").write_bytes((source / "tests" / "test_mturk.py").read_bytes())
        (folder / "conftest.py").write_bytes(Path(__file__).read_bytes())
        (folder / "pytest.ini").write_text("[pytest]\n")
        command = [str(python), "-m", "pytest", "-q", "-rA", "--tb=line", "-p", "no:cacheprovider", str(folder)]
        given = _environment(url) | {
            "mturk_worker_id": "A1WORKER",
            "PEER_TESTS": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        ran = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=1200)
    return list(_results(ran.stdout)) or [{"name": "pytest", "problem": (ran.stdout + ran.stderr)[-400:]}]


def _results(text: str) -> Iterator[dict[str, str]]:
    """The results in pytest's summary."""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("PASSED", "FAILED", "ERROR", "XFAIL", "SKIPPED"):
            test, _, reason = rest.partition(" - ")
            problem = "" if word in ("PASSED", "XFAIL") else f"{word.lower()}: {reason or 'see pytest'}"
            yield {"name": test.partition("::")[2] or test, "problem": problem}


def _show(title: str, found: list[dict[str, str]]) -> int:
    """Print the results; returns how many failures have no explanation."""
    passed = [one for one in found if not one["problem"]]
    failed = [(one, _explanation(one["name"])) for one in found if one["problem"]]
    print(f"\n{title}: {len(passed)} of {len(found)} pass")
    for one, reason in failed:
        print(f"  {one['name']}: {reason or one['problem']}")
    return sum(not reason for _, reason in failed)


def _explanation(name: str) -> str:
    return next((reason for key, reason in EXPLAINED.items() if key in name), "")


# ------------------------------------------------------------------ in the environment of the peer


class RecruitmentError(Exception):
    """What Dallinger's `handle_and_raise_recruitment_error` raises here."""


def _without_the_rest(name: str = "dallinger") -> None:
    """Make Dallinger's package importable without everything that it starts."""
    root = types.ModuleType(name)
    root.__path__ = [str(importlib.metadata.distribution(name).locate_file(name))]
    sys.modules[name] = root
    contents: dict[str, dict[str, Any]] = {
        "db": {},
        "models": {"Participant": object},
        "utils": {"median_time_spent_in_hours": lambda people: 0.0, "generate_random_id": _random_id},
        "config": {"get_config": lambda load=False: {}},
        "recruiters": {"handle_and_raise_recruitment_error": _raise},
    }
    for module, names in contents.items():
        made = types.ModuleType(f"{name}.{module}")
        vars(made).update(names)
        sys.modules[f"{name}.{module}"] = made
        setattr(root, module, made)


def _raise(error: Exception) -> None:
    raise error


def _random_id(size: int = 6) -> str:
    return os.urandom(size).hex()[:size].upper()


def _lead_to_local_mturk() -> None:
    """Let every client of Mechanical Turk that boto3 makes ask the local one."""
    import boto3

    real = boto3.session.Session.client

    def client(session: Any, service: str, **given: Any) -> Any:
        endpoint = {"endpoint_url": os.environ["MARKET_URL"]} if service == "mturk" else {}
        return real(session, service, **given | endpoint)

    boto3.session.Session.client = client


def drive(which: str) -> int:
    """Call everything that a service of Dallinger has; one line of JSON for each check."""
    _without_the_rest()
    checks = _prolific_checks() if which == "prolific" else _mturk_checks()
    for name, check in checks:
        problem = ""
        try:
            check()
        except Exception as error:  # whatever a peer's client raises is the result
            frame = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {str(error)[:300] or frame.line}"
        print(json.dumps({"name": name, "problem": problem}), flush=True)
    return 0


def _require(condition: bool, found: Any) -> None:
    if not condition:
        raise AssertionError(f"unexpected: {found!r}")


def _prolific_checks() -> Iterator[tuple[str, Callable[[], None]]]:
    """Dallinger's ProlificService, from a workspace to a bonus; participants press the buttons of the local site."""
    import requests
    from dallinger.prolific import ProlificService

    url = os.environ["MARKET_URL"]
    ProlificService.api_root = f"{url}/api/v1"
    unknown_fields, send = ["completion_option", "is_custom_screening", "status"], ProlificService._req
    kept: dict[str, Any] = {}

    class Service(ProlificService):
        """Leaves out the fields of a new study that Prolific does not know, so that everything else can be tried."""

        word_for_word = False

        def _req(self, method: str, endpoint: str, **given: Any) -> Any:
            if (method, endpoint) == ("POST", "/studies/") and not self.word_for_word:
                given["json"] = {name: one for name, one in given["json"].items() if name not in unknown_fields}
            return send(self, method, endpoint, **given)

    service = Service(TOKEN, "v1", "https://example.org")

    def study(**changed: Any) -> dict[str, Any]:
        code = {"code": CODE, "code_type": "COMPLETED", "actor": "participant"}
        query = "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
        return {
            "completion_codes": [code | {"actions": [{"action": "MANUALLY_REVIEW"}]}],
            "completion_option": "url",
            "description": "A study of another laboratory.",
            "device_compatibility": ["desktop"],
            "estimated_completion_time": 5,
            "external_study_url": f"https://www.example.com/ad?{query}",
            "filters": [],
            "internal_name": "peer",
            "is_custom_screening": False,
            "maximum_allowed_time": 17,
            "name": "A study",
            "peripheral_requirements": ["audio"],
            "project_name": kept["project"],
            "prolific_id_option": "url_parameters",
            "reward": 150,
            "total_available_places": 2,
            "workspace": kept["workspace"],
        } | changed

    def take(person: str, complete: bool) -> str:
        site = url.replace("127.0.0.1", "localhost")
        with requests.Session() as browser:
            browser.get(f"{site}/signin", params={"participant": person}).raise_for_status()
            held = browser.post(f"{site}/studies/{kept['study']}/reserve")
            held.raise_for_status()
            browser.get(f"{held.url}/open", allow_redirects=False)
            if complete:
                browser.get(f"{site}/submissions/complete", params={"cc": CODE}).raise_for_status()
        return held.url.rpartition("/")[2]

    def workspaces() -> None:
        found = service.get_workspaces()
        kept["workspace"] = found[0]["title"]
        service.validate_workspace(kept["workspace"])
        kept["project"] = service._req("GET", f"/workspaces/{found[0]['id']}/projects/")["results"][0]["title"]

    def draft() -> None:
        made = service.draft_study(**study())
        kept["study"] = made["id"]
        _require(made["status"] == "UNPUBLISHED", made)

    def draft_word_for_word() -> None:
        service.word_for_word = True
        try:
            made = service.draft_study(**study(internal_name="peer 5"))
        finally:
            service.word_for_word = False
        _require("id" in made, made)

    def submissions() -> None:
        kept["done"], kept["held"] = take(PARTICIPANTS[0], True), take(PARTICIPANTS[1], False)
        found = {one["id"]: one["status"] for one in service.get_submissions(kept["study"])}
        _require(found == {kept["done"]: "AWAITING REVIEW", kept["held"]: "ACTIVE"}, found)

    def approve() -> None:
        for _ in range(2):
            service.approve_participant_submission(kept["done"])
        _require(service.get_participant_submission(kept["done"])["status"] == "APPROVED", "not approved")

    def created() -> None:
        made = service.create_study(**study(internal_name="peer 2"), mode="live", publish_experiment=True)
        _require(made["status"] in ("ACTIVE", "PUBLISHING"), made)

    def publish() -> None:
        published = service.publish_study(kept["study"])["status"]
        for _ in range(100):
            if published == "ACTIVE":
                return
            time.sleep(0.1)
            published = service.get_study(kept["study"])["status"]
        _require(False, published)

    def unknown() -> None:
        from dallinger.prolific import ProlificServiceException

        try:
            service.get_study("f" * 24)
        except ProlificServiceException:
            return
        raise AssertionError("a study that does not exist was found")

    yield "get_workspaces, validate_workspace", workspaces
    yield "who_am_i", lambda: _require("id" in service.who_am_i(), "no id")
    yield "draft_study, word for word", draft_word_for_word
    yield "draft_study", draft
    yield "get_study", lambda: _require(service.get_study(kept["study"])["reward"] == 150, "another reward")
    yield "publish_study", publish
    yield "get_studies", lambda: _require(kept["study"] in [one["id"] for one in service.get_studies(["ACTIVE"])], "")
    yield "get_hits", lambda: _require(len(service.get_hits()) >= 1, "none")
    yield (
        "add_participants_to_study",
        lambda: _require(
            service.add_participants_to_study(kept["study"], 2)["total_available_places"] == 4, "not 4 places"
        ),
    )
    yield "get_submissions", submissions
    yield (
        "get_assignments_for_study",
        lambda: _require(len(service.get_assignments_for_study(kept["study"])) == 2, "not 2"),
    )
    yield (
        "get_participant_submission",
        lambda: _require(
            service.get_participant_submission(kept["held"])["worker_id"] == PARTICIPANTS[1], "another participant"
        ),
    )
    yield "approve_participant_submission, twice", approve
    yield "get_total_cost", lambda: _require(service.get_total_cost(kept["study"]) > 0, "nothing")
    yield (
        "pay_session_bonus",
        lambda: _require(bool(service.pay_session_bonus(kept["study"], PARTICIPANTS[0], 0.25)), "no answer"),
    )
    yield (
        "screen_out",
        lambda: _require("message" in service.screen_out(kept["study"], kept["held"], 0.5, False), "refused"),
    )
    yield "create_study, published", created
    yield (
        "delete_study",
        lambda: _require(
            service.delete_study(service.draft_study(**study(internal_name="peer 3"))["id"]), "not deleted"
        ),
    )
    yield (
        "draft_study, in a new project",
        lambda: _require(
            service.draft_study(**study(internal_name="peer 4", project_name="A new project"))["status"]
            == "UNPUBLISHED",
            "no draft",
        ),
    )
    yield "an unknown study is refused", unknown
    yield "get_unread_messages", lambda: _require(service.get_unread_messages() == [], "messages")


def _mturk_checks() -> Iterator[tuple[str, Callable[[], None]]]:
    """Dallinger's MTurkService, without its notifications."""
    from dallinger.mturk import MTurkQualificationRequirements, MTurkQuestions, MTurkService

    _lead_to_local_mturk()
    service = MTurkService("peerkey", "peersecret", "us-east-1")
    kept: dict[str, Any] = {}

    def qualification() -> None:
        made = service.create_qualification_type("Took part", "Took part in a study")
        kept["type"] = made["id"]
        _require(service.get_qualification_type_by_name("Took part") == made, made)

    def score() -> None:
        service.assign_qualification(kept["type"], "A1WORKER", 2)
        service.increment_qualification_score(kept["type"], "A1WORKER")
        _require(service.current_qualification_score(kept["type"], "A1WORKER") == 3, "not 3")
        service.revoke_qualification(kept["type"], "A1WORKER")
        _require(service.current_named_qualification_score("Took part", "A1WORKER")["score"] is None, "a score")

    def hit() -> None:
        kept["hit"] = service.create_hit(
            experiment_id="peer",
            title="A HIT",
            description="Listen",
            keywords=["music"],
            reward=0.5,
            duration_hours=0.5,
            lifetime_days=1,
            question=MTurkQuestions.external("https://www.example.com/ad"),
            max_assignments=2,
            annotation="peer",
            qualifications=[MTurkQualificationRequirements.must_not_have(kept["type"])],
            do_subscribe=False,
        )["id"]
        _require(service.extend_hit(kept["hit"], 1, 1.0)["max_assignments"] == 3, "not 3")

    yield "account_balance", lambda: _require(service.account_balance() == 10_000, "another balance")
    yield "check_credentials", lambda: _require(service.check_credentials(), "refused")
    yield "create_qualification_type, get_qualification_type_by_name", qualification
    yield "scores: assign, increment, revoke", score
    yield "create_hit, extend_hit", hit
    yield "get_hits", lambda: _require([one["id"] for one in service.get_hits()] == [kept["hit"]], "another HIT")
    yield "expire_hit", lambda: _require(service.expire_hit(kept["hit"]), "refused")
    yield "dispose_qualification_type", lambda: _require(service.dispose_qualification_type(kept["type"]), "refused")


# ------------------------------------------------------------------ as the conftest.py of the peer's own tests

if os.environ.get("PEER_TESTS"):
    import pytest

    _without_the_rest()
    _lead_to_local_mturk()
    _sleep = time.sleep
    time.sleep = lambda seconds: _sleep(min(seconds, 0.05))  # what it waits for is done at once here

    def pytest_configure(config: Any) -> None:
        for marker in ("mturk", "mturkworker", "slow", "flaky"):
            config.addinivalue_line("markers", f"{marker}: a marker of the peer's tests")

    @pytest.fixture
    def aws_creds() -> dict[str, str]:
        return {"aws_access_key_id": "peerkey", "aws_secret_access_key": "peersecret"}

    @pytest.fixture(scope="module")
    def check_mturkfull() -> None:
        """All of them are wanted."""

    @pytest.fixture(scope="module")
    def check_manual() -> None:
        pytest.skip("a person is needed")


if __name__ == "__main__":
    sys.exit(main())
