"""Many calls, many recorders, bad peers, bad handlers: each call gets its recording, and nobody another's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile
import structlog.testing

from fastagi import Cause, Error, Hangup, State
from fastagi.domain.states import Phase
from fastagi.store.queries import catalogue
from fastagi.testing import AsteriskServer
from support.finished_files import below
from support.recorder_calls import HandledCall, of_call, on_call, place
from support.recorder_harness import Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

CALLS = 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(asterisk22: AsteriskServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("crowd")
    async with recording_scene(asterisk22, folder, agi={"header_seconds": 1.0}) as scene:
        yield scene


def held() -> tuple[int, int]:
    """Memory (bytes) and open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(os.listdir("/proc/self/fd"))


async def test_a_hundred_calls_at_once_are_each_recorded_and_delivered_once(scene: Scene) -> None:
    up: set[str] = set()
    all_up = asyncio.Event()

    async def handler(call: Any) -> None:
        assert await call.WholeCallRecorder.start("crowd/{uniqueid}", "ulaw", dtmf_elim=False)
        up.add(call.uniqueid)
        if len(up) == CALLS:
            all_up.set()
        await all_up.wait()  # they are all being recorded at the same time

    await on_call(scene, lambda call: call.uniqueid)  # what the first call loads is not the crowd's
    memory, files = held()
    scene.app.route("crowd")(handler)
    placed = [await scene.call("crowd", wait=False) for _ in range(CALLS)]
    await asyncio.wait_for(all_up.wait(), 60)
    assert len(scene.recorder.parts.context.jobs) == CALLS
    assert (held()[0] - memory) / CALLS < 100_000  # 16 kB seen, MixMonitor's thread is Asterisk's
    await scene.until(lambda: len(_of(scene, "/crowd/")) >= CALLS, 60)
    await scene.until(lambda: len(scene.recorder.parts.context.jobs) == 0)
    await asyncio.sleep(0.5)  # a second delivery would come now
    told = _of(scene, "/crowd/")
    assert Counter(m.session_id for m in told) == Counter(c.uniqueid for c in placed)
    assert {(m.extra["cause"], m.extra["state"]) for m in told} == {("HANGUP", "IDLE")}
    assert len({m.file_path for m in told}) == CALLS
    for metadata in told:
        info = soundfile.info(metadata.file_path)
        assert (info.subtype, info.frames) == ("ULAW", round(metadata.extra["audio_seconds"] * 8000))
    assert list(scene.spool.glob("rec-*")) == []
    assert scene.recorder.parts.context.tasks.died == 0
    memory_now, files_now = held()
    assert files_now - files < 20
    assert memory_now - memory < 20_000_000  # 3.5 MB seen, of which most is what finishing loads once


def _of(scene: Scene, folder: str) -> list[Any]:
    return [m for m in scene.sink.got if folder in m.file_path]


async def test_many_recorders_of_one_call_start_and_stop_by_themselves(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        names = [f"r{n}" for n in range(12)]
        recorders = [call.recorder(name) for name in names]
        started = await asyncio.gather(*(r.start(f"side/{n}") for n, r in zip(names, recorders, strict=True)))
        assert len({r.recording.pieces[-1].monitor_id for r in recorders}) == 12
        stopped = await asyncio.gather(*(r.stop() for r in recorders[::2]))
        states = [r.state() for r in recorders]
        with pytest.raises(Error, match="16 recorders"):
            [call.recorder(f"more{n}") for n in range(5)]
        with pytest.raises(Error, match="letters"):
            call.recorder("../x")
        return all(started), all(stopped), states

    call = await place(scene, handler)
    started, stopped, states = await call.done()
    assert (started, stopped) == (True, True)
    assert states == [State.IDLE, State.RECORDING] * 6
    told = await call.told(12)
    assert Counter(t.extra["cause"] for t in told) == {"ABORTED": 6, "HANGUP": 6}
    assert {t.extra["recorder"] for t in told} == {f"r{n}" for n in range(12)}


# -- handlers that misbehave


async def test_a_cancelled_record_goes_on(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        waiting = asyncio.create_task(rec.record("cancelled"))
        await scene.until(lambda: rec.recording and rec.recording.started_at)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        during = rec.state(), rec.cause()
        starting = asyncio.create_task(call.recorder("second").record("cancelled-early"))
        await asyncio.sleep(0)
        starting.cancel()  # in the midst of its start: either it never was, or it is whole
        await asyncio.gather(starting, return_exceptions=True)
        return during, await rec.stop(), rec.cause()

    call = await place(scene, handler)
    assert await call.done() == ((State.RECORDING, Cause.NONE), True, Cause.ABORTED)
    await call.told()
    await scene.until(lambda: not scene.recorder.parts.context.jobs.on_channel("pbx", call.uniqueid))
    assert all(m.extra["state"] == "IDLE" for m in of_call(scene, call.uniqueid))


async def test_a_handler_that_raises_leaves_the_recording_to_the_call(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        assert await call.WholeCallRecorder.start("raised")
        raise ZeroDivisionError("a bug in somebody's handler")

    with structlog.testing.capture_logs() as logs:
        call = await place(scene, handler)
        with pytest.raises(ZeroDivisionError):
            await call.done()
        (told,) = await call.told()
    assert told.extra["cause"] == "HANGUP"
    (line,) = [e for e in logs if e["event"] == "agi_handler_failed"]
    assert line["uniqueid"] == call.uniqueid


async def test_a_handler_that_returns_with_a_record_still_running(scene: Scene) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handler(call: Any) -> None:
        rec = call.WholeCallRecorder
        tasks.append(asyncio.create_task(rec.record("left-behind")))
        await scene.until(lambda: rec.recording and rec.recording.started_at)

    call = await place(scene, handler)
    await call.done()
    assert await asyncio.wait_for(tasks[0], 20) is Cause.HANGUP
    assert len(await call.told()) == 1


async def test_a_blocking_handler_whose_call_ends_under_it(scene: Scene) -> None:
    def handler(channel: Any) -> Any:
        cause = channel.WholeCallRecorder.record("blocking-end")
        return cause, channel.WholeCallRecorder.state()

    call = await place(scene, handler)
    await scene.until(
        lambda: any(j.started for j in scene.recorder.parts.context.jobs.on_channel("pbx", call.uniqueid))
    )
    await scene.hangup(call.placed)
    assert await call.done() == (Cause.HANGUP, State.IDLE)


async def test_whatever_calls_do_every_recording_ends_and_is_told_once(scene: Scene) -> None:
    """Random handlers on calls that are hung up and redirected at random moments. The seed is in the failure's text."""
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    died = scene.recorder.parts.context.tasks.died

    async def act(call: Any, name: str) -> None:
        rec = call.recorder(name)
        deeds: list[Callable[[], Awaitable[Any]]] = [
            lambda: rec.start("wild/{uniqueid}", dtmf_elim=dice.random() < 0.5),
            lambda: rec.record("wild/{uniqueid}", seconds_timeout=dice.uniform(0.05, 0.5)),
            lambda: rec.wait_until_finished(dice.uniform(0, 0.3)),
            rec.stop,
            rec.pause,
            rec.resume,
            lambda: call.record_start("wild/own-{uniqueid}"),
            call.record_stop,
            lambda: call.stream_file("beep"),
            lambda: asyncio.sleep(dice.uniform(0, 0.3)),
            lambda: asyncio.wait_for(rec.record("wild/{uniqueid}"), dice.uniform(0.05, 0.5)),
        ]
        for _ in range(dice.randrange(2, 9)):
            with contextlib.suppress(Error, Hangup, TimeoutError):
                await dice.choice(deeds)()

    async def handler(call: Any) -> None:
        await asyncio.gather(*(act(call, name) for name in ("", "two")[: dice.randrange(1, 3)]))

    scene.app.route("wild")(handler)
    async with scene.asterisk.ami() as ami:

        async def one() -> None:
            await asyncio.sleep(dice.uniform(0, 2))
            call = await scene.call("wild")
            await asyncio.sleep(dice.uniform(0, 1.5))
            end = dice.choice(("AMI", "other half", "redirect", "nobody"))
            channel = call.channel if end != "other half" else call.channel[:-1] + "2"
            where = {"Context": "fastagi-testing", "Exten": "nothing", "Priority": "1"} if end == "redirect" else {}
            if end != "nobody":
                await ami.action("Redirect" if where else "Hangup", where, Channel=channel)
            if where:
                await asyncio.sleep(dice.uniform(0, 1))
                await ami.action("Hangup", Channel=call.channel)

        await asyncio.gather(*(one() for _ in range(40)))
    await scene.until(lambda: scene.app.parts.agi.sessions == 0 and len(scene.recorder.parts.context.jobs) == 0, 40)
    rows = [r for r in await _all_rows(scene) if "/wild/" in r.file_path]
    finished = {r.id for r in rows if r.phase is Phase.FINISHED}
    await scene.until(lambda: len(_of(scene, "/wild/")) >= len(finished), 20)
    assert {r.phase for r in rows} <= {Phase.FINISHED, Phase.FAILED}, seed
    assert all("was gone when" in r.error for r in rows if r.phase is Phase.FAILED), seed
    assert Counter(m.extra["recording_id"] for m in _of(scene, "/wild/")) == Counter(finished), seed
    assert {str(p) for p in (scene.directory / "wild").iterdir()} == {r.file_path for r in rows if r.id in finished}, (
        seed
    )
    assert list(scene.spool.glob("rec-*")) == [], seed
    assert scene.recorder.parts.context.tasks.died == died, seed
    assert len(rows) > 30, seed


async def _all_rows(scene: Scene) -> list[Any]:
    rows: list[Any] = []
    cursor = None
    while True:
        page, cursor = await scene.app.parts.store.read(
            lambda conn, at=cursor: catalogue.page(conn, cursor=at, limit=100)
        )
        rows += page
        if cursor is None:
            return rows


# -- peers that are no Asterisk


async def _peer(scene: Scene, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> float:
    """Seconds until the server has closed that connection, or the peer itself."""
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
    with contextlib.suppress(OSError):
        await talk(reader, writer)
        await asyncio.wait_for(reader.read(), 20)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return time.monotonic() - begin


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 64 + b"\n\n")
    await writer.drain()


async def _megabyte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(1024):
        writer.write(b"x" * 1024)
        await writer.drain()


async def _one_byte_a_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"agi_network: yes":
        writer.write(bytes([byte]))
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            if await asyncio.wait_for(reader.read(1), 1) == b"":
                return


async def _half_a_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"agi_network: yes\nagi_network_script: record/st")
    await writer.drain()
    writer.close()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return None


async def _a_session_that_answers_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    header = {"agi_network": "yes", "agi_network_script": "record/start", "agi_channel": "PJSIP/evil",
              "agi_uniqueid": "1.1"}  # fmt: skip
    writer.write("".join(f"{k}: {v}\n" for k, v in header.items()).encode() + b"\n")
    await reader.readline()
    writer.write(b"200 result=\xff\xfe(\n" + b"HANGUP\n" * 500)
    await writer.drain()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("query", [b"", b"?recorder=caf\xe9"])
async def test_half_characters_of_latin_1(
    scene: Scene, query: bytes, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the ledger nor JSON takes them: they are replaced, and nothing is left behind.

    :param known: the channel table has it; a session on no channel of the Asterisk is denied
    """
    if known:
        monkeypatch.setattr("fastagi.app.identity._in_table", lambda pbx, call: True)
    header = {
        b"agi_network": b"yes", b"agi_network_script": b"record/start" + query, b"agi_channel": b"PJSIP/x\xe9",
        b"agi_uniqueid": b"1.\xe9", b"agi_callerid": b"\xff", b"agi_calleridname": b"J\xfcrgen",
        b"agi_extension": b"1\xe9", b"agi_context": b"c", b"agi_arg_1": b"filename=caf\xe9/{caller_name}",
    }  # fmt: skip
    said = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(k + b": " + v + b"\n" for k, v in header.items()) + b"\n")
        while line := await reader.readline():
            said.append(line)
            writer.write(b"200 result=6\n" if line.startswith(b"CHANNEL STATUS") else b"200 result=1\n")

    with structlog.testing.capture_logs() as logs:
        await _peer(scene, talk)
    assert b'SET VARIABLE "RECORDING_STATE" "ERROR"\n' in said, said
    events = {e["event"] for e in logs}
    assert events & ({"record_refused", "recording_failed"} if known else {"agi_session_denied"})
    assert "agi_handler_failed" not in events
    assert not [p for p in below(scene.directory) if "caf" in str(p) and p.is_file()]


async def test_bad_peers_disturb_no_call(scene: Scene) -> None:
    release = asyncio.Event()

    async def handler(call: Any) -> Any:
        assert await call.WholeCallRecorder.start("undisturbed")
        await release.wait()
        return await call.WholeCallRecorder.stop(), await call.get_variable("RECORDING_NOTHING")

    call: HandledCall = await place(scene, handler)
    await scene.until(
        lambda: any(j.started for j in scene.recorder.parts.context.jobs.on_channel("pbx", call.uniqueid))
    )
    memory, files = held()
    kinds = (_garbage, _megabyte, _one_byte_a_second, _half_a_header, _silence, _a_session_that_answers_nonsense)
    with structlog.testing.capture_logs() as logs:
        seconds = await asyncio.gather(*(_peer(scene, kind) for kind in kinds for _ in range(5)))
        first = await on_call(scene, lambda other: other.WholeCallRecorder.state())
    assert max(seconds) < 15
    assert first is State.IDLE  # new calls are taken
    release.set()
    assert await call.done() == (True, None)
    (told,) = await call.told()
    assert told.extra["cause"] == "ABORTED"
    assert told.extra["audio_seconds"] == pytest.approx(told.duration_seconds, abs=1.0)
    assert [e for e in logs if e["event"] == "agi_session_broken"]
    assert not [e for e in logs if e["log_level"] == "error" and "exc_info" in e]
    await scene.until(lambda: scene.app.parts.agi.sessions == 0)
    memory_now, files_now = held()
    assert memory_now - memory < 10_000_000  # 1.4 MB seen; five of them sent a megabyte each
    assert files_now - files < 10
