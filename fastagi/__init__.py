"""fastagi: the call recorder for Asterisk. The names here are the public ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastagi.exports import exports

# Before anybody imports numpy: its BLAS would start a spinning thread per core beside the event loop.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = [
    "AesCbcCipher",
    "AesGcmCipher",
    "AgeCipher",
    "App",
    "BlockingChannel",
    "CallChannel",
    "Cause",
    "CommandSink",
    "CompositeSink",
    "Error",
    "FastAGIError",
    "Hangup",
    "LocalFileSink",
    "ObjectStoreSink",
    "RecordingMetadata",
    "RecordingSink",
    "SinkError",
    "State",
    "UASWholeCallFileRecorder",
    "VconSink",
    "WebhookSink",
]

if TYPE_CHECKING:
    from fastagi.agi import BlockingChannel
    from fastagi.app import App
    from fastagi.cipher import AesCbcCipher, AesGcmCipher, AgeCipher
    from fastagi.domain.states import Cause, State
    from fastagi.errors import Error, FastAGIError, Hangup, SinkError
    from fastagi.recording import (
        CommandSink,
        CompositeSink,
        LocalFileSink,
        ObjectStoreSink,
        RecordingMetadata,
        RecordingSink,
        VconSink,
        WebhookSink,
    )
    from fastagi.recording.call import CallChannel
    from fastagi.recording.whole_call_recorder import UASWholeCallFileRecorder
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.agi": ["BlockingChannel"],
            "fastagi.app": ["App"],
            "fastagi.cipher": ["AesCbcCipher", "AesGcmCipher", "AgeCipher"],
            "fastagi.domain.states": ["Cause", "State"],
            "fastagi.errors": ["Error", "FastAGIError", "Hangup", "SinkError"],
            "fastagi.recording": [
                "CommandSink",
                "CompositeSink",
                "LocalFileSink",
                "ObjectStoreSink",
                "RecordingMetadata",
                "RecordingSink",
                "VconSink",
                "WebhookSink",
            ],
            "fastagi.recording.call": ["CallChannel"],
            "fastagi.recording.whole_call_recorder": ["UASWholeCallFileRecorder"],
        },
    )
