"""A ledger full of recordings that were cut off, and nobody on the line: how long until all are delivered."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Phase
from fastagi.store import open_store
from fastagi.store.queries import recordings
from fastagi.testing import AsteriskServer
from fastagi.testing.sound import save, speech_samples
from support.crash_harness import DIALPLAN, Receiver, Serving, until

AGE = 600.0


async def recovery(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """The figures.

    :raises AssertionError: one was not recovered
    """
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk, Receiver() as receiver:
        server = Serving(asterisk, folder, sink=receiver.url)
        await _interrupted(server, count, seconds)
        begun = time.monotonic()
        try:
            await server.start()
            served = time.monotonic() - begun
            await until(lambda: len(receiver.ids()) >= count, 1800, f"{count} are delivered")
            took = time.monotonic() - begun
            await until(lambda: not server.unsettled(), 60)
            rows = server.recordings()
            assert len(rows) == count
            assert all(r["phase"] == "finished" and abs(r["audio_seconds"] - seconds) < 0.1 for r in rows)
            assert all(len(ids) == 1 for ids in receiver.ids().values())
            assert not list(server.spool.glob("rec-*"))
            return {
                "recordings": count,
                "audio_seconds_each": seconds,
                "serves_after_seconds": round(served, 1),
                "all_delivered_after_seconds": round(took, 1),
                "per_second": round(count / took, 1),
            }
        finally:
            await server.close()


async def _interrupted(server: Serving, count: int, seconds: float) -> None:
    """Rows that are active and raw files as a killed Asterisk leaves them, with both legs."""
    sound = save(server.spool / "sound.wav", speech_samples(seconds, 3))
    content = bytearray(sound.read_bytes())
    sound.unlink()
    content[4:8] = content[40:44] = bytes(4)
    store = open_store(f"sqlite:///{server.database}", node="one")
    await store.start()
    try:
        for n in range(count):
            at = time.time() - AGE + n / 1000
            recording_id = new_id("rec", at, os.urandom(10))
            paths = [str(server.spool / f"{recording_id}{role}.wav") for role in ("", "-rx", "-tx")]
            _write(paths, bytes(content), at + seconds)
            uniqueid = f"{int(at)}.{n}"
            row = Recording(
                id=recording_id,
                node="one",
                asterisk="pbx",
                channel=f"PJSIP/a-{n:08x}",
                uniqueid=uniqueid,
                name=recording_id,
                file_path=str(server.directory / f"{recording_id}.wav"),
                phase=Phase.ACTIVE,
                pieces=(Segment(*paths, channel=f"PJSIP/a-{n:08x}", uniqueid=uniqueid, started_at=at),),
                sinks=("crm",),
                requested_at=at,
                started_at=at,
            )
            await store.run(recordings.insert, row)
    finally:
        await store.stop()


def _write(paths: list[str], content: bytes, at: float) -> None:
    for path in paths:
        Path(path).write_bytes(content)
        os.utime(path, (at, at))
