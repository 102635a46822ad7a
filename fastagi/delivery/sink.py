"""The interface of a sink. Ready-made sinks are in `fastagi.delivery.sinks`; `fastagi.delivery.worker` calls them.

Source: the seed recording-sink, class RecordingSink. Any object with `on_recording_complete(metadata)` is a sink, plain
or async; the base class only says so. A sink may carry these attributes:

    needs_file          True (the default) when it reads the file: then only the node that has the file calls it
    time_limit_seconds  how long one call may take (default `TIME_LIMIT_SECONDS`)
    concurrency         calls at once, 1 to 256 (default `CONCURRENCY`); a settings file's `concurrency` goes before it
    retry_hours         how long a delivery is tried again, up to a year (default `RETRY_HOURS`)
    delete_local        True when the file here may go once every sink of the recording has taken it
    identity            text that tells the sink from others of its class, the same after a restart; names the child
                        of a `CompositeSink` (`fastagi.delivery.identity`). A long one is shown as a digest
    reopens             True when a call after `aclose` opens again what it needs: then an object that a call brought
                        along (`record_start(sink=...)`) is closed as soon as its deliveries are made

A method `aclose`, plain or async, is called when the server stops. A flag counts when it is True or False, a number
when it is in its range. Any other value counts as missing, because a proxy or a mock has every attribute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog

from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import BadArgument

log = structlog.get_logger(__name__)

T = TypeVar("T")

TIME_LIMIT_SECONDS = 120.0
CONCURRENCY = 8
MOST_AT_ONCE = 256


class RecordingSink(ABC):
    """A destination for finished recordings.

    A sink may be called more than once for one recording: make it idempotent. Raise `fastagi.errors.SinkError` to say
    whether a failure is to be tried again; any other exception means "try again".
    """

    @abstractmethod
    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Take one finished recording; returning means that it has arrived."""


@runtime_checkable
class AnySink(Protocol):
    """The part of a sink that the delivery worker needs."""

    def on_recording_complete(self, metadata: RecordingMetadata) -> Awaitable[Any] | Any: ...


def must_be_sink(sink: object) -> None:
    """Check that an object is a sink. Called wherever a sink is given: no sink would fail only at its deliveries.

    :raises BadArgument: it is no sink, or a class instead of an object
    """
    if isinstance(sink, type):
        raise BadArgument(f"{sink.__name__} is a class: give a sink, such as {sink.__name__}(...)")
    if not callable(getattr(sink, "on_recording_complete", None)):
        raise BadArgument(f"{type(sink).__name__} is no sink: it has no on_recording_complete(metadata)")


def flag_of(sink: object, name: str, default: bool) -> bool:
    """Return a flag of a sink; the default unless it is True or False."""
    value = getattr(sink, name, default)
    return value if value is True or value is False else _not_used(sink, name, value, default)


def number_of(sink: object, name: str, default: float, most: float = float("inf")) -> float:
    """Return a number of a sink; the default unless it is above 0, finite and up to `most`."""
    value = getattr(sink, name, default)
    return value if is_number(value) and value <= most else _not_used(sink, name, value, default)


def _not_used(sink: object, name: str, value: object, default: T) -> T:
    if isinstance(value, (str, int, float)):  # a written value is a mistake; a value that a mock makes up is none
        log.warning("sink_attribute_not_used", sink=type(sink).__name__, attribute=name, value=value, default=default)
    return default


def is_number(value: object) -> bool:
    """Return whether a value is a finite number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def must_be_seconds(timeout_seconds: object) -> None:
    """Check a time limit.

    :raises BadArgument: it is none
    """
    if not is_number(timeout_seconds):
        raise BadArgument(f"timeout_seconds={timeout_seconds!r} must be a number of seconds, more than 0")


@dataclass(frozen=True, slots=True)
class CurrentDelivery:
    """The delivery that a sink is being called for.

    :param id: the same on every attempt: the idempotency key
    :param attempt: 1 for the first
    """

    id: str
    attempt: int
    recording_id: str


current_delivery: ContextVar[CurrentDelivery | None] = ContextVar("fastagi_current_delivery", default=None)
"""Set by the delivery worker while a sink runs; None when other code calls the sink."""


def recording_id_of(metadata: RecordingMetadata) -> str:
    """Return the recording's id, or the closest value in metadata that another program made."""
    return str(metadata.extra.get("recording_id") or f"{metadata.session_id}/{metadata.name}")
