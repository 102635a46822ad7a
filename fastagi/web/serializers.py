"""The JSON form of recordings, deliveries, calls and journal entries. Times are RFC 3339, UTC; the unknown is null.

Names here are a promise to clients: keys are added, never renamed. No encryption key, secret or raw file is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastagi.domain.delivery import Delivery, DeliveryStatus, SinkRefusals
from fastagi.domain.recording import Recording
from fastagi.domain.timestamps import rfc3339

if TYPE_CHECKING:  # imported for types only: commands that print need no SQLAlchemy
    from fastagi.recording.asterisk.channel_table import LiveChannel
    from fastagi.store.queries.calls import AnsweredCall
    from fastagi.store.queries.deliveries import Attempt
    from fastagi.store.queries.journal import Entry


def recording(r: Recording) -> dict[str, Any]:
    """Return a recording as JSON values."""
    return {
        "id": r.id,
        "state": r.state.value,
        "phase": r.phase.value,
        "cause": r.public_cause.value,
        "error": r.error,
        "name": r.name,
        "file_path": r.file_path,
        "file_format": r.spec.file_format,
        "rate": r.spec.rate,
        "mode": r.spec.recording_mode,
        "encryption": r.spec.encryption or None,
        "asterisk": r.asterisk,
        "node": r.node,
        "channel": r.channel,
        "uniqueid": r.uniqueid,
        "linkedid": r.linkedid,
        "session_id": r.session_id,
        "recorder": r.recorder,
        "caller": r.caller,
        "called": r.called,
        "adopted": r.adopted,
        "requested_at": rfc3339(r.requested_at),
        "started_at": rfc3339(r.started_at),
        "ended_at": rfc3339(r.ended_at),
        "finished_at": rfc3339(r.finished_at),
        "deleted_at": rfc3339(r.deleted_at),
        "legal_hold": r.legal_hold,
        "duration_seconds": r.duration_seconds,
        "audio_seconds": r.audio_seconds,
        "bytes": r.bytes,
        "sha256": r.sha256 or None,
        "paused": [[s.start, s.end] for s in r.pauses],
        "segments": [[p.channel, p.started_at] for p in r.pieces if p.told],
        "sinks": list(r.sinks),
        "facts": r.facts.to_dict(),
    }


def delivery(d: Delivery, held: Mapping[str, SinkRefusals] | None = None) -> dict[str, Any]:
    """Return a delivery as JSON values.

    :param held: sinks whose deliveries wait because their receivers refuse everything
    """
    return {
        "id": d.id,
        "recording_id": d.recording_id,
        "sink": d.sink,
        "status": d.status.value,
        "attempts": d.attempts,
        "next_at": rfc3339(d.next_at) if d.status.value == "waiting" else None,
        "created_at": rfc3339(d.created_at),
        "first_at": rfc3339(d.first_at),
        "done_at": rfc3339(d.done_at),
        "last_error": d.last_error,
        "hint": delivery_hint(d, held),
    }


def delivery_hint(d: Delivery, held: Mapping[str, SinkRefusals] | None = None) -> str:
    """Return the fault of a delivery and its remedy, when the last error does not say it."""
    if held and d.status is DeliveryStatus.WAITING and d.sink in held:
        return held[d.sink].hint
    return d.hint


def attempt(a: Attempt) -> dict[str, Any]:
    """Return an attempt as JSON values."""
    return {"n": a.n, "at": rfc3339(a.at), "seconds": round(a.seconds, 3), "ok": a.ok, "error": a.error}


def entry(e: Entry) -> dict[str, Any]:
    """Return a line of the journal as JSON values."""
    return {
        "seq": e.seq,
        "at": rfc3339(e.at),
        "event": e.event,
        "recording_id": e.recording_id,
        "from_phase": e.from_phase or None,
        "to_phase": e.to_phase or None,
        "detail": e.detail,
    }


def call(c: AnsweredCall) -> dict[str, Any]:
    """Return an answered call as JSON values. A call that the ledger does not follow has no id."""
    return {
        "id": c.id or None,
        "asterisk": c.asterisk,
        "uniqueid": c.uniqueid,
        "linkedid": c.linkedid,
        "channel": c.channel,
        "context": c.context,
        "caller": c.caller,
        "called": c.called,
        "answered_at": rfc3339(c.answered_at),
        "ended_at": rfc3339(c.ended_at),
        "required": c.required,
        "recording_id": c.recording_id or None,
        "verdict": c.verdict or None,
        "reason": c.reason,
    }


def channel(asterisk: str, c: LiveChannel, recordings: list[str]) -> dict[str, Any]:
    """Return a channel that is up now, with its running recordings, as JSON values."""
    return {
        "asterisk": asterisk,
        "channel": c.name,
        "uniqueid": c.uniqueid,
        "linkedid": c.linkedid,
        "answered": c.up,
        "caller": c.caller,
        "caller_name": c.caller_name,
        "extension": c.exten,
        "context": c.context,
        "bridge": c.bridge or None,
        "since": rfc3339(c.since),
        "answered_at": rfc3339(c.answered_at),
        "recordings": recordings,
    }
