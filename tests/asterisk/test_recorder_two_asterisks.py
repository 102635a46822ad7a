"""One recorder for two Asterisks on one address: each call is commanded where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fastagi import State
from fastagi.testing import AsteriskServer
from fastagi.testing.server_settings import settings_for
from support.ami_gate import AmiGate
from support.recorder_calls import place
from support.recorder_harness import Scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


class Both:
    """Scenes with one app between them; the gate is between it and the older Asterisk's manager interface."""

    def __init__(self, new: Scene, old: Scene, gate: AmiGate) -> None:
        self.new, self.old, self.gate = new, old, gate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(
    asterisk22: AsteriskServer, asterisk16: AsteriskServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Both]:
    folder = tmp_path_factory.mktemp("both")
    async with AmiGate(asterisk16.ami_port) as gate:
        spool = str(folder / "spool")
        pbxs = [
            {"name": name, "port": port, "username": pbx.ami_user, "secret": pbx.ami_secret, "spool": spool}
            for name, pbx, port in (("new", asterisk22, asterisk22.ami_port), ("old", asterisk16, gate.port))
        ]
        settings = settings_for(asterisk22, folder, asterisk=pbxs)
        new = Scene(asterisk22, folder, settings)
        old = Scene(asterisk16, folder, settings)
        old.app, old.sink = new.app, new.sink
        await new.start()
        yield Both(new, old, gate)
        await asterisk22.cli("channel request hangup all")
        await asterisk16.cli("channel request hangup all")
        await new.app.stop(5)


async def test_calls_of_both_are_recorded_where_they_are(both: Both) -> None:
    async def handler(call: Any) -> Any:
        assert await call.WholeCallRecorder.start("{asterisk}/{uniqueid}")
        return call.pbx.name, call.WholeCallRecorder.state()

    calls = await asyncio.gather(*(place(scene, handler) for scene in (both.new, both.old) * 5))
    for number, call in enumerate(calls):
        name = ("new", "old")[number % 2]
        assert await call.done() == (name, State.RECORDING)
        (told,) = await call.told()
        assert (told.extra["asterisk"], told.extra["cause"]) == (name, "HANGUP")
        assert told.file_path.endswith(f"/{name}/{call.uniqueid}.wav")


async def test_a_call_of_the_one_that_cannot_be_asked_is_not_taken_for_the_others(both: Both) -> None:
    async def handler(call: Any) -> Any:
        assert await call.WholeCallRecorder.start("deaf/{uniqueid}")
        await call.exec("Wait", 1)
        return call.pbx.name, await call.WholeCallRecorder.stop()

    pbxs = both.new.app.parts.pbxs
    both.gate.shut()
    await both.new.until(lambda: not pbxs["old"].up)
    try:
        old, new = await asyncio.gather(place(both.old, handler), place(both.new, handler))
        assert await old.done() == ("old", True)
        assert await new.done() == ("new", True)
    finally:
        both.gate.open()
    assert (await old.told())[0].extra["asterisk"] == "old"
    await both.new.until(lambda: pbxs["old"].up, 30)


async def test_a_call_may_name_its_asterisk(both: Both) -> None:
    async def handler(call: Any) -> Any:
        return call.pbx.name

    named = [await place(both.new, handler, f"asterisk={name}") for name in ("new", "nobody")]
    assert [await call.done() for call in named] == ["new", "new"]


async def test_call_naming_another_asterisk_is_denied(both: Both) -> None:
    """The name is the call's own word: the channel must be there."""
    denied = both.new.app.parts.agi.tally.denied

    async def handler(call: Any) -> Any:
        raise AssertionError("it must not run")

    call = await place(both.new, handler, "asterisk=old", wait=False)
    await both.new.until(lambda: both.new.app.parts.agi.tally.denied == denied + 1)
    assert not call.result.done()
