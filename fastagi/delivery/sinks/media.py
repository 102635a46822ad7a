"""The media type that a copy of a finished file is labelled with, in an object store or a vCon."""

from __future__ import annotations

import re

from fastagi.domain.formats import media_type_of
from fastagi.domain.metadata import RecordingMetadata

ENCRYPTED = "application/vnd.fastagi.encrypted"
"""No player takes it for sound. `scheme` says how it is encrypted, `content` what comes out of it."""


def media_type(metadata: RecordingMetadata) -> str:
    """Return the type of the file as it is: of an encrypted one, that it is, how, and what is inside.

    For example ``application/vnd.fastagi.encrypted; scheme=aes-256-gcm; content="audio/x-wav"``.
    """
    audio = media_type_of(metadata.format)
    scheme = re.sub(r"[^A-Za-z0-9.+-]", "_", str(metadata.extra.get("encryption") or ""))  # a header's token
    return f'{ENCRYPTED}; scheme={scheme}; content="{audio}"' if scheme else audio
