"""Recordings of calls: started, followed, ended, finished; and the sinks they go to, by the seed's import names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

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

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.delivery": [
                "CommandSink",
                "CompositeSink",
                "LocalFileSink",
                "ObjectStoreSink",
                "RecordingSink",
                "VconSink",
                "WebhookSink",
            ],
            "fastagi.domain.metadata": ["RecordingMetadata"],
        },
    )
