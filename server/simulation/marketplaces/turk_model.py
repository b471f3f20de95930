"""The service model of Mechanical Turk that botocore contains: what a request and an answer must look like.

botocore's own validator checks types, required members and minimum lengths. Maximum lengths, patterns, allowed values
and unknown members are checked here, by the same model.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

TARGET = "MTurkRequesterServiceV20170117."


@functools.cache
def service() -> Any:
    return botocore.session.get_session().get_service_model("mturk")


def input_problems(operation: str, given: dict[str, Any]) -> list[str]:
    """The problems of a request, in words; an empty list if there are none."""
    return _problems(given, service().operation_model(operation).input_shape)


def output_problems(operation: str, answer: dict[str, Any]) -> list[str]:
    """The problems of an answer, in words."""
    shape = service().operation_model(operation).output_shape
    return (["an answer where none is expected"] if answer else []) if shape is None else _problems(answer, shape)


def _problems(value: dict[str, Any], shape: Any) -> list[str]:
    report = ParamValidator().validate(value, shape).generate_report()
    return [report] if report else list(_walk(value, shape, ""))


def _walk(value: Any, shape: Any, where: str) -> list[str]:
    if shape.type_name == "structure":
        unknown = [f"{where}.{name} does not exist" for name in value if name not in shape.members]
        known = [(name, one) for name, one in value.items() if name in shape.members]
        return unknown + [
            line for name, one in known for line in _walk(one, shape.members[name], f"{where}.{name}".lstrip("."))
        ]
    if shape.type_name == "list":
        return [line for one in value for line in _walk(one, shape.member, where)]
    return _leaf(value, shape, where) if isinstance(value, str) else _number(value, shape, where)


def _leaf(value: str, shape: Any, where: str) -> list[str]:
    problems = []
    allowed, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
    if allowed and value not in allowed:
        problems.append(f"{where} is '{value}', not one of {', '.join(allowed)}")
    if pattern and not re.fullmatch(pattern, value):
        problems.append(f"{where} is '{value}', which does not match {pattern}")
    if len(value) > shape.metadata.get("max", len(value)):
        problems.append(f"{where} is longer than {shape.metadata['max']}")
    return problems


def _number(value: Any, shape: Any, where: str) -> list[str]:
    most = shape.metadata.get("max")
    return [f"{where} is above {most}"] if isinstance(value, int) and most is not None and value > most else []


def read_time(value: Any) -> datetime:
    """A timestamp as JSON 1.1 carries it: seconds since 1970."""
    return datetime.fromtimestamp(float(value), UTC)


def on_wire(value: Any) -> Any:
    """An answer as JSON 1.1 carries it: times as seconds, members that are None left out."""
    if isinstance(value, dict):
        return {name: on_wire(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [on_wire(one) for one in value]
    return value.timestamp() if isinstance(value, datetime) else value
