"""Evidence of real calls: a checksum that a later look confirms, and a deletion that takes file and key."""
# ruff: noqa: ASYNC240  (a test may wait for a small file)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastagi.cipher import AesGcmCipher
from fastagi.errors import Error
from fastagi.recording.compliance.evidence import Proof
from fastagi.store.queries import recordings
from fastagi.testing import AsteriskServer
from support.recorder_harness import recording_scene

KEY = bytes(range(32))


async def test_an_encrypted_recording_is_proved_held_and_deleted_with_its_key(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene:

        @scene.app.route("secret")
        async def secret(call: Any) -> None:
            assert await call.WholeCallRecorder.start("secret", cipher=AesGcmCipher(KEY))
            await call.exec("Wait", 1)

        await scene.call("secret")
        (told,) = await scene.delivered(1)
        evidence, recording_id = scene.recorder.parts.evidence, told.extra["recording_id"]
        row = await scene.app.parts.store.read(recordings.get, recording_id)
        assert (await evidence.verify(row)).proof is Proof.OK
        path = Path(told.file_path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert (await evidence.verify(row)).proof is Proof.CHANGED
        path.write_bytes(whole)
        assert (await scene.recorder.parts.context.keys.load(recording_id)).to_secret() == AesGcmCipher(KEY).to_secret()

        await evidence.hold(recording_id, "counsel", "case 7")
        with pytest.raises(Error, match="legal hold"):
            await evidence.delete_recording(recording_id, "ann", "asked for")
        await evidence.release(recording_id, "counsel", "closed")
        await scene.until(lambda: scene.app.parts.courier.stats()["delivered"] == 1)
        await evidence.delete_recording(recording_id, "ann", "asked for")
        assert not path.exists()
        assert await scene.recorder.parts.context.keys.load(recording_id) is None
        row = await scene.app.parts.store.read(recordings.get, recording_id)
        assert (await evidence.verify(row)).proof is Proof.DELETED
        assert (row.sha256, row.name) == (told.extra["sha256"], "secret")
        await scene.restart()
        assert await scene.recorder.parts.evidence.sweep() == 0
