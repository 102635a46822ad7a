"""A channel list that is seconds old when it comes, as a busy Asterisk's is: its calls are still the same ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastagi import App
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.recording.lifecycle.starting import Request
from fastagi.settings import Settings
from fastagi.testing import ScriptedAmi
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_actions import perform
from fastagi.testing.scripted_ami import Row
from support.crash_harness import until

LATE_SECONDS = 4.5


async def test_a_list_that_comes_late_ends_no_recording(tmp_path: Path) -> None:
    for name in ("spool", "recordings"):
        (tmp_path / name).mkdir()
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:

        async def late(row: Row) -> list[Row]:
            answer, _ = perform(ami, "coreshowchannels", row)
            await asyncio.sleep(LATE_SECONDS)
            return answer

        pbx = {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": tmp_path / "spool"}
        app = App(
            Settings.model_validate(
                {
                    "agi": {"port": free_port()},
                    "recordings": {"directory": str(tmp_path / "recordings")},
                    "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
                    "http": {"enabled": False},
                    "asterisk": [pbx],
                }
            )
        )
        await app.start()
        try:
            here = app.parts.pbxs["pbx"]
            await until(lambda: here.up)
            channel = ami.call()
            spec = RecordingSpec(dtmf_elim=False)
            job = await app.parts.recorder.start(
                Request(pbx=here, channel=channel.name, uniqueid=channel.uniqueid, filename="", spec=spec)
            )
            born = here.channels.get(channel.uniqueid)
            assert born is not None
            ami.script["CoreShowChannels"] = late
            ami.drop()
            await until(lambda: not here.up)
            await until(lambda: here.up and here.synced)
            again = here.channels.get(channel.uniqueid)
            assert again is not None
            assert again is not born, "it is from the list"
            assert abs(again.since - born.since) < 1.0
            ended = await job.wait(0.5)
            assert (ended, job.phase) == (False, Phase.ACTIVE)
        finally:
            await app.stop(5)
