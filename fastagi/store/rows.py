"""Converts between the domain's frozen objects and the ledger's rows: the only module that knows both.

No SQL here, and no rule: `fastagi.domain` defines what a column means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from fastagi.domain.delivery import Delivery, DeliveryStatus
from fastagi.domain.facts import Facts
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import BadArgument, StoreDamaged

_SEGMENT_KEYS = {"reason": "after", "sides_swapped": "turned", "confirmed": "seen"}
"""Fields of a segment that have another name in the ledger, so that rows of earlier versions can be read."""

_SEGMENT_FIELDS = tuple(Segment.__dataclass_fields__)
_STORED_KEYS = tuple(_SEGMENT_KEYS.get(name, name) for name in _SEGMENT_FIELDS)
_FIELD_OF = dict(zip(_STORED_KEYS, _SEGMENT_FIELDS, strict=True))
_segment_values = attrgetter(*_SEGMENT_FIELDS)  # `dataclasses.asdict` copies each value first

_SPEC_FIELDS = RecordingSpec.__dataclass_fields__


def _known(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    if spec.keys() <= _SPEC_FIELDS.keys():
        return spec
    return {name: value for name, value in spec.items() if name in _SPEC_FIELDS}


_TO_COLUMN: dict[str, Callable[[Any], Any]] = {
    "phase": lambda v: v.value,
    "cause": lambda v: v.value,
    "spec": lambda v: v.to_dict(),
    "pieces": lambda v: [dict(zip(_STORED_KEYS, _segment_values(p), strict=True)) for p in v],
    "pauses": lambda v: [[s.start, s.end] for s in v],
    "sinks": list,
    "facts": lambda v: Facts(v).to_dict(),
}
_FROM_COLUMN: dict[str, Callable[[Any], Any]] = {
    "phase": Phase,
    "cause": Cause,
    "spec": lambda v: RecordingSpec(**_known(v)),
    "pieces": lambda v: tuple(Segment(**{_FIELD_OF[k]: x for k, x in p.items() if k in _FIELD_OF}) for p in v),
    "pauses": lambda v: tuple(Span(*s) for s in v),
    "sinks": tuple,
    "facts": Facts,
}
"""Readers of copies: a field that another version left out gets its default, an unknown one is left out."""

_RECORDING_FIELDS = tuple(Recording.__dataclass_fields__)
_DELIVERY_FIELDS = tuple(Delivery.__dataclass_fields__)


def recording_columns(recording: Recording, names: tuple[str, ...] = _RECORDING_FIELDS) -> dict[str, Any]:
    """Return the columns for these fields of `recording`; `state` and `file_format` follow from two of them."""
    row: dict[str, Any] = {}
    for name in names:
        value = getattr(recording, name)
        convert = _TO_COLUMN.get(name)
        row[name] = value if convert is None else convert(value)
    if "phase" in row:
        row["state"] = recording.state.value
    if "spec" in row:
        row["file_format"] = recording.spec.file_format
    return row


def recording_of(row: Mapping[Any, Any]) -> Recording:
    """Build the recording of a row of table `recording`, or of `recording_columns` after a round trip through JSON."""
    fields = {}
    for name in _RECORDING_FIELDS:
        value = row[name]
        convert = _FROM_COLUMN.get(name)
        try:
            fields[name] = value if convert is None else convert(value)
        except (ValueError, TypeError, BadArgument) as exc:
            raise StoreDamaged("the ledger", f"recording {row['id']}: {name}: {exc}") from None
    return Recording(**fields)


def recording_of_copy(row: Mapping[str, Any]) -> Recording:
    """Build the recording of a copy that another version may have written. A missing field gets its default, an unknown
    one is left out.

    :raises TypeError: a field without a default is missing
    :raises ValueError: a value is of the wrong kind
    """
    fields = {name: row[name] for name in _RECORDING_FIELDS if name in row}
    if "facts" in fields:
        Facts.checked(fields["facts"])
    for name, convert in _FROM_COLUMN.items():
        if name in fields:
            fields[name] = convert(fields[name])
    for name in ("id", "node", "asterisk", "channel", "uniqueid", "name", "file_path"):
        if not isinstance(fields.get(name, ""), str):
            raise ValueError(f"{name} is no text")
    if not all(isinstance(value, str) for piece in fields.get("pieces", ()) for value in piece.paths):
        raise ValueError("a raw file's path is no text")
    return Recording(**fields)


def delivery_columns(delivery: Delivery) -> dict[str, Any]:
    """Return the columns of a delivery, without `call_key` and `home`, which follow from its recording."""
    row = {name: getattr(delivery, name) for name in _DELIVERY_FIELDS}
    row["status"] = delivery.status.value
    return row


def delivery_of(row: Mapping[Any, Any]) -> Delivery:
    """Build the delivery of a row of table `delivery`."""
    fields = {name: row[name] for name in _DELIVERY_FIELDS}
    fields["status"] = DeliveryStatus(fields["status"])
    return Delivery(**fields)
