"""TalkDetectMonitor over HTTP: whole, in parts, encrypted; and the waveform."""

# ruff: noqa: ASYNC240  # files of a few kB, in a test

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile

from fastagi import AesCbcCipher, AesGcmCipher
from fastagi.audio import file_peaks
from fastagi.errors import CipherError
from fastagi.store.queries import recordings
from fastagi.web import sound
from support.web_harness import TOKENS, WebScene, web_scene


async def _row(scene: WebScene, recording: str) -> dict[str, Any]:
    body: dict[str, Any] = (await scene.get(f"/api/v1/recordings/{recording}", role="viewer"))[1]
    return body


async def test_file_is_sent_in_parts(tmp_path: Path) -> None:
    """The finished file is sent whole and in parts."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded("calls/Größe")
        row = await _row(scene, recording)
        data = Path(row["file_path"]).read_bytes()
        assert len(data) > 1000
        path = f"/api/v1/recordings/{recording}/audio"
        status, body, response = await scene.request("GET", path, role="viewer")
        assert (status, body) == (200, data)
        assert hashlib.sha256(body).hexdigest() == row["sha256"]
        assert response.content_type == "audio/wav"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Content-Disposition"] == 'inline; filename="Gr__e.wav"'
        tag = response.headers["ETag"]

        size = len(data)
        for asked, expected in (
            ("bytes=0-99", (0, 100)), ("bytes=100-", (100, size)), ("bytes=-44", (size - 44, size)),
            ("bytes=7-7", (7, 8)), (f"bytes=5-{size * 9}", (5, size)), (f"bytes=-{size * 9}", (0, size)),
        ):  # fmt: skip
            status, body, response = await scene.request("GET", path, role="viewer", headers={"Range": asked})
            assert (status, body) == (206, data[slice(*expected)]), asked
            assert response.headers["Content-Range"] == f"bytes {expected[0]}-{expected[1] - 1}/{size}"
        for asked in (f"bytes={size}-", "bytes=-0"):
            status, _, response = await scene.request("GET", path, role="viewer", headers={"Range": asked})
            assert (status, response.headers["Content-Range"]) == (416, f"bytes */{size}"), asked
        for asked in ("bytes=9-5", "bytes=a-b", "lines=0-5", "bytes=0-1,5-6", "bytes=-"):
            status, body, _ = await scene.request("GET", path, role="viewer", headers={"Range": asked})
            assert (status, body) == (200, data), f"{asked} is none that we know: as if it were not there"

        status, _, _ = await scene.request("GET", path, role="viewer", headers={"If-None-Match": tag})
        assert status == 304
        part = {"Range": "bytes=0-9"}
        assert (await scene.request("GET", path, role="viewer", headers={**part, "If-Range": tag}))[0] == 206
        assert (await scene.request("GET", path, role="viewer", headers={**part, "If-Range": '"old"'}))[0] == 200
        status, body, response = await scene.request("HEAD", path, role="viewer")
        assert (status, body, int(response.headers["Content-Length"])) == (200, b"", size)
        _, _, response = await scene.request("GET", path + "?download=yes", role="viewer")
        assert response.headers["Content-Disposition"].startswith("attachment;")


@pytest.mark.parametrize("cipher", [AesGcmCipher(os.urandom(32)), AesCbcCipher(os.urandom(32), os.urandom(16))])
async def test_only_admin_gets_decrypted_audio(tmp_path: Path, cipher: Any) -> None:
    """An encrypted recording is decrypted for an admin only."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded("secret", cipher=cipher, file_format="s16bit")
        row = await _row(scene, recording)
        assert row["encryption"] == cipher.scheme
        path = f"/api/v1/recordings/{recording}/audio"
        for role in ("viewer", "operator"):
            status, body = await scene.get(path, role=role)
            assert (status, cipher.scheme in body["error"]) == (403, True)
        status, clear, response = await scene.request("GET", path, role="admin")
        assert status == 200
        assert clear[:4] == b"RIFF"
        info = soundfile.info(io.BytesIO(clear))
        assert info.duration == pytest.approx(row["audio_seconds"], abs=0.001)
        for asked, part in (("bytes=40-99", clear[40:100]), ("bytes=-5", clear[-5:]), ("bytes=100-", clear[100:])):
            status, body, _ = await scene.request("GET", path, role="admin", headers={"Range": asked})
            assert (status, body) == (206, part)
        assert response.headers["ETag"] != f'"{row["sha256"]}"', "it is not what lies on the disk"
        status, body = await scene.get(f"/api/v1/recordings/{recording}/peaks", role="admin")
        assert (status, "encrypted" in body["error"]) == (409, True)


async def test_damaged_encrypted_file_is_cut_off(tmp_path: Path) -> None:
    """An encrypted file that was damaged is never given as whole."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded("secret", cipher=AesGcmCipher(os.urandom(32)), file_format="s16bit")
        file = Path((await _row(scene, recording))["file_path"])
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        status, body = await scene.get(f"/api/v1/recordings/{recording}/audio", role="admin")
        assert (status, "damaged" in body["error"]) == (409, True)


async def test_broken_file_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that breaks half way is cut off, so that the client sees that it is not whole."""
    import aiohttp

    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()

        def breaks(self: sound.Source, start: int, length: int) -> Any:
            yield b"RIFF"
            raise CipherError("damaged")

        monkeypatch.setattr(sound.Source, "blocks", breaks)
        with pytest.raises(aiohttp.ClientError):
            await scene.get(f"/api/v1/recordings/{recording}/audio", role="viewer")


async def test_missing_file_says_where_to_look(tmp_path: Path) -> None:
    """A file that is gone, a link and a folder are refused alike."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        file = Path((await _row(scene, recording))["file_path"])
        data = file.read_bytes()
        file.unlink()
        for end in ("audio", "peaks"):
            status, body = await scene.get(f"/api/v1/recordings/{recording}/{end}", role="admin")
            assert (status, str(file) in body["error"]) == (404, True)
        (tmp_path / "elsewhere.wav").write_bytes(data)
        file.symlink_to(tmp_path / "elsewhere.wav")
        assert (await scene.get(f"/api/v1/recordings/{recording}/audio", role="admin"))[0] == 404
        file.unlink()
        os.mkfifo(file)
        assert (await scene.get(f"/api/v1/recordings/{recording}/audio", role="admin"))[0] == 404


async def test_running_recording_has_no_sound(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene:
        job = await scene.record(scene.ami.call())
        status, body = await scene.get(f"/api/v1/recordings/{job.id}/audio", role="admin")
        assert (status, "active" in body["error"]) == (409, True)
        assert (await scene.get("/api/v1/recordings/rec-nothing/audio", role="admin"))[0] == 404


async def test_waveform_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waveform is that of the file, and is kept."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        row = await _row(scene, recording)
        made = []
        monkeypatch.setattr(sound, "file_peaks", lambda *a: made.append(a) or file_peaks(*a))  # type: ignore[func-returns-value]
        path = f"/api/v1/recordings/{recording}/peaks?points=50"
        status, body = await scene.get(path, role="viewer")
        assert (status, body["points"], body["channels"], body["audio_seconds"]) == (200, 50, 1, row["audio_seconds"])
        assert body["peaks"] == file_peaks(row["file_path"], 50).tolist()
        assert max(high for ((_, high),) in body["peaks"]) > 1000, "somebody was heard"
        assert (await scene.get(path, role="viewer"))[1] == body
        assert len(made) == 1


async def test_downloads_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads at once are limited, and a reader that stops is cut off."""
    monkeypatch.setattr(sound, "STREAMS", 1)
    monkeypatch.setattr(sound, "BLOCK_SECONDS", 0.5)
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        path = f"/api/v1/recordings/{recording}/audio"

        def endless(self: sound.Source, start: int, length: int) -> Any:
            for _ in range(400):
                yield b"x" * sound.STEP

        with monkeypatch.context() as patch:
            patch.setattr(sound.Source, "blocks", endless)
            patch.setattr(sound, "_part", lambda request, size, tag: (0, 400 * sound.STEP, 200))
            reader, writer = await asyncio.open_connection("127.0.0.1", scene.port, limit=1024)
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['viewer']}\r\n\r\n"
            writer.write(head.encode())
            assert b"200 OK" in await reader.readline()
            status, body = await scene.get(path, role="viewer")
            assert (status, "1 downloads run" in body["error"]) == (503, True)
            http = scene.parts.http
            await scene.until(lambda: http._sound._streams == 0)
            writer.close()
        assert (await scene.get(path, role="viewer"))[0] == 200


async def test_hung_disk_holds_only_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds a download and nothing else."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        back = threading.Event()
        real = sound._source

        def hangs(*args: Any) -> Any:
            back.wait(20)
            return real(*args)

        monkeypatch.setattr(sound, "_source", hangs)
        try:
            path = f"/api/v1/recordings/{recording}/audio"
            waiting = asyncio.create_task(scene.get(path, role="viewer"))
            assert (await scene.get("/readyz"))[0] == 200
            await scene.recorded("calls/other")
        finally:
            back.set()
        assert (await waiting)[0] == 200


async def test_only_ledger_paths_are_read(tmp_path: Path) -> None:
    """What a client sends is an id; what it says elsewhere changes nothing."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        for query in (f"?file={secret}", f"?path={secret}", f"?download={secret}"):
            status, body = await scene.get(f"/api/v1/recordings/{recording}/audio{query}", role="admin")
            assert status == 400, body
        row = await scene.parts.store.read(recordings.get, recording)
        assert row.file_path.startswith(str(scene.directory))
