"""`/audio` and `/peaks` of a recording: its finished file, whole or in part, decrypted for an admin.

The file's path comes from the ledger alone, never from a client. Files are read and deciphered in threads of their own.
The number of downloads is limited, and so is the time that a client may take for a block.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import structlog
from aiohttp import web

from fastagi.audio import file_peaks
from fastagi.cipher import Cipher, open_encrypted
from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import AudioError, CipherError
from fastagi.web.access import Role
from fastagi.web.api import RequestContext, Route
from fastagi.web.dependencies import WebDependencies
from fastagi.web.params import flag, whole
from fastagi.web.responses import Refusal, answer

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

STEP = 1 << 18
"""Bytes per block: 32 s of telephone audio."""

STREAMS = 32
"""Downloads at once: each holds a file and a block."""

BLOCK_SECONDS = 60.0
"""A client that does not take a block within this time is gone, or an attacker."""

THREADS = 4
"""A dead network mount holds one thread per download; the recorder's own threads are others."""

KEPT_PEAKS = 32
"""Waveforms kept: some 30 kB each, and a page asks for the same ones again and again."""

POINTS = whole("points", "how many steps the waveform has; 800 if left out", 1, 4000)
DOWNLOAD = flag("download", "ask the browser to save it instead of playing it")


@dataclass(frozen=True, slots=True)
class Source:
    """An opened audio file, whole or deciphered.

    :param size: bytes of the clear audio file
    """

    path: str
    size: int
    cipher: Cipher | None

    def blocks(self, start: int, length: int) -> Iterator[bytes]:
        """Yield the clear bytes from `start`. Blocking."""
        if self.cipher is not None:
            yield from open_encrypted(self.path, self.cipher, start, length)
            return
        with os.fdopen(_open(self.path), "rb", buffering=0) as file:
            file.seek(start)
            while length > 0 and (block := file.read(min(STEP, length))):
                length -= len(block)
                yield block


class Sound:
    """The routes of audio and waveforms."""

    def __init__(self, sources: WebDependencies) -> None:
        self._sources = sources
        self._threads = ThreadPoolExecutor(THREADS, "fastagi-http")
        self._streams = 0
        self._peaks: OrderedDict[tuple[str, int], dict[str, Any]] = OrderedDict()
        self._drawing = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        """Return all routes."""
        refused = {
            404: "there is no such recording, or its file is not there any more",
            409: "it has no finished file, it is encrypted and its key is gone, or another server has it",
            410: "it was deleted",
        }
        return [
            Route("GET", "/recordings/{id}/audio", self.audio, Role.VIEWER,
                  "The finished file; Range works; encrypted ones are decrypted for an admin",
                  (DOWNLOAD,), media="audio/*",
                  answers={200: "all of it", 206: "a part", 304: "the client has it", 416: "no such part", **refused}),
            Route("GET", "/recordings/{id}/peaks", self.peaks, Role.VIEWER, "What a waveform is drawn from",
                  (POINTS,), answers={200: "`peaks[step][channel]` is [lowest, highest] sample", **refused}),
        ]  # fmt: skip

    def close(self) -> None:
        """Begin no further work. Does not wait for a dead mount."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    # -- audio

    async def audio(self, asked: RequestContext) -> web.StreamResponse:
        """Answer GET /recordings/{id}/audio."""
        request = asked.request
        recording = await self._finished(asked.id)
        cipher = await self._cipher(recording, asked)
        source = await self._run(_source, recording, cipher)
        form = recording.spec.form
        tag = f'"{recording.sha256}{"-clear" if cipher is not None else ""}"'
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "ETag": tag,
            "Content-Type": form.played_as or form.media_type,
            "Content-Disposition": f'{_disposition(asked)}; filename="{_name(recording)}"',
        }
        if tag in _tags(request.headers.get("If-None-Match", "")):
            return web.Response(status=304, headers=headers)
        start, length, status = _part(request, source.size, tag)
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{source.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = length
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        if start == 0:  # log the download once, not each of the parts that a player fetches
            log.info("recording_listened", **recording.ids, who=asked.who.name, decrypted=cipher is not None)
        if self._streams >= STREAMS:
            raise Refusal(503, f"{STREAMS} downloads run already: try again", Retry_After="5")
        self._streams += 1
        try:
            return await self._send(request, response, recording, source, start, length)
        finally:
            self._streams -= 1

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        recording: Recording,
        source: Source,
        start: int,
        length: int,
    ) -> web.StreamResponse:
        blocks = source.blocks(start, length)
        # read the first block before the status is sent: a wrong key or a file that has gone can still be answered
        try:
            block = await self._run(next, blocks, b"") if length else b""
        except OSError:
            block = b""
        if length and not block:
            raise Refusal(404, "its file is not there any more")
        await response.prepare(request)
        left = length
        try:
            while block:
                left -= len(block)
                async with asyncio.timeout(BLOCK_SECONDS):
                    await response.write(block)
                block = await self._run(next, blocks, b"")
        except (TimeoutError, OSError, CipherError) as exc:
            log.warning(
                "download_broke", **recording.ids, path=request.path[:100], error=str(exc) or type(exc).__name__
            )
            left = max(1, left)
        if left:  # less than was promised: only a cut connection tells the client
            if request.transport is not None:
                request.transport.abort()
        else:
            await response.write_eof()
        return response

    async def _cipher(self, recording: Recording, asked: RequestContext) -> Cipher | None:
        if not recording.spec.encryption:
            return None
        scheme = recording.spec.encryption
        if asked.who.role < Role.ADMIN:
            raise Refusal(403, f"it is encrypted ({scheme}): only a token with the role admin gets it in clear")
        cipher = await self._sources.recorder.cipher_of(recording.id)
        if cipher is None:
            raise Refusal(409, f"it is encrypted ({scheme}) and its key is not here")
        return cipher

    async def _finished(self, recording_id: str) -> Recording:
        recording = await self._sources.ledger.recording(recording_id)
        if recording is None:
            raise Refusal(404, f"there is no recording {recording_id}")
        if recording.deleted_at is not None:
            raise Refusal(410, f"recording {recording_id} was deleted")
        if recording.phase is not Phase.FINISHED:
            why = recording.error or f"it is {recording.phase.value}"
            raise Refusal(409, f"recording {recording_id} has no finished file: {why}")
        return recording

    # -- peaks

    async def peaks(self, asked: RequestContext) -> web.Response:
        """Answer GET /recordings/{id}/peaks."""
        recording = await self._finished(asked.id)
        if recording.spec.encryption:
            raise Refusal(409, f"it is encrypted ({recording.spec.encryption}): there is no waveform of it")
        points = asked.query.get("points", 800)
        key = (recording.sha256, points)
        found = self._peaks.get(key)
        if found is None:
            async with self._drawing:  # one at a time: an hour of audio takes a second of a core
                found = self._peaks.get(key)
                if found is None:
                    await self._run(_source, recording, None)
                    found = await self._run(_drawn, recording, points)
            self._peaks[key] = found
            while len(self._peaks) > KEPT_PEAKS:
                self._peaks.popitem(last=False)
        self._peaks.move_to_end(key)
        return answer({"recording_id": recording.id, "audio_seconds": recording.audio_seconds, **found})


def _source(recording: Recording, cipher: Cipher | None) -> Source:
    """Open the file. Blocking.

    :raises Refusal: it is not there
    :raises CipherError: this key did not encrypt it
    """
    try:
        descriptor = _open(recording.file_path)
    except OSError as exc:
        raise _gone(recording, exc) from None
    try:
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return Source(recording.file_path, cipher.clear_size(recording.file_path) if cipher is not None else size, cipher)


def _open(path: str) -> int:
    """Open a regular file. Links are refused, and so are pipes, which would hold the thread."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "it is no regular file", path)
    return descriptor


def _gone(recording: Recording, exc: OSError) -> Refusal:
    return Refusal(
        404,
        f"its file cannot be read here: {exc.strerror}: look at {recording.file_path} on the server {recording.node}",
    )


def _drawn(recording: Recording, points: int) -> dict[str, Any]:
    try:
        found = file_peaks(recording.file_path, points)
    except OSError as exc:
        raise _gone(recording, exc) from None
    except AudioError as exc:
        raise Refusal(409, f"its file is no audio that can be read: {exc}") from None
    return {"channels": int(found.shape[1]), "points": len(found), "full_scale": 32768, "peaks": found.tolist()}


def _part(request: web.Request, size: int, tag: str) -> tuple[int, int, int]:
    """Return (start, length, status) of the requested part (RFC 9110, 14.2). Several ranges at once are answered whole.

    :raises Refusal: 416, the file has nothing in that range
    """
    asked = request.headers.get("Range", "")
    condition = request.headers.get("If-Range", "")
    match = re.fullmatch(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", asked, re.IGNORECASE)
    if match is None or match.group(1) == match.group(2) == "" or (condition and condition != tag):
        return 0, size, 200
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return 0, size, 200  # an invalid range is ignored
    if start >= end:
        raise Refusal(416, f"the file has {size} bytes", Content_Range=f"bytes */{size}")
    return start, end - start, 206


def _tags(header: str) -> set[str]:
    return {t.strip().removeprefix("W/") for t in header.split(",")}


def _disposition(asked: RequestContext) -> str:
    return "attachment" if asked.query.get("download", False) else "inline"


def _name(recording: Recording) -> str:
    """Return the file's own name in ASCII, for a header."""
    return re.sub(r"[^\w.+@-]", "_", os.path.basename(recording.file_path), flags=re.ASCII)[-120:]
