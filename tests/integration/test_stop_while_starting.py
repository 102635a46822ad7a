"""A start that is broken off, at each of its steps: nothing is left of it, and the next start finds everything free."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fastagi import App
from fastagi.agi import AgiServer
from fastagi.ami import Manager
from fastagi.app.runtime import Runtime
from fastagi.delivery import DeliveryWorker
from fastagi.delivery.inprocess import InProcessDispatcher
from fastagi.delivery.maintenance import DeliveryMaintenance
from fastagi.delivery.pgqueuer_dispatch import PgQueuerDispatcher
from fastagi.errors import Error
from fastagi.recording.compliance.completeness import Completeness
from fastagi.recording.recovery.side_files import SideFileReplay
from fastagi.recording.service import RecordingService
from fastagi.runtime.threads import FileThreads
from fastagi.settings import Settings
from fastagi.store.connection_threads import Reader, Writer
from fastagi.store.lock import ProcessLock
from fastagi.store.postgres import PostgresStore
from fastagi.store.sqlite import SqliteStore
from fastagi.testing import ScriptedAmi
from fastagi.testing.ports import free_port
from fastagi.web import HttpServer
from support.cli_process import start as start_command
from support.crash_harness import until
from support.postgres_server import PostgresServer, postgres_server  # noqa: F401
from support.web_harness import web_settings

ANY = [
    (Runtime, "_same_master"),
    (RecordingService, "open"),
    (SideFileReplay, "before_serving"),
    (Completeness, "load"),
    (DeliveryWorker, "start"),
    (DeliveryMaintenance, "start"),
    (Manager, "start"),
    (HttpServer, "start"),
    (AgiServer, "start"),
    (Runtime, "_look_at_folders"),
    (FileThreads, "run"),
]
SQLITE = [(SqliteStore, "start"), (Writer, "start"), (Reader, "start"), (InProcessDispatcher, "start"), *ANY]
POSTGRES = [
    (PostgresStore, "start"),
    (PostgresStore, "_lock_node"),
    (PostgresStore, "migrate"),
    (PgQueuerDispatcher, "start"),
    (RecordingService, "open"),
    (DeliveryMaintenance, "start"),
    (Runtime, "_look_at_folders"),
]

PROMPT_SECONDS = 20.0
"""Well below systemd's 90 s; it takes a tenth of a second."""


class Held:
    """A step that goes no further.

    :param late: once it was carried out, else before
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, late: bool) -> None:
        self.reached = asyncio.Event()
        step = getattr(owner, name)

        async def held(*args: Any, **kwargs: Any) -> Any:
            if late:
                await step(*args, **kwargs)
            self.reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(owner, name, held)


def ours() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith(("fastagi", "ami", "age"))}


def descriptors() -> set[str]:
    """Sockets and files that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


@contextmanager
def nothing_left(folder: Path):  # type: ignore[no-untyped-def]
    """:raises AssertionError: a task, a thread, a descriptor, or a complaint to the loop is left after the block"""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    tasks, threads, open_before = asyncio.all_tasks(), ours(), descriptors()
    yield
    gc.collect()
    assert asyncio.all_tasks() - tasks == set()
    assert ours() - threads == set()
    assert {f for f in descriptors() - open_before if "eventpoll" not in f} == set()
    # asyncpg's own, where one connects in that moment
    assert [c for c in complaints if "unexpected connection_lost" not in str(c.get("exception"))] == []


def ids(step: object) -> str:
    return f"{step[0].__name__}.{step[1]}" if isinstance(step, tuple) else str(step)


async def broken_off(app: App, how: str, reached: asyncio.Event) -> None:
    starting = asyncio.create_task(app.start())
    await asyncio.wait_for(reached.wait(), 30)
    begun = time.monotonic()
    if how == "stop":
        stopping = asyncio.create_task(app.stop())
        for _ in range(4):  # it is tidying up
            await asyncio.sleep(0)
        await app.stop()
        await stopping
        with pytest.raises(Error, match="stopped while it was starting"):
            await starting
    else:
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert time.monotonic() - begun < PROMPT_SECONDS
    with pytest.raises(Error, match="not started"):
        _ = app.parts


def fixed_ports(settings: Settings) -> Settings:
    """The same, so that it can be seen whether they are free."""
    agi, http = (section.model_copy(update={"port": free_port()}) for section in (settings.agi, settings.http))
    return settings.model_copy(update={"agi": agi, "http": http})


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", SQLITE, ids=ids)
async def test_a_start_on_sqlite_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], late: bool, how: str
) -> None:
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        settings = fixed_ports(web_settings(ami.port, ami.secret, tmp_path))
        app = App(settings)
        with nothing_left(tmp_path):
            with monkeypatch.context() as patch:
                await broken_off(app, how, Held(patch, *step, late).reached)
            lock = ProcessLock(tmp_path / "ledger.db.lock", "the test")
            lock.acquire()
            lock.release()
            for port in (settings.agi.port, settings.http.port):
                with closing(socket.create_server(("127.0.0.1", port))):
                    pass
        await app.start()
        await app.stop(1)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_start_is_broken_off_wherever_it_happens_to_be(tmp_path: Path, how: str) -> None:
    """Also between what the other tests know as steps: so many turns of the loop after its begin."""
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        settings = fixed_ports(web_settings(ami.port, ami.secret, tmp_path))
        app = App(settings)
        turns = broken = 0
        with nothing_left(tmp_path):
            while True:
                starting = asyncio.create_task(app.start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if how == "stop":
                    await asyncio.sleep(0.002 * (turns % 7))
                    await app.stop(0)
                else:
                    starting.cancel()
                try:
                    await starting
                except (Error, asyncio.CancelledError):
                    broken += 1
                else:
                    await app.stop(0)
                    break
                turns += 1 + turns // 10
        assert broken > 10


@pytest.mark.postgres
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", POSTGRES, ids=ids)
async def test_a_start_on_postgresql_is_broken_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,  # noqa: F811
    step: tuple[type, str],
    late: bool,
) -> None:
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        store = {"url": postgres_server.create_database(), "node": "one"}
        app = App(fixed_ports(web_settings(ami.port, ami.secret, tmp_path, store=store)))
        with nothing_left(tmp_path), monkeypatch.context() as patch:
            await broken_off(app, "cancel" if late else "stop", Held(patch, *step, late).reached)
        await app.start()  # or the node's name would be taken
        await app.stop(1)


async def test_a_folder_that_never_answers_holds_up_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network mount: its thread cannot be ended, and nobody waits for it."""
    looking, back = threading.Event(), threading.Event()

    def hangs(folder: Path) -> bool:
        looking.set()
        back.wait(60)
        return True

    monkeypatch.setattr("fastagi.app.runtime._ours", hangs)
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        app = App(web_settings(ami.port, ami.secret, tmp_path))
        starting = asyncio.create_task(app.start())
        try:
            await until(looking.is_set)
            begun = time.monotonic()
            await app.stop()
            assert time.monotonic() - begun < 6, "ten seconds is what a stop waits for threads otherwise"
            with pytest.raises(Error):
                await starting
        finally:
            back.set()


async def test_a_handler_that_runs_when_the_start_is_broken_off_is_given_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastagi.testing.scripted_agi import ScriptedAgi

    held = Held(monkeypatch, Runtime, "_look_at_folders", late=False)
    inside, go_on = asyncio.Event(), asyncio.Event()
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        app = App(fixed_ports(web_settings(ami.port, ami.secret, tmp_path)))

        @app.route("long")
        async def long(call: Any) -> None:
            inside.set()
            await go_on.wait()
            await call.set_variable("SAID", "all of it")

        starting = asyncio.create_task(app.start())
        await held.reached.wait()
        channel = ami.call()
        env = {"channel": channel.name, "uniqueid": channel.uniqueid}
        async with ScriptedAgi(app.settings.agi.port, script="long", env=env) as call:
            serving = asyncio.create_task(call.serve())
            await asyncio.wait_for(inside.wait(), 20)
            stopping = asyncio.create_task(app.stop())
            await asyncio.sleep(0.1)
            go_on.set()
            await serving
            await stopping
        assert call.variables == {"SAID": "all of it"}
        with pytest.raises(Error):
            await starting


async def test_sigterm_at_any_moment_of_a_start_ends_the_process(tmp_path: Path) -> None:
    """Until Python has read the program SIGTERM is the kernel's to carry out, and nothing is there to be left behind;
    what comes after that takes a tenth of a second."""
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        settings = fixed_ports(web_settings(ami.port, ami.secret, tmp_path))
        moments = random.Random(7)
        for number in range(13):
            process = await start_command("serve", "--config", _written(settings, tmp_path, ami))
            read = b""
            if number < 10:
                assert process.stderr is not None
                read = await asyncio.wait_for(process.stderr.readuntil(b"settings_read"), 60)
            await asyncio.sleep(moments.uniform(0.0, 0.12 if read else 0.8))
            code, said = await ended(process)
            if read:
                assert code == 0, said
            else:
                assert code in (0, -signal.SIGTERM), said
                assert code == 0 or "settings_read" not in said
            assert not listens(settings.agi.port)
            assert not listens(settings.http.port)
            lock = ProcessLock(tmp_path / "ledger.db.lock", "the test")
            lock.acquire()
            lock.release()
            left = set(os.listdir(tmp_path)) - {"fastagi.toml", "spool", "recordings"}
            assert left <= {"ledger.db", "ledger.db.lock", "master.key"}
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
                assert ledger.execute("pragma integrity_check").fetchone() == ("ok",)


async def test_sigterm_while_the_start_waits_for_a_locked_ledger_ends_the_process(tmp_path: Path) -> None:
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        settings = fixed_ports(web_settings(ami.port, ami.secret, tmp_path))
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("begin exclusive")
            process = await start_command("serve", "--config", _written(settings, tmp_path, ami))
            assert process.stderr is not None
            await asyncio.wait_for(process.stderr.readuntil(b"settings_read"), 60)
            await until(lambda: (tmp_path / "ledger.db.lock").exists())
            code, said = await ended(process)
        assert code == 0, said
        assert '"serving"' not in said


def _written(settings: Settings, folder: Path, ami: ScriptedAmi) -> str:
    path = folder / "fastagi.toml"
    path.write_text(
        f"[agi]\nport = {settings.agi.port}\n[http]\nport = {settings.http.port}\n"
        f'[store]\nurl = "{settings.store.url}"\n'
        f'[recordings]\ndirectory = "{settings.recordings.directory}"\nmin_free_mb = 0\n'
        f'[[asterisk]]\nport = {ami.port}\nsecret = "{ami.secret}"\nspool = "{folder}/spool"\n'
    )
    return str(path)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """SIGTERM: its code and what it said, once it is seen that nothing went wrong."""
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), PROMPT_SECONDS)
    said = (out + err).decode()
    assert "Traceback" not in said
    assert "task_died" not in said
    assert process.returncode is not None
    return process.returncode, said


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
