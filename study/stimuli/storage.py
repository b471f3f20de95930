"""Storage: where listeners get the stimuli from: build/stimuli, or an S3 bucket.

`storage.stimuli = "s3://bucket/folder"` in study.toml moves them to a bucket, by `rootnote study publish`. A clip's
object is named like its file in build/stimuli: by a random number, so that no key tells a bin, a clip or a track.
Objects are uploaded in random order, because S3 tells everyone when an object was written, and rows of the corpus
that lie near each other often belong to one album.

`storage.delivery = "redirect"` answers a due sound's own address with a signed address of the bucket that works for
`storage.seconds`; "proxy" has the server fetch the bytes and send them itself. A signed address shows the key: whoever
looks can tell that two of their sounds are one clip, which its bytes would tell them as well, but never its bin.

Credentials, region and endpoint are found as every AWS program finds them (AWS_ACCESS_KEY_ID, AWS_REGION,
AWS_ENDPOINT_URL_S3, a profile, the host's role). boto3 is imported only where a study has such a storage.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from embeddings.errors import ArtefactError, ConfigError, MissingPackageError, ResourceError
from embeddings.provenance import read_json, write_json
from study.config import Study, StudyConfig
from study.trial_plan import BUILD, PUBLISH, Stimulus, published_provenance

MIMETYPE = "audio/flac"
UPLOADS = 8  # at once
CACHE_BYTES = 64 * 2**20
MISSING = ("404", "NoSuchKey", "NotFound")
REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "these credentials may not do it",
    "403": "these credentials may not do it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "301": "the bucket is in another region; set AWS_REGION",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}


class Storage(Protocol):
    """Where the server gets stimuli from."""

    origin: str | None  # scheme and host that browsers fetch sounds from, where it is not the server itself

    def address(self, stimulus: Stimulus) -> str | None:
        """Where a browser may fetch the stimulus for a short time; None where the server sends it."""

    def read(self, stimulus: Stimulus) -> bytes:
        """The bytes of the stimulus."""


class LocalStorage:
    """build/stimuli."""

    origin: str | None = None

    def address(self, stimulus: Stimulus) -> str | None:
        return None

    def read(self, stimulus: Stimulus) -> bytes:
        return stimulus.file.read_bytes()


class S3Storage:
    """A bucket of S3 or of whatever speaks its protocol.

    Raises:
        RootnoteError: where boto3 or credentials are missing; nothing is asked of the bucket yet.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.url = config.storage.stimuli
        parts = urlsplit(self.url)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self._seconds, self._redirects = config.storage.seconds, config.storage.delivery == "redirect"
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached, self._lock = 0, threading.Lock()
        with self._explained("be used"):
            self._client = _client()
            signed = urlsplit(self._sign("origin"))
        self.origin: str | None = f"{signed.scheme}://{signed.netloc}" if self._redirects else None

    def key(self, stimulus: Stimulus) -> str:
        return "/".join(part for part in (self.prefix, stimulus.file.name) if part)

    def address(self, stimulus: Stimulus) -> str | None:
        return self._sign(self.key(stimulus)) if self._redirects else None

    def read(self, stimulus: Stimulus) -> bytes:
        """The bytes, from memory where they were read before.

        Raises:
            RootnoteError: where the bucket does not give them, or gives others.
        """
        key = self.key(stimulus)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        data = self._download(key)
        if hashlib.sha256(data).hexdigest() != stimulus.sha256:
            raise ArtefactError(f"{self.url} holds another sound than build/stimuli; run `{PUBLISH}`.")
        self._remember(key, data)
        return data

    def holds(self, stimulus: Stimulus) -> bool:
        """Whether the bucket has these very bytes, by the checksum that it keeps or, if it keeps none, by reading."""
        key = self.key(stimulus)
        try:
            with self._explained("be read"):
                found = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        except _MissingError:
            return False
        checksum = found.get("ChecksumSHA256")
        if checksum is None:
            return hashlib.sha256(self._download(key)).hexdigest() == stimulus.sha256
        return bool(checksum == _base64(stimulus.sha256))

    def upload(self, stimulus: Stimulus) -> None:
        """Write the stimulus; the bucket checks what it gets against the checksum.

        Raises:
            RootnoteError: where the local file is missing or spoilt, or the bucket refuses it or spoils it.
        """
        data = stimulus.file.read_bytes() if stimulus.file.is_file() else b""
        if hashlib.sha256(data).hexdigest() != stimulus.sha256:
            raise ArtefactError(f"{stimulus.file} is missing or spoilt; run `{BUILD}`.")
        with self._explained("be written"):
            reply = self._client.put_object(
                Bucket=self.bucket,
                Key=self.key(stimulus),
                Body=data,
                ContentType=MIMETYPE,
                CacheControl="private, no-store",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(stimulus.sha256),
            )
        # S3 refuses what differs from its checksum, and tells the one that it keeps; other stores are asked.
        if reply.get("ChecksumSHA256") != _base64(stimulus.sha256) and not self.holds(stimulus):
            raise ResourceError(f"{self.url} does not give back what was written to it; run `{PUBLISH}` once more.")

    def _sign(self, key: str) -> str:
        where = {"Bucket": self.bucket, "Key": key}
        return str(self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=self._seconds))

    def _download(self, key: str) -> bytes:
        try:
            with self._explained("be read"):
                body: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except _MissingError:
            raise ArtefactError(f"{self.url} lacks a stimulus; run `{PUBLISH}`.") from None
        return body

    def _remember(self, key: str, data: bytes) -> None:
        with self._lock:
            self._cached += len(data) - len(self._cache.get(key, b""))
            self._cache[key] = data
            while self._cached > CACHE_BYTES:
                self._cached -= len(self._cache.popitem(last=False)[1])

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what boto3 raises into one sentence; a missing object into _MissingError."""
        try:
            import boto3  # noqa: F401
            import botocore.exceptions as errors
        except ModuleNotFoundError:
            raise MissingPackageError("stimuli on S3 need boto3: pip install 'rootnote[s3]'.") from None
        try:
            yield
        except errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in MISSING:
                raise _MissingError from None
            raise ResourceError(f"{self.url} cannot {what}: {REASONS.get(code, code)}.") from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError):
            reason = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use the host's role"
            raise ResourceError(f"{self.url} cannot {what}: {reason}.") from None
        except (errors.BotoCoreError, errors.HTTPClientError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ResourceError(f"{self.url} cannot {what}: {reason}.") from None


class _MissingError(Exception):
    """The bucket has no object of that key."""


def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 4}
    # A session of its own: the default one keeps the credentials that it found first.
    return boto3.session.Session().client(
        "s3",
        region_name=os.environ.get("AWS_REGION") or None,  # which every other AWS program reads, and boto3 does not
        config=Config(
            signature_version="s3v4",
            retries=retries,
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=2 * UPLOADS,
            # Stores beside Amazon's know no checksums that they were not asked for.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def open_storage(study: Study) -> Storage:
    """The storage that study.toml names.

    Raises:
        RootnoteError: where it is a bucket and boto3 or credentials are missing.
    """
    return S3Storage(study.config) if study.config.storage.stimuli else LocalStorage()


@dataclass(frozen=True)
class PublishedStimuli:
    """What `publish` did: stimuli of the study, and how many of them had to be written."""

    stimuli: int
    written: int


def publish(study: Study, done: Callable[[int, int], None] = lambda count, of: None) -> PublishedStimuli:
    """Bring the bucket up to date: what it holds already is left alone, so that a second run goes on.

    Raises:
        RootnoteError: where study.toml names no bucket, the build is not whole, or the bucket refuses.
    """
    if not study.config.storage.stimuli:
        example = "s3://bucket/folder"
        raise ConfigError(f'{study.folder / "study.toml"} names no bucket; set storage.stimuli = "{example}".')
    content, _ = read_json(study.stimuli_index, "stimuli", BUILD)
    stimuli = [Stimulus(study.stimuli / entry["file"], entry["sha256"]) for entry in content["clips"].values()]
    random.SystemRandom().shuffle(stimuli)
    storage, written = S3Storage(study.config), 0
    with ThreadPoolExecutor(UPLOADS) as pool:
        jobs = [pool.submit(_bring, storage, stimulus) for stimulus in stimuli]
        try:
            for count, job in enumerate(jobs, start=1):
                written += job.result()
                done(count, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_json(study.published, {"stimuli": len(stimuli)}, published_provenance(study.config, content))
    return PublishedStimuli(len(stimuli), written)


def _bring(storage: S3Storage, stimulus: Stimulus) -> bool:
    """Upload a stimulus unless the bucket has it; whether it had to be."""
    if storage.holds(stimulus):
        return False
    storage.upload(stimulus)
    return True


def cors_rules(origin: str) -> dict[str, Any]:
    """What the bucket must allow so that pages of `origin` may fetch sounds from it (S3's CORSConfiguration)."""
    rule = {"AllowedOrigins": [origin], "AllowedMethods": ["GET"], "AllowedHeaders": ["Range"], "MaxAgeSeconds": 3600}
    return {"CORSRules": [rule]}
