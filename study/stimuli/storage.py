"""Storage: where listeners get the stimuli from, build/stimuli or an S3 bucket.

With `storage.stimuli = "s3://bucket/folder"` in study.toml, `rootnote study publish` uploads them to a bucket. A clip's
object has the same name as its file in build/stimuli. It is drawn from the secret key, so that no name reveals a bin, a
clip or a track. Objects are uploaded in random order, because S3 shows when an object was written, and neighbouring
rows of the corpus often belong to one album. No object is compressed.

With `storage.delivery = "redirect"` the server redirects the address of a sound to a signed address of the bucket that
is valid for `storage.seconds`; with "proxy" the server fetches the bytes and sends them itself. A signed address shows
the key. It reveals that two sounds are the same clip, as their bytes do, but never the bin.

Credentials, region and endpoint are found in the usual way of AWS (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL_S3,
a profile, the host's role). boto3 is imported only if a study uses a bucket.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from embeddings.errors import ArtefactError, ConfigError, MissingPackageError, ResourceError
from embeddings.provenance import read_json, write_json
from study.config import Study, StudyConfig
from study.trial_plan import BUILD, PUBLISH, Stimulus, published_provenance

MIMETYPES = {".wav": "audio/wav", ".flac": "audio/flac"}  # FLAC: studies that were built by earlier versions
UPLOADS = 8  # at once
MISSING = ("404", "NoSuchKey", "NotFound")
REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "these credentials do not allow it",
    "403": "these credentials do not allow it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "301": "the bucket is in another region; set AWS_REGION",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}


def mimetype(stimulus: Stimulus) -> str:
    """The type of a stimulus, as browsers are told."""
    return MIMETYPES[stimulus.file.suffix]


class Storage(Protocol):
    """The source of the server's stimuli."""

    origin: str | None  # scheme and host that browsers fetch sounds from, unless it is the server itself

    def address(self, stimulus: Stimulus) -> str | None:
        """The address where a browser can fetch the stimulus for a short time; `None`: the server sends it."""

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
    """A bucket of S3 or of a compatible service.

    Raises:
        MissingPackageError: if boto3 is missing.
        ResourceError: if credentials are missing; the bucket is not contacted yet.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.url = config.storage.stimuli
        parts = urlsplit(self.url)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self._seconds, self._redirects = config.storage.seconds, config.storage.delivery == "redirect"
        with self._explained("be used"):
            self._client = _client()
            signed = urlsplit(self._sign("origin"))
        self.origin: str | None = f"{signed.scheme}://{signed.netloc}" if self._redirects else None

    def key(self, stimulus: Stimulus) -> str:
        return "/".join(part for part in (self.prefix, stimulus.file.name) if part)

    def address(self, stimulus: Stimulus) -> str | None:
        return self._sign(self.key(stimulus)) if self._redirects else None

    def read(self, stimulus: Stimulus) -> bytes:
        """The bytes. Nothing is kept: a sound that comes sooner than another would show that it is played more often.

        Raises:
            ArtefactError: if the bucket lacks them or has different ones.
            ResourceError: if the bucket cannot be read.
        """
        data = self._download(self.key(stimulus))
        if hashlib.sha256(data).hexdigest() != stimulus.sha256:
            raise ArtefactError(f"{self.url} has a sound that differs from build/stimuli; run `{PUBLISH}`.")
        return data

    def holds(self, stimulus: Stimulus) -> bool:
        """Whether the bucket has exactly these bytes, by its checksum or, without one, by reading them."""
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
            ArtefactError: if the local file is missing or damaged.
            ResourceError: if the bucket refuses or damages it.
        """
        data = stimulus.file.read_bytes() if stimulus.file.is_file() else b""
        if hashlib.sha256(data).hexdigest() != stimulus.sha256:
            raise ArtefactError(f"{stimulus.file} is missing or damaged; run `{BUILD}`.")
        with self._explained("be written"):
            reply = self._client.put_object(
                Bucket=self.bucket,
                Key=self.key(stimulus),
                Body=data,
                ContentType=mimetype(stimulus),
                CacheControl="private, no-store, no-transform",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(stimulus.sha256),
            )
        # S3 refuses bytes that differ from the checksum, and returns it; other services are asked for it.
        if reply.get("ChecksumSHA256") != _base64(stimulus.sha256) and not self.holds(stimulus):
            raise ResourceError(f"{self.url} does not return what was written to it; run `{PUBLISH}` again.")

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

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn errors of boto3 into one sentence, and a missing object into _MissingError."""
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
    """The bucket has no object with that key."""


def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 4}
    # A new session, because the default one keeps the credentials that it found first.
    return boto3.session.Session().client(
        "s3",
        region_name=os.environ.get("AWS_REGION") or None,  # other AWS programs read it, boto3 does not
        config=Config(
            signature_version="s3v4",
            retries=retries,
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=2 * UPLOADS,
            # Other services than Amazon's support checksums only on request.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def open_storage(study: Study) -> Storage:
    """The storage that study.toml names.

    Raises:
        MissingPackageError: if it is a bucket and boto3 is missing.
        ResourceError: if credentials are missing.
    """
    return S3Storage(study.config) if study.config.storage.stimuli else LocalStorage()


@dataclass(frozen=True)
class PublishedStimuli:
    """The result of `publish`: the number of stimuli of the study, and how many were written."""

    stimuli: int
    written: int


def publish(study: Study, done: Callable[[int, int], None] = lambda count, of: None) -> PublishedStimuli:
    """Upload what the bucket lacks, so that a second run continues an interrupted one.

    Raises:
        ConfigError: if study.toml names no bucket.
        ArtefactError: if the build is not complete.
        ResourceError: if the bucket refuses.
    """
    if not study.config.storage.stimuli:
        example = "s3://bucket/folder"
        raise ConfigError(f'{study.folder / "study.toml"} names no bucket; set storage.stimuli = "{example}".')
    content, _ = read_json(study.stimuli_index, "stimuli", BUILD)
    stimuli = [Stimulus(study.stimuli / entry["file"], entry["sha256"]) for entry in content["clips"].values()]
    random.SystemRandom().shuffle(stimuli)
    storage, written = S3Storage(study.config), 0
    with ThreadPoolExecutor(UPLOADS) as pool:
        jobs = [pool.submit(_upload_if_missing, storage, stimulus) for stimulus in stimuli]
        try:
            for count, job in enumerate(jobs, start=1):
                written += job.result()
                done(count, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_json(study.published, {"stimuli": len(stimuli)}, published_provenance(study.config, content))
    return PublishedStimuli(len(stimuli), written)


def _upload_if_missing(storage: S3Storage, stimulus: Stimulus) -> bool:
    """Upload a stimulus unless the bucket has it; return whether it was uploaded."""
    if storage.holds(stimulus):
        return False
    storage.upload(stimulus)
    return True


def cors_rules(origin: str) -> dict[str, Any]:
    """The CORS rules (S3's CORSConfiguration) that let pages of `origin` fetch sounds from the bucket."""
    rule = {"AllowedOrigins": [origin], "AllowedMethods": ["GET"], "AllowedHeaders": ["Range"], "MaxAgeSeconds": 3600}
    return {"CORSRules": [rule]}
