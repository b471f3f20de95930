"""Mechanical Turk's client (boto3): connecting, pages, and every error as one plain sentence."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from server.recruiting.marketplaces.base import MarketplaceError, UnknownOutcomeError

REGION = "us-east-1"  # the only region of Mechanical Turk, whatever the environment says
ENDPOINTS = {
    True: "https://mturk-requester.us-east-1.amazonaws.com",
    False: "https://mturk-requester-sandbox.us-east-1.amazonaws.com",
}
PREFIX = "AWS.MechanicalTurk."
ERROR_TEXTS = {
    "UnrecognizedClientException": "AWS does not know these credentials; check AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY.",
    "InvalidClientTokenId": "AWS does not know these credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "ExpiredTokenException": "the AWS credentials have expired; sign in to AWS again.",
    "AccessDeniedException": "this AWS user may not use Mechanical Turk; give it the policy "
    "AmazonMechanicalTurkFullAccess.",
    "InsufficientFunds": "the Mechanical Turk account has too little money; add to its prepaid balance.",
    "ThrottlingException": "Mechanical Turk received too many requests; try again in a minute.",
    "RequestExpired": "this machine's clock is wrong, so AWS refuses its signatures; set the clock.",
}
# Refusals that are not about a worker.
ACCOUNT_ERRORS = (
    *ERROR_TEXTS,
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "AccountSuspended",
    "QualificationTypeDoesNotExist",
)
UNLINKED_ACCOUNT = "the AWS account is not linked to a Mechanical Turk requester account; link it at https://requester.mturk.com/developer."


class MTurkApiError(MarketplaceError):
    """Mechanical Turk refused; `code` is its TurkErrorCode without the common prefix."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def missing_credentials(environment: Mapping[str, str]) -> list[str]:
    """Whether the environment, or AWS's own files, give any credentials; what they open is not asked."""
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        return []
    file = environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    if environment.get("AWS_PROFILE") or Path(file).expanduser().is_file():
        return []
    return ["There are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."]


def connect(*, live: bool, endpoint: str, attempts: int) -> Any:
    """A client; a local `endpoint` gets invented credentials.

    Raises:
        MarketplaceError: if boto3 is missing, or its settings are wrong.
    """
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MarketplaceError("boto3 is missing; install it with `pip install 'rootnote[recruiters]'`.") from None
    config = Config(retries={"total_max_attempts": attempts, "mode": "adaptive"}, connect_timeout=10, read_timeout=30)
    try:
        return _session(local=bool(endpoint)).client("mturk", endpoint_url=endpoint or ENDPOINTS[live], config=config)
    except (BotoCoreError, ValueError) as error:
        raise MarketplaceError(f"the AWS settings cannot be used: {_plain(str(error))}") from error


@functools.cache
def _session(*, local: bool) -> Any:
    """One session for all clients: making one reads botocore's data again."""
    import boto3

    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"} if local else {}
    return boto3.session.Session(region_name=REGION, **keys)


def ask(client: Any, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """Call an operation of Mechanical Turk, by its name in boto3.

    Raises:
        MTurkApiError: if it refuses.
        UnknownOutcomeError: if there is no clear answer; the request may have been carried out.
        MarketplaceError: if it cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: dict[str, Any] = getattr(client, operation)(**given)
        return answer
    except (ClientError, BotoCoreError) as error:
        raise explain(error) from error


def pages(client: Any, operation: str, name: str, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All entries of a paginated list; raises the same errors as `ask`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for page in client.get_paginator(operation).paginate(**given, PaginationConfig={"PageSize": 100}):
            yield from page[name]
    except (ClientError, BotoCoreError) as error:
        raise explain(error) from error


def explain(error: Exception) -> MarketplaceError:
    """An error of boto3 in plain words."""
    from botocore import exceptions

    match error:
        case exceptions.ClientError():
            return _refusal(error.response)
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return MarketplaceError("no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
        case exceptions.ParamValidationError():
            return MarketplaceError(f"Mechanical Turk did not accept this request: {_plain(str(error))}")
        case exceptions.EndpointConnectionError() | exceptions.ConnectTimeoutError():
            return MarketplaceError(
                "Mechanical Turk cannot be reached; check the connection (AWS announced its closing on 2026-09-30)."
            )
        case exceptions.HTTPClientError():
            return UnknownOutcomeError(
                "Mechanical Turk did not answer; run `rootnote server sync` to see what was done."
            )
    return MarketplaceError(f"the request to AWS failed: {_plain(str(error))}")


def _refusal(response: dict[str, Any]) -> MarketplaceError:
    kind, message = str(response["Error"]["Code"]), _plain(str(response["Error"].get("Message", "")))
    code = str(response.get("TurkErrorCode", kind)).removeprefix(PREFIX)
    if int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)) >= 500:
        return UnknownOutcomeError(
            "Mechanical Turk had an internal error; run `rootnote server sync` to see what was done."
        )
    if code in ERROR_TEXTS:
        return MTurkApiError(code, ERROR_TEXTS[code])
    if kind in ("InvalidSignatureException", "SignatureDoesNotMatch"):
        return MTurkApiError(kind, _signature(message))
    if "suspend" in f"{code} {message}".lower():
        return MTurkApiError(
            "AccountSuspended", "the Mechanical Turk account is suspended; write to Mechanical Turk's support."
        )
    if "linked" in message:
        return MTurkApiError(code, UNLINKED_ACCOUNT)
    return MTurkApiError(code, f"Mechanical Turk refused ({code}): {message}")


def _signature(message: str) -> str:
    if "expired" in message or "not yet current" in message:
        return ERROR_TEXTS["RequestExpired"]
    if "scope" in message:
        return f"Mechanical Turk is only in {REGION}, and the credentials are for another region."
    return "AWS does not accept the signature; check AWS_SECRET_ACCESS_KEY."


def _plain(text: str) -> str:
    return " ".join(text.split())
