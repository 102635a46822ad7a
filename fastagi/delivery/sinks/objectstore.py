"""ObjectStoreSink: copies the file into S3, GCS, Azure or a folder, through obstore.

Upload is one atomic put (multipart when large) to a key that is the same on every attempt. The object is read back
before the delivery counts, because the local file may be deleted afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from yarl import URL

from fastagi.delivery.keys import DEFAULT_TEMPLATE, check_template, key_of
from fastagi.delivery.sink import current_delivery
from fastagi.delivery.sink_type import ConfiguredSink, SinkOptions, sink_type
from fastagi.delivery.sinks.media import media_type
from fastagi.delivery.sinks.post import identity_of, shown_url, without_secrets
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import BadArgument, ConfigError, SinkError

PART_BYTES = 8 * 1024 * 1024
"""Bytes of one part of a multipart upload. S3 takes 10,000 parts, so up to 80 GB; `PARTS_AT_ONCE` are in memory."""

PARTS_AT_ONCE = 4

_NO_BUCKET = ("NoSuchBucket", "specified bucket does not exist", "ContainerNotFound")
"""Error texts of S3, Google and Azure for a missing bucket, as opposed to a missing key."""

_CLIENT = (
    "allow_http",
    "connect_timeout",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_url",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
"""Options that obstore takes apart from the store's own; given with those they end in a panic (obstore 0.12). Options
that would switch off the check of certificates are not among them.
"""


class ObjectStoreOptions(SinkOptions):
    """Keys of a sink of type objectstore."""

    url: str = Field(description="s3://bucket/prefix, gs://…, az://… or file:///folder")
    key_template: str = Field(DEFAULT_TEMPLATE, description="key below it")
    delete_local: bool = Field(False, description="delete the file here once every sink has taken it")
    verify: Literal["content", "size"] = Field("content", description="content reads it back, size compares the length")
    with_metadata: bool = Field(False, description="put the metadata beside it as .json")
    options: dict[str, Any] = Field(
        {}, description="obstore's own settings: region, endpoint, credentials, allow_http, …"
    )


@sink_type("objectstore")
class ObjectStoreSink(ConfiguredSink[ObjectStoreOptions]):
    """Copies the finished file.

    :param url: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://account/container/prefix`` or ``file:///folder``
    :param key_template: the key below it; fields recording_id, session_id, name, file, suffix, format, caller, called,
        channel, node and {date:…}
    :param delete_local: delete the local file once every sink of the recording has taken it. Called directly, without
        the server, it is deleted at once
    :param verify: ``content`` reads the object back and compares SHA-256; ``size`` only compares its length
    :param with_metadata: put the metadata beside it as `<key>.json`, after the file
    :param options: obstore's own settings of that store (region, endpoint, credentials, ...) and of its HTTP client
        (allow_http, timeout, proxy_url, ...); the environment's (AWS_…, GOOGLE_…, AZURE_…) count too
    :raises BadArgument: URL, template or options cannot be used
    :raises ConfigError: the `objectstore` extra is not installed
    """

    options = ObjectStoreOptions
    summary = "Uploads the file."
    needs_file = True
    time_limit_seconds = 3600.0

    def __init__(
        self,
        url: str,
        key_template: str = DEFAULT_TEMPLATE,
        delete_local: bool = False,
        *,
        verify: Literal["content", "size"] = "content",
        with_metadata: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise ConfigError("objectstore needs an extra: pip install 'fastagi-recorder[objectstore]'") from None
        scheme = url.split("://")[0] if "://" in url else ""
        if scheme not in ("s3", "gs", "az", "file"):
            raise BadArgument(f"url={without_secrets(url)!r} must start with s3://, gs://, az:// or file:///")
        if verify not in ("content", "size"):
            raise BadArgument(f"verify={verify!r} must be content or size")
        self.key_template = check_template(key_template)
        self.delete_local = delete_local
        self.shown = shown_url(URL(url))
        self._below = URL(url).path
        places = [f"{key}={value}" for key, value in sorted((options or {}).items()) if "endpoint" in key]
        self._identity = "\n".join((identity_of(URL(url)), key_template, *places))
        self._verify = verify
        self._with_metadata = with_metadata
        given = dict(options or {})
        client = {key: given.pop(key) for key in _CLIENT if key in given}
        for key in given:
            if key.startswith(("allow_invalid", "default_", "http2_", "randomize", "proxy_excludes")):
                raise BadArgument(
                    f"options: {key!r} is not allowed; beside the store's own there are {', '.join(_CLIENT)}"
                )
        _must_be_meant(given, client)
        try:
            if scheme == "file":
                self._store = from_url(url, mkdir=True)
            else:
                # retry here only what a second heals: the delivery worker tries again for days
                settings: dict[str, Any] = {
                    "config": given,
                    "client_options": {"timeout": "300s", "connect_timeout": "10s", **client},
                    "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
                }
                self._store = from_url(url, **settings)
        except (BaseError, ValueError, TypeError, OSError) as exc:
            raise BadArgument(f"{self.shown}: {_one_line(exc)}") from None

    @property
    def identity(self) -> str:
        """Return a text that tells this sink from others of its class (see `fastagi.delivery.sink`)."""
        return self._identity

    def __repr__(self) -> str:
        return f"ObjectStoreSink({self.shown!r}, {self.key_template!r})"

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Copy the file.

        :raises SinkError: the file is not there, or the store did not take it
        """
        import obstore
        from obstore.exceptions import BaseError, InvalidPathError, NotSupportedError

        path = Path(metadata.file_path)
        try:
            key = key_of(self.key_template, metadata, self._below)
        except BadArgument as exc:
            raise SinkError(str(exc), retry=False) from None
        try:
            size, digest = await asyncio.to_thread(_measure, path)
        except OSError as exc:
            raise SinkError(f"{path}: {exc.strerror}") from None
        known = metadata.extra.get("sha256")
        if known and known != digest:
            raise SinkError(f"{path}: is not the file that was recorded (its SHA-256 differs)")
        try:
            await obstore.put_async(
                self._store,
                key,
                path,
                attributes=self._attributes(metadata),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
            await self._check(key, size, digest)
            if self._with_metadata:
                body = json.dumps(metadata.to_dict(), ensure_ascii=False, indent=1).encode()
                await obstore.put_async(self._store, key + ".json", body)
        except (InvalidPathError, NotSupportedError) as exc:
            raise SinkError(f"{self.shown}: {_one_line(exc)}", retry=False) from None
        except (BaseError, OSError) as exc:
            raise SinkError(f"{self.shown}: {_one_line(exc)}") from None
        if self.delete_local and current_delivery.get() is None:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def probe(self) -> str:
        """Check that the bucket is there and accepts these credentials: list it, or read a key that does not exist.

        :raises SinkError: it is not, or does not
        """
        from obstore.exceptions import BaseError

        try:
            await self._list_one()
        except (BaseError, OSError) as exc:
            if isinstance(exc, FileNotFoundError) or any(said in str(exc) for said in ("404 Not Found", *_NO_BUCKET)):
                raise self._no_bucket() from None
            if "403 Forbidden" not in str(exc):
                raise SinkError(f"{self.shown}: {_one_line(exc)}") from None
            await self._read_nothing()  # credentials for putting and getting objects may not list them
        if self.shown.startswith("file:"):
            folder = Path(URL(self.shown).path)
            if not await asyncio.to_thread(os.access, folder, os.W_OK | os.X_OK):
                raise SinkError(f"{self.shown}: is not writable")
        return f"{self.shown}: answers"

    def remedy(self, retry_hours: float) -> str:
        return "look at bucket, region, credentials and the way out of this network"

    def remedy_of_refusal(self, *, pinged: bool) -> str:
        return "make the bucket, or correct its name in the url"

    def _no_bucket(self) -> SinkError:
        return SinkError(f"{self.shown}: there is no such bucket", refused=True)

    async def _list_one(self) -> None:
        import obstore

        async for _ in obstore.list(self._store, chunk_size=1):
            return

    async def _read_nothing(self) -> None:
        import obstore
        from obstore.exceptions import BaseError

        try:
            await obstore.get_async(self._store, "fastagi-doctor-there-is-no-such-key")
        except FileNotFoundError as exc:
            if any(said in str(exc) for said in _NO_BUCKET):
                raise self._no_bucket() from None
        except (BaseError, OSError) as exc:
            raise SinkError(f"{self.shown}: {_one_line(exc)}") from None

    def _attributes(self, metadata: RecordingMetadata) -> dict[str, str] | None:
        if self.shown.startswith("file:"):  # a folder keeps no attributes
            return None
        return {"Content-Type": media_type(metadata)}

    async def _check(self, key: str, size: int, digest: str) -> None:
        import obstore

        if self._verify == "size":
            found = (await obstore.head_async(self._store, key))["size"]
            if found != size:
                raise SinkError(f"{self.shown}/{key}: {found} bytes arrived of {size}")
            return
        check = hashlib.sha256()
        answer = await obstore.get_async(self._store, key)
        left = size
        async for part in answer.stream(min_chunk_size=1024 * 1024):
            check.update(part)
            left -= len(part)
            if left < 0:  # it may never end
                break
        if check.hexdigest() != digest:
            raise SinkError(f"{self.shown}/{key}: what arrived is not what was sent (its SHA-256 differs)")


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _one_line(exc: BaseException) -> str:
    """Return the first line of an error: obstore appends Rust's debug form, pages long."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:300]


def _must_be_meant(options: dict[str, Any], client: dict[str, Any]) -> None:
    """Check that an endpoint without TLS is allowed: obstore would only say "builder error".

    :raises BadArgument: it is not
    """
    for key in ("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url"):
        if str(options.get(key, "")).startswith("http://") and not (client.get("allow_http") or _allowed_outside()):
            raise BadArgument(f"options.{key} is http://: add allow_http = true, or use https://")


def _allowed_outside() -> bool:
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
