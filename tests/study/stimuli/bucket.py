"""S3's protocol on loopback (moto's server), and a bucket in it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import boto3
import httpx
from moto.server import ThreadedMotoServer

from study.config import Study, load_study

BUCKET = "stimuli-of-tests"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a secret for tests only",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class Bucket:
    """A bucket with its endpoint; `client` is boto3's, to inspect and change the bucket."""

    endpoint: str
    client: Any

    def written(self) -> dict[str, Any]:
        """When each object was written."""
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {item["Key"]: item["LastModified"] for item in found}

    def require_signatures(self, on: bool) -> None:
        """From now on refuse requests with unknown credentials, like S3."""
        reply = httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=b"0" if on else b"inf")
        assert reply.status_code == 200


@contextlib.contextmanager
def serving_bucket() -> Iterator[Bucket]:
    """Serve an empty bucket and point this process's environment to it."""
    logger = logging.getLogger("werkzeug")
    level = logger.level
    logger.setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with mock.patch.dict(os.environ, ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": endpoint}):
        os.environ.pop("AWS_PROFILE", None)
        client = boto3.session.Session().client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        try:
            yield Bucket(endpoint, client)
        finally:
            client.close()
            server.stop()
            logger.setLevel(level)


def keep_in_bucket(study: Study, delivery: str = "redirect", where: str = f"s3://{BUCKET}/clips") -> Study:
    """The same study with its stimuli in the bucket, by study.toml."""
    toml = study.folder / "study.toml"
    text = toml.read_text("utf-8").partition("[storage]")[0]
    toml.write_text(f'{text}[storage]\nstimuli = "{where}"\ndelivery = "{delivery}"\n', "utf-8")
    return load_study(study.folder)
