"""The one road, on real Asterisks: a dialplan line records a call, its file is finished and its sink is told."""

from __future__ import annotations

from pathlib import Path

import soundfile

from fastagi.testing import AsteriskServer
from support.recorder_harness import recording_scene


async def test_a_call_is_recorded_until_it_hangs_up_and_delivered_once(
    asterisk: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk, tmp_path) as scene:

        @scene.app.route("listen")
        async def listen(call) -> None:  # type: ignore[no-untyped-def]
            assert await call.WholeCallRecorder.start("calls/one")
            await call.exec("Wait", 3)

        call = await scene.call("listen")
        (told,) = await scene.delivered(1)
        assert (told.session_id, told.extra["cause"], told.extra["state"]) == (call.uniqueid, "HANGUP", "IDLE")
        info = soundfile.info(told.file_path)
        assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "ALAW")
        assert 2.0 < info.duration < 5.0
        assert list(scene.spool.iterdir()) == []
    assert len(scene.sink.got) == 1
