"""Stimuli in a bucket: uploaded once, complete and under random names; errors are one sentence."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from click.testing import CliRunner, Result

import rootnote
from embeddings.errors import RootnoteError
from study.config import Study
from study.secret_key import draw_key
from study.stimuli.storage import S3Storage, cors_rules, open_storage, publish
from study.trial_plan import read_plan
from tests.server.small_study import make_study, write_stimuli
from tests.study.stimuli.bucket import BUCKET, Bucket, keep_in_bucket, serving_bucket

CLIPS = 48


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.fixture
def bucket(served: Bucket) -> Bucket:
    for key in served.written():
        served.client.delete_object(Bucket=BUCKET, Key=key)
    return served


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return keep_in_bucket(make_study(tmp_path / "study", listeners=1, trials=2))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(rootnote.cli, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_rendered_files_are_uploaded_under_random_names(bucket: Bucket, study: Study) -> None:
    assert (publish(study).stimuli, publish(study).written) == (CLIPS, 0)
    plan = read_plan(study)
    storage = S3Storage(study.config)
    for key, stimulus in plan.stimuli.items():
        assert storage.read(stimulus) == stimulus.file.read_bytes()
        name = storage.key(stimulus)
        assert name.startswith("clips/")
        assert len(name) == len("clips/") + 32 + len(".wav")
        assert storage.holds(stimulus), key
    kept = bucket.client.head_object(Bucket=BUCKET, Key=storage.key(next(iter(plan.stimuli.values()))))
    assert (kept["ContentType"], kept["Metadata"]) == ("audio/wav", {})
    assert not {"ContentDisposition", "ContentEncoding"} & kept.keys()
    assert kept["CacheControl"] == "private, no-store, no-transform"


def test_the_order_of_uploading_is_random(bucket: Bucket, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 reveals when an object was written; this must not follow the corpus, where clips of an album are adjacent."""
    order: list[str] = []
    monkeypatch.setattr(S3Storage, "holds", lambda self, stimulus: bool(order.append(self.key(stimulus))) or True)
    publish(study)
    content = json.loads(study.stimuli_index.read_text())
    rows = {f"clips/{entry['file']}": number for number, entry in enumerate(content["clips"].values())}
    ranks = [rows[key] for key in order]
    assert sorted(ranks) == list(range(CLIPS))
    rising = sum(later == earlier + 1 for earlier, later in itertools.pairwise(ranks))
    assert rising < 12  # of 47, 1 is expected by chance and 47 in the corpus's order


@pytest.mark.slow
def test_an_interrupted_upload_continues(bucket: Bucket, study: Study) -> None:
    entries = list(json.loads(study.stimuli_index.read_text())["clips"].values())
    missing = study.stimuli / entries[7]["file"]
    kept = missing.read_bytes()
    missing.write_bytes(kept[:-1])
    with pytest.raises(RootnoteError, match="missing or damaged; run `rootnote study build`"):
        publish(study)
    assert not study.published.exists()
    with pytest.raises(RootnoteError, match="rootnote study publish"):
        read_plan(study)
    missing.write_bytes(kept)
    there, before = len(bucket.written()), bucket.written()
    assert publish(study).written == CLIPS - there
    assert all(moment == before.get(key, moment) for key, moment in bucket.written().items())
    assert len(read_plan(study).stimuli) == CLIPS


def test_other_bytes_in_the_bucket_are_found_and_replaced(bucket: Bucket, study: Study) -> None:
    publish(study)
    storage, plan = S3Storage(study.config), read_plan(study)
    damaged, plain = list(plan.stimuli.values())[:2]
    bucket.client.put_object(Bucket=BUCKET, Key=storage.key(damaged), Body=b"noise", ChecksumAlgorithm="SHA256")
    # As a store that keeps no checksums has it: it is read.
    bucket.client.put_object(Bucket=BUCKET, Key=storage.key(plain), Body=plain.file.read_bytes())
    assert (storage.holds(damaged), storage.holds(plain)) == (False, True)
    with pytest.raises(RootnoteError, match="differs from build/stimuli"):
        storage.read(damaged)
    assert publish(study).written == 1
    assert storage.read(damaged) == damaged.file.read_bytes()


def test_a_host_with_a_bucket_needs_no_folder_of_stimuli(bucket: Bucket, study: Study) -> None:
    publish(study)
    shutil.rmtree(study.stimuli)
    assert len(read_plan(study).stimuli) == CLIPS
    write_stimuli(study, draw_key())  # other names and bytes with the same settings
    with pytest.raises(RootnoteError, match=r"published.json is stale .*rootnote study publish"):
        read_plan(study)


@pytest.mark.slow
def test_a_signed_address_gives_the_sound_until_it_expires(bucket: Bucket, study: Study) -> None:
    publish(study)
    storage, plan = open_storage(study), read_plan(study)
    stimulus = next(iter(plan.stimuli.values()))
    address = storage.address(stimulus)
    assert address is not None
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == storage.origin == bucket.endpoint
    query = parse_qs(parts.query)
    assert query["X-Amz-Expires"] == ["120"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Credential"][0].split("/")[2] == "us-east-1"
    reply = httpx.get(address, headers={"Accept-Encoding": "gzip, br"})
    assert reply.content == stimulus.file.read_bytes()
    assert "Content-Encoding" not in reply.headers
    assert int(reply.headers["Content-Length"]) == len(reply.content)
    assert open_storage(keep_in_bucket(study, "proxy")).address(stimulus) is None


@pytest.mark.parametrize(
    ("where", "environment", "words"),
    [
        (f"s3://{BUCKET}/clips", {"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "the access key is unknown|do not allow it"),
        ("s3://no-such-bucket/clips", {}, "there is no such bucket"),
        (f"s3://{BUCKET}/clips", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "Could not connect"),
        (f"s3://{BUCKET}/clips", {"AWS_ENDPOINT_URL_S3": "nowhere"}, "Invalid endpoint"),
    ],
)
def test_a_refusal_is_one_sentence(
    bucket: Bucket,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    environment: dict[str, str],
    words: str,
) -> None:
    study = keep_in_bucket(study, where=where)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.require_signatures("AWS_ACCESS_KEY_ID" in environment)
    with pytest.raises(RootnoteError, match=words) as refused:
        publish(study)
    bucket.require_signatures(False)
    assert str(refused.value).startswith(where)
    assert "\n" not in str(refused.value)
    assert "secret for tests" not in str(refused.value)


def test_without_credentials_nothing_starts(bucket: Bucket, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RootnoteError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        open_storage(study)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(RootnoteError, match="pip install 'rootnote\\[s3\\]'"):
        open_storage(study)


@pytest.mark.parametrize("where", ["s3://", "https://bucket/x", "s3://UPPER/x", "s3://bucket/a b", "s3://bucket//x"])
def test_an_invalid_bucket_is_refused(study: Study, where: str) -> None:
    with pytest.raises(RootnoteError, match="not written like s3://bucket/folder"):
        keep_in_bucket(study, where=where)


@pytest.mark.slow
def test_the_commands(bucket: Bucket, study: Study) -> None:
    done = run("study", "publish", study.folder)
    assert done.exit_code == 0, done.output
    assert f"s3://{BUCKET}/clips contains all 48 stimuli; 48 uploaded now" in done.output
    assert "48 stimuli; 0 uploaded now" in run("study", "publish", study.folder).output
    rules = json.loads(run("study", "cors", "--origin", "https://study.example.org/").output)
    assert rules == cors_rules("https://study.example.org")
    bucket.client.put_bucket_cors(Bucket=BUCKET, CORSConfiguration=rules)
    assert bucket.client.get_bucket_cors(Bucket=BUCKET)["CORSRules"] == rules["CORSRules"]
    refused = run("study", "cors", "--origin", "study.example.org")
    assert refused.exit_code == 1
    problem = str(refused.exception)
    assert "--origin" in problem and "'study.example.org'" in problem and "https://study.example.org" in problem
    toml = study.folder / "study.toml"
    toml.write_text(toml.read_text().partition("[storage]")[0])
    assert "storage.stimuli" in str(run("study", "publish", study.folder).exception)


def test_boto3_is_not_imported_for_a_folder(study: Study) -> None:
    toml = study.folder / "study.toml"
    toml.write_text(toml.read_text().partition("[storage]")[0])
    program = (
        "import sys\nfrom pathlib import Path\nsys.modules['boto3'] = None\n"
        "from study.config import load_study\nfrom study.trial_plan import read_plan\n"
        "from study.stimuli.storage import open_storage\n"
        "study = load_study(Path(sys.argv[1]))\nplan = read_plan(study)\n"
        "assert open_storage(study).read(next(iter(plan.stimuli.values())))[:4] == b'RIFF'\n"
        "import server.app\nassert 'botocore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(study.folder)], check=True, timeout=60)


def test_the_hosts_policy_allows_reading_only(bucket: Bucket, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy as docs/deploy.md gives it, for the credentials of the web host."""
    publish(study)
    document = (Path(__file__).parents[3] / "docs/deploy.md").read_text("utf-8")
    policy = document.split("```json\n")[1].split("```")[0].replace("my-bucket/a-folder", f"{BUCKET}/clips")
    iam = boto3.session.Session().client("iam", endpoint_url=bucket.endpoint, region_name="us-east-1")
    iam.create_user(UserName="host")
    iam.put_user_policy(UserName="host", PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName="host")["AccessKey"]
    iam.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    storage, stimulus = S3Storage(study.config), next(iter(read_plan(study).stimuli.values()))
    bucket.require_signatures(True)
    try:
        assert storage.read(stimulus) == stimulus.file.read_bytes()
        with pytest.raises(RootnoteError, match="do not allow it"):
            storage.upload(stimulus)
    finally:
        bucket.require_signatures(False)
