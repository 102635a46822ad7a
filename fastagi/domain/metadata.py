"""Metadata of a finished recording for sinks (seed: recording-sink, class RecordingMetadata)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RecordingMetadata:
    """Metadata of a finished recording. Field names, order and defaults are the seed's.

    :param session_id: the channel's uniqueid, with the system name in front where Asterisk has one
    :param name: the recording's name as it was asked for
    :param file_path: absolute path of the finished file
    :param duration_seconds: wall-clock seconds between start and stop; None if unknown
    :param format: container of the file: wav, flac, opus, mp3 or gsm
    :param extra: recording_id, state, cause, channel, numbers, times, audio_seconds, bytes, sha256, ...
    """

    session_id: str
    name: str
    file_path: str = ""
    duration_seconds: float | None = None
    format: str = "wav"
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the seed's order."""
        return {
            "session_id": self.session_id,
            "name": self.name,
            "file_path": self.file_path,
            "duration_seconds": self.duration_seconds,
            "format": self.format,
            "extra": self.extra,
        }

    def to_json(self) -> bytes:
        """Return compact ASCII JSON in the seed's field order: the exact body of a webhook."""
        return json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=True).encode("ascii")
