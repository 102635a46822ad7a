"""The media type of a finished file's copy in an object store or a vCon."""

from __future__ import annotations

import re

from fastagi.domain.formats import media_type_of
from fastagi.domain.metadata import RecordingMetadata

ENCRYPTED = "application/vnd.fastagi.encrypted"
"""Media type that no player takes for sound. `scheme` is the encryption, `content` the type of the clear file."""


def media_type(metadata: RecordingMetadata) -> str:
    """Return the media type of the file as it is; for an encrypted one with its scheme and the type of its content.

    For example ``application/vnd.fastagi.encrypted; scheme=aes-256-gcm; content="audio/x-wav"``.
    """
    audio = media_type_of(metadata.format)
    scheme = re.sub(r"[^A-Za-z0-9.+-]", "_", str(metadata.extra.get("encryption") or ""))  # a header's token
    return f'{ENCRYPTED}; scheme={scheme}; content="{audio}"' if scheme else audio
