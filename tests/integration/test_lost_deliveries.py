"""Deliveries through the whole App: a receiver that is down, refuses, vanishes; the order of a call; a long queue."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fastagi import App
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import SinkError, StoreError
from fastagi.recording.lifecycle.starting import Request
from fastagi.settings import Settings
from fastagi.store.queries import deliveries
from fastagi.testing.fake_calls import FakeChannel
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi
from support.crash_harness import until
from support.delivery_harness import NotingSink, finish_many


class Place:
    """Folders and settings; `server` starts an App on them with these sinks, by name."""

    def __init__(self, folder: Path, ami: ScriptedAmi) -> None:
        self.ami = ami
        pbx = {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": folder / "spool"}
        self.settings = Settings.model_validate(
            {
                "agi": {"port": free_port()},
                "recordings": {"directory": str(folder / "recordings")},
                "store": {"url": f"sqlite:///{folder}/ledger.db", "node": "one"},
                "http": {"enabled": False},
                "asterisk": [pbx],
            }
        )

    @asynccontextmanager
    async def server(self, **sinks: Any) -> AsyncIterator[App]:
        app = App(self.settings)
        for name, sink in sinks.items():
            app.sink(name, sink)
        await app.start()
        try:
            await until(lambda: app.parts.pbxs["pbx"].up)
            yield app
        finally:
            await app.stop(5)

    async def record(self, app: App, channel: FakeChannel, sink: str, recorder: str = "") -> str:
        """Record that call and stop again: the recording's id."""
        job = await app.parts.recorder.start(
            Request(
                pbx=app.parts.pbxs["pbx"],
                channel=channel.name,
                uniqueid=channel.uniqueid,
                filename="",
                spec=RecordingSpec(dtmf_elim=False),
                recorder=recorder,
                sinks=(sink,),
            )
        )
        await asyncio.sleep(0.05)  # a second of talk
        await app.parts.recorder.stop(job)
        assert job.recording.error == ""
        return job.id


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    for name in ("spool", "recordings"):
        (tmp_path / name).mkdir()
    async with ScriptedAmi(spool=tmp_path / "spool", speed=20.0) as ami:
        yield Place(tmp_path, ami)


async def statuses(app: App) -> list[tuple[str, int]]:
    def unit(conn: sa.Connection) -> list[tuple[str, int]]:
        rows = conn.execute(sa.text("select status, attempts from delivery order by id"))
        return [(status, attempts) for status, attempts in rows]

    return await app.parts.store.read(unit)


async def test_a_receiver_that_was_down_gets_all_of_a_call_in_order_across_a_restart(place: Place) -> None:
    down = NotingSink(lambda metadata: SinkError("connection refused"))
    up = NotingSink()
    call = place.ami.call()
    async with place.server(crm=down) as app:
        made = [await place.record(app, call, "crm", recorder) for recorder in ("", "second", "third")]
        await until(lambda: len(down.seen) >= 1)
        assert set(down.seen) == {made[0]}, "the later ones of a call wait for the first"
    async with place.server(crm=up) as app:
        for row in await app.parts.store.read(deliveries.due, 10, sink="crm"):
            await app.parts.courier.retry(row.id)
        await until(lambda: len(up.seen) == 3, 40)
        assert up.seen == made
        await until(lambda: app.parts.courier.stats()["delivered"] == 3)
        assert [status for status, _ in await statuses(app)] == ["delivered"] * 3
    assert len(set(up.deliveries)) == 3


async def test_a_dead_letter_is_kept_and_an_operator_revives_it(place: Place) -> None:
    refusing = True
    sink = NotingSink(lambda metadata: SinkError("410 Gone", retry=False) if refusing else None)
    async with place.server(crm=sink) as app:
        made = await place.record(app, place.ami.call(), "crm")
        await until(lambda: app.parts.courier.stats()["dead"] == 1)
        assert await statuses(app) == [("dead", 1)]
    refusing = False
    async with place.server(crm=sink) as app:
        assert await statuses(app) == [("dead", 1)], "a restart changes nothing about it"
        (delivery,) = await app.parts.store.read(deliveries.of_recording, made)
        assert "410 Gone" in delivery.last_error
        await app.parts.courier.retry(delivery.id)
        await until(lambda: app.parts.courier.stats()["delivered"] == 1)
        assert await statuses(app) == [("delivered", 2)]


async def test_deliveries_of_a_sink_that_is_gone_are_parked_until_it_is_back(place: Place) -> None:
    async with place.server(crm=NotingSink(lambda metadata: SinkError("down"))) as app:
        made = await place.record(app, place.ami.call(), "crm")
    async with place.server() as app:
        assert [status for status, _ in await statuses(app)] == ["parked"]
    back = NotingSink()
    async with place.server(crm=back) as app:
        await until(lambda: back.seen == [made])
        await until(lambda: app.parts.courier.stats()["delivered"] == 1)


async def test_ten_thousand_waiting_deliveries_do_not_slow_a_call(place: Place) -> None:
    quick, down = NotingSink(), NotingSink(lambda metadata: SinkError("down"))
    async with place.server(quick=quick, crm=down) as app:

        async def seconds() -> float:
            begun = time.perf_counter()
            for _ in range(15):
                made = await place.record(app, place.ami.call(), "quick")
                await until(lambda made=made: made in quick.seen)
            return time.perf_counter() - begun

        await seconds()
        alone = await seconds()
        for first in range(0, 10_000, 1000):
            await app.parts.store.run(finish_many, app.parts.courier, first, 1000, "crm", time.time())
        await until(lambda: app.parts.courier.stats()["down"] == ["crm"])
        beside = await seconds()
        assert beside < 3 * alone + 0.5, f"{beside / alone:.1f} times as long"


async def test_a_retry_by_the_command_beside_the_server_takes_effect_in_seconds(place: Place, tmp_path: Path) -> None:
    refusing = True
    sink = NotingSink(lambda metadata: SinkError("410 Gone", retry=False) if refusing else None)
    async with place.server(crm=sink) as app:
        made = await place.record(app, place.ami.call(), "crm")
        await until(lambda: app.parts.courier.stats()["dead"] == 1)
        refusing = False
        (delivery,) = await app.parts.store.read(deliveries.of_recording, made)
        config = tmp_path / "server.toml"
        config.write_text(f'[store]\nurl = "{place.settings.store.url}"\n')
        begun = time.monotonic()
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fastagi", "deliveries", "retry", delivery.id, "--config", str(config)
        )
        assert await command.wait() == 0
        await until(lambda: app.parts.courier.stats()["delivered"] == 1, 15)
        assert time.monotonic() - begun < 15, "a look every two seconds, and the command's own start"
        assert await statuses(app) == [("delivered", 2)]


async def test_parked_deliveries_are_given_to_another_sink_by_the_command_beside_the_server(
    place: Place, tmp_path: Path
) -> None:
    async with place.server(old=NotingSink(lambda metadata: SinkError("down"))) as app:
        made = await place.record(app, place.ami.call(), "old")
    new = NotingSink()
    async with place.server(new=new) as app:
        assert [status for status, _ in await statuses(app)] == ["parked"]
        config = tmp_path / "server.toml"
        config.write_text(f'[store]\nurl = "{place.settings.store.url}"\n')
        retry = (sys.executable, "-m", "fastagi", "deliveries", "retry", "--parked", "--config", str(config))
        refused = await asyncio.create_subprocess_exec(*retry, stderr=asyncio.subprocess.PIPE)
        _, err = await refused.communicate()
        assert refused.returncode == 1
        assert "no server that runs has a sink 'old'" in err.decode()
        assert "(there are: new)" in err.decode(), "what the server has, though these settings name none"
        assert await (await asyncio.create_subprocess_exec(*retry, "--to", "new")).wait() == 0
        await until(lambda: new.seen == [made], 15)
        await until(lambda: app.parts.courier.stats()["delivered"] == 1)


class FileSink(NotingSink):
    """One that needs the file: its deliveries are for the server that has it."""

    needs_file = True


async def test_a_server_that_got_another_name_goes_on_with_everything(place: Place) -> None:
    """A container's host name is another one each time it is made."""
    call = place.ami.call()
    down, up = FileSink(lambda metadata: SinkError("down")), FileSink()
    async with place.server(crm=down) as app:
        made = await place.record(app, place.ami.call(), "crm")
        await until(lambda: down.seen == [made])
        job = await app.parts.recorder.start(
            Request(app.parts.pbxs["pbx"], call.name, call.uniqueid, "", RecordingSpec(dtmf_elim=False), sinks=("crm",))
        )
    store = place.settings.store.model_copy(update={"node": "another"})
    place.settings = place.settings.model_copy(update={"store": store})
    async with place.server(crm=up) as app:
        await until(lambda: app.parts.recorder.parts.context.jobs.get(job.id) is not None, what="it is up, and goes on")
        await app.parts.recorder.stop(app.parts.recorder.parts.context.jobs.get(job.id))
        for row in await app.parts.store.read(deliveries.due, 10, sink="crm"):
            with contextlib.suppress(StoreError):  # it runs just now
                await app.parts.courier.retry(row.id)
        await until(lambda: sorted(up.seen) == sorted([made, job.id]))
        rows = await app.parts.store.read(
            lambda conn: set(conn.execute(sa.text("select node from recording")).scalars())
        )
        assert rows == {"another"}
