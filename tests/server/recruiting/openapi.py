"""Prolific's API description as a check of messages: paths, parameters, and every property of every body.

The description nowhere says `additionalProperties: false`, so each object that names its properties is closed here: a
property that it does not name is a failure. Each departure from the file is in EXCEPTIONS with its source.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplace_client import ProlificClientPages
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest

NAME = "urn:prolific"
EXCEPTIONS = {
    "_links and meta in lists": "FilterList in the same file has both; the service gives them in every list that has "
    "pages (Dallinger#9601 reads `_links.next`), and the prose of GET /submissions/ speaks of pages.",
    "the names in an error's detail": "ErrorDetailDetail2.any_field is 'name of the field with a validation error': a "
    "stand-in for any name.",
    "filters that fit two schemas": "FilterListResultsItems is oneOf, but the short and the detailed schema of a kind "
    "require nothing, so that every short entry fits both.",
    "whole numbers at the ends of a range": "RangeFilterSelectedRangeLower and its like are oneOf integer, number and "
    "string, and in JSON Schema a whole number is both of the first two.",
    "statuses other than 400": "the file documents 400 alone for most operations; 401, 403, 404, 429 and 5xx are "
    "checked by the operation's schema for 400.",
    "GET /participant-groups/?workspace_id=": "its parameter `filter` is an object, which OpenAPI's default style "
    "(form, exploded) writes as one parameter for each property.",
    "responses without a body": "204 documents an object, and HTTP allows it no body.",
}


@dataclass(frozen=True)
class RecordedMessage:
    """One request of the client, and what the local Prolific answered."""

    request: HttpRequest
    reply: HttpReply


class RecordingProlific(FakeProlific):
    """A local Prolific that keeps every message of its API, as it went over the wire."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.messages: list[RecordedMessage] = []

    def handle(self, request: HttpRequest) -> HttpReply:
        reply = super().handle(request)
        if request.path.startswith(("/api/", "/.well-known/")):
            self.messages.append(RecordedMessage(request, reply))
        return reply


def local_recording(balance: str) -> ProlificClientPages:
    """A local Prolific for `rehearse_launch` that records; MARKETS has it afterwards."""
    MARKETS.append(RecordingProlific(balance))
    return ProlificClientPages(MARKETS[-1])


MARKETS: list[RecordingProlific] = []


@dataclass
class ApiDescription:
    """The description, closed."""

    paths: Mapping[str, Any]
    registry: Registry[Any]
    seen: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> ApiDescription:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        close(document["components"]["schemas"])
        close(document["paths"])
        for name, schema in document["components"]["schemas"].items():
            if name.endswith("ListResponse"):
                schema["properties"] |= {"_links": {"type": "object"}, "meta": {"type": "object"}}
        schemas = document["components"]["schemas"]
        schemas["ErrorDetailDetail2"]["additionalProperties"] = {"type": "array", "items": {"type": "string"}}
        schemas["FilterListResultsItems"]["anyOf"] = schemas["FilterListResultsItems"].pop("oneOf")
        for schema in schemas.values():
            if {"integer", "number"} <= {one.get("type") for one in schema.get("oneOf", ())}:
                schema["anyOf"] = schema.pop("oneOf")
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        return cls(document["paths"], Registry().with_resource(NAME, resource))

    def problems(self, message: RecordedMessage) -> Iterator[str]:
        """What the description does not allow in a message."""
        request, reply = message.request, message.reply
        template = next((one for one in self.paths if self._fits(one, request)), None)
        where = f"{request.method} {request.path}"
        if template is None:
            yield f"{where}: no such path or method"
            return
        self.seen.add((request.method, template))
        operation = self.paths[template][request.method.lower()]
        yield from (f"{where}: {wrong}" for wrong in self._query(operation, request.query))
        if reply.status < 400:  # what was refused need not be right
            yield from (f"{where}: request {wrong}" for wrong in self._body(operation.get("requestBody"), request.body))
        documented = operation["responses"].get(str(reply.status))
        if documented is None and reply.status >= 400:
            documented = operation["responses"].get("400")
        if documented is None:
            yield f"{where}: status {reply.status} is not documented"
        elif reply.status != 204:
            yield from (f"{where}: {reply.status} {wrong}" for wrong in self._body(documented, reply.body))

    def _fits(self, template: str, request: HttpRequest) -> bool:
        pattern = re.sub(r"\{[^}]+\}", r"[^/]+", template)
        return request.method.lower() in self.paths[template] and bool(re.fullmatch(pattern, request.path))

    def _query(self, operation: Mapping[str, Any], query: Mapping[str, str]) -> Iterator[str]:
        known: dict[str, Any] = {}
        for one in operation.get("parameters", ()):
            if one["in"] == "query":
                named = self._properties(one["schema"])
                known |= named or {one["name"]: one["schema"]}
                if one.get("required") and not (named or {one["name"]: 0}).keys() & query.keys():
                    yield f"the parameter {one['name']} is missing"
        for name, text in query.items():
            if name not in known:
                yield f"the parameter {name} is not documented"
            else:
                yield from self._check(known[name], int(text) if text.isdigit() else text, f"parameter {name}", text)

    def _properties(self, schema: Any) -> dict[str, Any]:
        """The properties of a parameter that is an object."""
        while "$ref" in schema:
            schema = self.registry.resolver(NAME).lookup(schema["$ref"]).contents
        found = dict(schema.get("properties", {}))
        for one in schema.get("oneOf", ()):
            found |= self._properties(one)
        return found

    def _body(self, documented: Mapping[str, Any] | None, body: bytes) -> Iterator[str]:
        schema = (documented or {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            if body:
                yield f"has a body that is not documented: {body[:80]!r}"
            return
        try:
            content = json.loads(body)
        except ValueError:
            yield f"has a body that is no JSON: {body[:80]!r}"
            return
        yield from self._check(schema, content, "body")

    def _check(self, schema: Any, content: Any, what: str, text: Any = None) -> Iterator[str]:
        bound = {"$id": "urn:check", **_absolute(schema)}
        validator = Draft202012Validator(bound, registry=self.registry, format_checker=FormatChecker())
        if text is not None and text != content and validator.is_valid(text):
            return
        for error in validator.iter_errors(content):
            found = best_match([error])
            assert found is not None
            yield f"{what} at {found.json_path}: {found.message[:300]}"


def _absolute(schema: Any) -> Any:
    """A schema of which the references name the document."""
    if isinstance(schema, list):
        return [_absolute(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: NAME + one if key == "$ref" else _absolute(one) for key, one in copy.copy(schema).items()}


def close(schemas: Any) -> None:
    """Let every object with named properties have no others."""
    if isinstance(schemas, list):
        for one in schemas:
            close(one)
    elif isinstance(schemas, dict):
        for one in list(schemas.values()):
            close(one)
        if schemas.get("type") == "object" and isinstance(schemas.get("properties"), dict):
            assert not {"allOf", "anyOf", "oneOf"} & schemas.keys(), "closing needs unevaluatedProperties here"
            schemas.setdefault("additionalProperties", False)
