"""LocalFileSink: the recording stays where it is (seed: recording-sink, class LocalFileSink)."""

from __future__ import annotations

from pathlib import Path

import structlog
from pydantic import Field

from fastagi.delivery.sink_type import ConfiguredSink, SinkOptions, sink_type
from fastagi.domain.metadata import RecordingMetadata

log = structlog.get_logger(__name__)


class LocalOptions(SinkOptions):
    """Keys of a sink of type local."""

    base_dir: Path = Field(Path("/var/spool/asterisk/recording"), description="where recordings are; only shown")


@sink_type("local")
class LocalFileSink(ConfiguredSink[LocalOptions]):
    """Writes a debug line; the seed's no-op default.

    :param base_dir: where recordings are; only shown, the file is not touched
    """

    options = LocalOptions
    summary = "Only notes that the file is there."
    needs_file = False

    def __init__(self, base_dir: str | Path = "/var/spool/asterisk/recording") -> None:
        self.base_dir = Path(base_dir)

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        log.debug(
            "recording_kept",
            recording_id=metadata.extra.get("recording_id"),
            session_id=metadata.session_id,
            file_path=metadata.file_path,
            base_dir=str(self.base_dir),
        )

    @property
    def identity(self) -> str:
        """Return a text that tells this sink from others of its class (see `fastagi.delivery.sink`)."""
        return str(self.base_dir)

    def __repr__(self) -> str:
        return f"LocalFileSink({str(self.base_dir)!r})"
