"""Recordings of calls: started, followed, ended, finished; and the sinks they go to, by the seed's import names."""

from __future__ import annotations

from fastagi.delivery import (
    CommandSink,
    CompositeSink,
    LocalFileSink,
    ObjectStoreSink,
    RecordingSink,
    VconSink,
    WebhookSink,
)
from fastagi.domain.metadata import RecordingMetadata

__all__ = [
    "CommandSink",
    "CompositeSink",
    "LocalFileSink",
    "ObjectStoreSink",
    "RecordingMetadata",
    "RecordingSink",
    "VconSink",
    "WebhookSink",
]
