"""Query parameters and bodies: each defined once, read strictly, and described to OpenAPI.

Every value comes from outside: an unknown name, a repeated one or a wrong value is a 400 of one line.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fastagi.web.responses import Refusal

LONGEST_VALUE = 300
"""Most characters of one query parameter: the longest value to search for is a file name."""

BODY_SECONDS = 10.0
"""Seconds that a body of at most 64 kB may take."""

_ID = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter.

    :param read: turns its text into a value; raises ValueError with the allowed values
    :param schema: the same for OpenAPI
    """

    name: str
    words: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a JSON body.

    :param kinds: Python types that it may have
    :param schema: the same for OpenAPI
    """

    name: str
    words: str
    kinds: tuple[type, ...]
    schema: Mapping[str, Any]
    required: bool = False


def text(name: str, words: str) -> Parameter:
    """Define a parameter that takes any text."""
    return Parameter(name, words, str)


def needed(name: str, words: str) -> Parameter:
    """Define a parameter that takes any text but a blank one."""
    return Parameter(name, words, lambda value: value.strip(), {"type": "string", "minLength": 1}, required=True)


def choice(name: str, words: str, values: Iterable[str]) -> Parameter:
    """Define a parameter that takes one of `values`."""
    allowed = tuple(values)

    def read(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return Parameter(name, words, read, {"type": "string", "enum": list(allowed)})


def flag(name: str, words: str) -> Parameter:
    """Define a parameter that takes yes or no."""
    known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

    def read(value: str) -> bool:
        if value.lower() not in known:
            raise ValueError("must be yes or no")
        return known[value.lower()]

    return Parameter(name, words, read, {"type": "string", "enum": ["yes", "no"]})


def whole(name: str, words: str, least: int, most: int) -> Parameter:
    """Define a parameter that takes a whole number in a range."""

    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or not least <= int(value[:20]) <= most:
            raise ValueError(f"must be a whole number, {least} to {most}")
        return int(value)

    return Parameter(name, words, read, {"type": "integer", "minimum": least, "maximum": most})


def time_of(name: str, words: str) -> Parameter:
    """Define a parameter that takes RFC 3339 (UTC without an offset) or unix seconds."""

    def read(value: str) -> float:
        try:
            if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,6})?", value):
                return float(value)
            # a plus sign in a query is decoded as a blank
            at = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError("must be a time as 2026-01-31T12:00:00Z, or unix seconds") from None

    return Parameter(name, words, read, {"type": "string", "format": "date-time"})


def an_id(name: str, words: str) -> Parameter:
    """Define a parameter that takes an id of this API."""

    def read(value: str) -> str:
        if not _ID.fullmatch(value):
            raise ValueError("is no id")
        return value

    return Parameter(name, words, read)


LIMIT = whole("limit", "how many at most; 50 if left out", 1, 1000)
CURSOR = an_id("cursor", "`next` of the page before")


def query_of(request: web.Request, allowed: Iterable[Parameter]) -> dict[str, Any]:
    """Return the query's values by name, without the missing and empty ones.

    :raises Refusal: 400
    """
    known = {p.name: p for p in allowed}
    found: dict[str, Any] = {}
    for name, value in request.query.items():
        parameter = known.get(name)
        if parameter is None:
            allowed_names = ", ".join(known) or "none"
            raise Refusal(400, f"{name[:80]!r} is no parameter here: there are {allowed_names}")
        if name in found:
            raise Refusal(400, f"{name} is there twice")
        if len(value) > LONGEST_VALUE or not value.isprintable():
            raise Refusal(400, f"{name} is too long or not printable")
        if value == "":
            continue
        try:
            found[name] = parameter.read(value)
        except ValueError as exc:
            raise Refusal(400, f"{name}={value[:80]!r} {exc}") from None
    for name, parameter in known.items():
        if parameter.required and found.get(name) in (None, ""):
            raise Refusal(400, f"{name} is missing: {parameter.words}; it goes into the URL, ?{name}=...")
    return found


async def body_of(request: web.Request, allowed: Iterable[Field]) -> dict[str, Any]:
    """Return the JSON body's values by name; a missing body is an empty one.

    :raises Refusal: 400, 408 or 415
    """
    known = {f.name: f for f in allowed}
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise Refusal(408, "the body did not come in time", Connection="close") from None
    found = _object(request, data)
    for name, value in found.items():
        wanted = known.get(name)
        if wanted is None:
            there = f"there are {', '.join(known)}" if known else "the body is empty; parameters go into the URL"
            raise Refusal(400, f"{name[:80]!r} is no key here: {there}")
        if (isinstance(value, bool) and bool not in wanted.kinds) or not isinstance(value, wanted.kinds):
            kinds = " or ".join(_KINDS[k] for k in wanted.kinds)
            raise Refusal(400, f"{name} must be {kinds}")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise Refusal(400, f"{name} is longer than {LONGEST_VALUE} characters")
    for name, wanted in known.items():
        if wanted.required and found.get(name) in (None, ""):
            raise Refusal(400, f"{name} is missing: {wanted.words}")
    return found


_KINDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _object(request: web.Request, data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    if request.content_type != "application/json":
        raise Refusal(415, "the body must be JSON: Content-Type: application/json")
    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body must be a JSON object")
    for name, value in found.items():
        if not _is_text(name) or not _is_text(value):
            raise Refusal(400, f"{name[:80]!r} has half of a surrogate pair, which no text has")
    return found


def _is_text(value: Any) -> bool:
    """Return whether every text in a value, however deep, can be used in a file name, a database and an AMI action."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are Python's extension of JSON
