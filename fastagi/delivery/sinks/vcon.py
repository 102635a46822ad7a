"""VconSink: sends the recording as an IETF vCon (draft-ietf-vcon-vcon-core, syntax 0.4.0) to a receiver or into a
folder.

The vCon is made from the metadata alone, the same on every attempt, its UUID included.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import Field

from fastagi.delivery.keys import check_template, key_of, started_at
from fastagi.delivery.sink import current_delivery, must_be_seconds, recording_id_of
from fastagi.delivery.sink_type import ConfiguredSink, SinkOptions, sink_type
from fastagi.delivery.sinks.media import media_type
from fastagi.delivery.sinks.post import ADDRESS_REMEDY, Receiver, receiver_remedy, without_secrets
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.naming import expand
from fastagi.domain.timestamps import rfc3339
from fastagi.errors import BadArgument, SinkError

SYNTAX = "0.4.0"

INLINE_BYTES = 64 * 1024 * 1024
"""Bytes of the largest file that is put into a vCon: about an hour of 16-bit audio, three times in memory meanwhile."""

_TELEPHONE = re.compile(r"\+?[0-9]{2,20}")


class VconOptions(SinkOptions):
    """Keys of a sink of type vcon."""

    target: str = Field(description="http(s) address or absolute folder")
    audio_url: str = Field("", description="https address of the audio; empty puts it into the vCon")
    key_template: str = Field("{date:%Y/%m/%d}/{recording_id}.vcon.json", description="file name below the folder")
    timeout_seconds: float = Field(60.0, gt=0, le=600, description="of a POST")


@sink_type("vcon")
class VconSink(ConfiguredSink[VconOptions]):
    """Makes a vCon with caller, called, one recording dialog and the metadata as an attachment.

    :param target: an http(s) URL that takes ``application/vcon``, or a folder
    :param audio_url: https URL where the receiver finds the audio, with `{recording_id}`, `{session_id}` and `{file}`;
        empty puts the audio itself into the vCon (up to `INLINE_BYTES`)
    :param key_template: file name below the folder
    :param timeout_seconds: of a POST
    :raises BadArgument: target, URL, template or time limit cannot be used
    """

    options = VconOptions
    summary = "Writes or POSTs an IETF vCon."
    needs_file = True
    reopens = True

    def __init__(
        self,
        target: str | Path,
        *,
        audio_url: str = "",
        key_template: str = "{date:%Y/%m/%d}/{recording_id}.vcon.json",
        timeout_seconds: float = 60.0,
        http_client: aiohttp.ClientSession | None = None,
    ) -> None:
        must_be_seconds(timeout_seconds)
        self._receiver: Receiver | None = None
        if str(target).startswith(("http://", "https://")):
            self._receiver = Receiver(str(target), timeout_seconds=timeout_seconds, http_client=http_client)
        elif not Path(target).is_absolute():
            raise BadArgument(f"target={without_secrets(target)!r} must be an http(s) URL or an absolute folder")
        if audio_url:
            # draft, Dialog Content: external content is fetched by HTTPS
            if not audio_url.startswith("https://"):
                raise BadArgument(f"audio_url={without_secrets(audio_url)!r} must start with https://")
            expand(audio_url, {"recording_id": "x", "session_id": "x", "file": "x"}, 0.0)
        self._folder = Path(target)
        self._audio_url = audio_url
        self._key_template = check_template(key_template)
        where = self._receiver.identity if self._receiver else f"{self._folder}\n{key_template}"
        self._identity = f"{where}\n{audio_url}" if audio_url else where
        self.time_limit_seconds = timeout_seconds + 60.0

    @property
    def identity(self) -> str:
        """Return a text that tells this sink from others of its class (see `fastagi.delivery.sink`)."""
        return self._identity

    def __repr__(self) -> str:
        return f"VconSink({self._receiver.shown if self._receiver else str(self._folder)!r})"

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Send the vCon.

        :raises SinkError: the file cannot be read or is too large, or the vCon was not taken
        """
        body = await asyncio.to_thread(self._make, metadata)
        if self._receiver is None:
            await asyncio.to_thread(self._write, metadata, body)
            return
        delivery = current_delivery.get()
        headers = {"Content-Type": "application/vcon"}
        if delivery is not None:
            headers["Idempotency-Key"] = delivery.id
        await self._receiver.post(body, headers)

    async def aclose(self) -> None:
        """Close the HTTP client, if it is owned. Idempotent."""
        if self._receiver is not None:
            await self._receiver.aclose()

    async def probe(self) -> str:
        """Check that the receiver answers, or that the folder can be written.

        :raises SinkError: it does not, or cannot
        """
        if self._receiver is not None:
            return await self._receiver.probe()
        there = self._folder
        while not await asyncio.to_thread(there.exists) and there != there.parent:
            there = there.parent
        if not await asyncio.to_thread(os.access, there, os.W_OK | os.X_OK):
            raise SinkError(f"{self._folder}: is not writable")
        return f"{self._folder}: writable"

    def remedy(self, retry_hours: float) -> str:
        return receiver_remedy(retry_hours)

    def remedy_of_refusal(self, *, pinged: bool) -> str:
        return ADDRESS_REMEDY

    def _make(self, metadata: RecordingMetadata) -> bytes:
        try:
            return json.dumps(self.vcon(metadata), separators=(",", ":")).encode("ascii")
        except OSError as exc:
            raise SinkError(f"{metadata.file_path}: {exc.strerror}") from None

    def vcon(self, metadata: RecordingMetadata) -> dict[str, Any]:
        """Return the vCon as JSON values. Blocking: reads the file.

        :raises OSError: it cannot be read
        :raises SinkError: it is too large to be put inside
        """
        extra = metadata.extra
        start = started_at(metadata)
        dialog: dict[str, Any] = {
            "type": "recording",
            "start": rfc3339(start),
            "parties": [0, 1],
            "mediatype": media_type(metadata),
            "filename": Path(metadata.file_path).name,
        }
        duration = extra.get("audio_seconds") or metadata.duration_seconds
        if duration is not None:
            dialog["duration"] = duration
        if self._audio_url:
            fields = {
                "recording_id": recording_id_of(metadata),
                "session_id": metadata.session_id,
                "file": Path(metadata.file_path).name,
            }
            dialog["url"] = expand(self._audio_url, fields, start)
            dialog["content_hash"] = "sha512-" + _base64url(_sha512(Path(metadata.file_path)))
        else:
            dialog["encoding"] = "base64url"
            dialog["body"] = _base64url(_read(Path(metadata.file_path)))
        return {
            "vcon": SYNTAX,
            "uuid": vcon_uuid(recording_id_of(metadata), start),
            "created_at": extra.get("ended_at") or rfc3339(start),
            "subject": metadata.name,
            "parties": [_party(str(extra.get("caller") or "")), _party(str(extra.get("called") or ""))],
            "dialog": [dialog],
            "analysis": [],
            "attachments": [
                {
                    "purpose": "recording-metadata",
                    "start": rfc3339(start),
                    "party": 0,
                    "dialog": 0,
                    "mediatype": "application/json",
                    "encoding": "json",
                    "body": metadata.to_dict(),
                }
            ],
        }

    def _write(self, metadata: RecordingMetadata, body: bytes) -> None:
        try:
            path = self._folder / key_of(self._key_template, metadata, str(self._folder))
        except BadArgument as exc:
            raise SinkError(str(exc), retry=False) from None
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as exc:
            part.unlink(missing_ok=True)
            raise SinkError(f"{path}: {exc.strerror}") from None


def vcon_uuid(recording_id: str, start: float) -> str:
    """Return a version 8 UUID (RFC 9562) of the recording: its start in milliseconds, then bits of its id's hash."""
    noise = int.from_bytes(hashlib.sha256(recording_id.encode("utf-8", "surrogateescape")).digest()[:10], "big")
    value = (int(start * 1000) & ((1 << 48) - 1)) << 80 | noise
    value = value & ~(0xF << 76) | 0x8 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(uuid.UUID(int=value))


def _party(number: str) -> dict[str, str]:
    if _TELEPHONE.fullmatch(number):
        return {"tel": number}
    return {"name": number} if number else {}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _sha512(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").digest()


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > INLINE_BYTES:
        raise SinkError(f"{path}: {size} bytes are too many to put into a vCon: set audio_url", retry=False)
    return path.read_bytes()
