"""Checking a mapping against a block of the schema, with messages that say what is accepted. Imports pydantic.

A block is a TypedDict: its keys are the known ones, and a `Field(description=…)` says what a key accepts, as in
"must be …". What passes is a plain dictionary of the keys that were given; defaults live with the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Required, TypeAlias, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from mscfs.config.document import Document
from mscfs.config.problems import Kind, Location, Problem, did_you_mean
from mscfs.config.secrets import is_secret_name

Block: TypeAlias = Any
"""A TypedDict class; no type says that more exactly."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
"""Every block is decorated `with_config(STRICT)`."""


def check(
    block: Block, data: Mapping[str, Any], document: Document, location: Location, *, kind: Kind = "error"
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The checked `data`, or None, and everything that is wrong with it.

    Unknown keys are warnings and take no part in the rest. A missing key is always an error; a wrong value is of
    the given kind.
    """
    problems = []
    for unknown, known in _unknown_keys(block, data, ()):
        message = f"unknown key, ignored{did_you_mean(str(unknown[-1]), known)}"
        problems.append(document.problem("warning", (*location, *unknown), message))
    try:
        return _adapter(block).validate_python(_known_part(block, data)), problems
    except ValidationError as error:
        for details in error.errors(include_url=False):
            where = tuple(details["loc"])
            found = "error" if details["type"] == "missing" else kind
            message = _describe(block, where, details["type"], details["input"], details.get("ctx", {}))
            problems.append(document.problem(found, (*location, *where), message))
    return None, problems


def _describe(block: Block, where: Location, error: str, value: Any, context: Mapping[str, Any]) -> str:
    if error == "value_error":
        return str(context["error"])
    accepted = _accepted(block, where)
    if error == "missing":
        return f"is required: {accepted}"
    if not error.endswith("_type") and not isinstance(value, int | float):
        return f"must be {accepted}"
    name = next((step for step in reversed(where) if isinstance(step, str)), "")
    return f"must be {accepted}, not {_shown(value, secret=is_secret_name(name))}"


def _shown(value: Any, *, secret: bool) -> str:
    # Strings are never repeated: one may be a secret that stands at the wrong key.
    if value is None:
        return "empty"
    if isinstance(value, bool | int | float) and not secret:
        return str(value).lower()
    for kind, name in ((str, "a string"), (dict, "a mapping"), (list, "a list"), (int | float, "a number")):
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__} (put it in quotes)"


@cache
def _adapter(block: Block) -> TypeAdapter[dict[str, Any]]:
    return TypeAdapter(block)


@cache
def _annotations(block: Block) -> dict[str, Any]:
    return get_type_hints(block, include_extras=True)


def _block(annotation: Any) -> Block | None:
    """The block inside an annotation such as `list[Replica]` or `Annotated[Retry, …]`."""
    if is_typeddict(annotation):
        return annotation
    return next((block for inner in get_args(annotation) if (block := _block(inner))), None)


def _accepted(block: Block, where: Location) -> str:
    annotation: Any = block
    for step in where:
        while get_origin(annotation) in (Annotated, Required):
            annotation = get_args(annotation)[0]
        if is_typeddict(annotation):
            annotation = _annotations(annotation).get(str(step))
        else:  # the X of list[X] or dict[str, X]
            annotation = next(reversed(get_args(annotation)), None)
    return _description(annotation) or "something else"


def _description(annotation: Any) -> str | None:
    if isinstance(annotation, FieldInfo):
        return annotation.description
    # The key's own description stands last, after that of its type.
    return next((text for inner in reversed(get_args(annotation)) if (text := _description(inner))), None)


def _unknown_keys(block: Block, data: Mapping[str, Any], location: Location) -> Iterator[tuple[Location, list[str]]]:
    annotations = _annotations(block)
    for name, value in data.items():
        if name not in annotations:
            yield (*location, name), [known for known in annotations if known not in data]
        elif inner := _block(annotations[name]):
            here = (*location, name)
            items = [((*here, index), item) for index, item in enumerate(value)] if isinstance(value, list) else []
            for where, item in items or [(here, value)]:
                if isinstance(item, dict):
                    yield from _unknown_keys(inner, item, where)


def _known_part(block: Block, data: Any) -> Any:
    if isinstance(data, list):
        return [_known_part(block, item) for item in data]
    if not isinstance(data, Mapping):
        return data
    annotations = _annotations(block)
    return {
        name: _known_part(inner, value) if (inner := _block(annotations[name])) else value
        for name, value in data.items()
        if name in annotations
    }
