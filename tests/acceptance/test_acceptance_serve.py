"""`fastagi serve` as a process: a real call is recorded and followed, SIGTERM drains, mistakes are lines and code 2."""

from __future__ import annotations

import asyncio
import json
import socket
import tomllib
from pathlib import Path

import pytest

from fastagi.cipher import AesGcmCipher, MasterKey
from fastagi.settings import load
from fastagi.store import open_store
from fastagi.store.queries import keys
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from support.cli_process import command, serving, start, write_settings

pytestmark = pytest.mark.asterisk

APP = """
import asyncio
import time
import structlog
from fastagi import App

app = App()
kept = []
log = structlog.get_logger("survey")

@app.route("survey")
async def survey(call):
    log.info("asked", password="hunter2", caller=call.caller)
    await call.record_start("survey")
    log.info("records")
    await call.stream_file("demo-thanks")

@app.route("stubborn")
async def stubborn(call):
    async def never():
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
    kept.append(asyncio.ensure_future(never()))
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    log.info("will_not_end")

@app.route("threaded")
def threaded(call):
    log.info("asked_in_a_thread")
    raise RuntimeError("the handler is broken")
"""


def _agi(config: Path, route: str) -> str:
    return f"agi://127.0.0.1:{tomllib.loads(config.read_text())['agi']['port']}/{route}"


async def test_call_is_recorded_and_sigterm_drains(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    (tmp_path / "survey.py").write_text(APP)
    arguments = ("--config", str(config), "--app", "survey:app")
    async with serving(*arguments, cwd=tmp_path) as server:
        call = await asterisk22.originate(
            "Local/tone@fastagi-testing/n", application="AGI", data=_agi(config, "survey"), caller_id="<5551234>"
        )
        await server.until(lambda: server.logged("recording_started"))
        # its AGI session is inside a prompt of five seconds
        assert await server.end() == 0
    started = server.logged("recording_started")[0]
    assert started["uniqueid"] == call.uniqueid
    assert started["recording_id"].startswith("rec-")
    asked = server.logged("asked")[0]
    assert (asked["uniqueid"], asked["caller"], asked["logger"]) == (call.uniqueid, "5551234", "survey")
    assert asked["password"] == "[hidden]"
    assert "recording_id" not in asked
    assert server.logged("records")[0]["recording_id"] == started["recording_id"]
    assert [line["event"] for line in server.lines[-1:]] == ["stopped"]
    assert asterisk22.ami_secret not in server.raw
    assert "hunter2" not in server.raw

    # the call went on, and the next server finishes its file; on a slow machine the first one did
    async with serving("-c", str(config), cwd=tmp_path) as following:
        await asterisk22.cli(f"channel request hangup {call.channel}")
        logs = (server, following)
        await following.until(lambda: any(each.logged("recording_finished") for each in logs))
        assert await following.end() == 0
    [finished] = [line for each in logs for line in each.logged("recording_finished")]
    assert finished["recording_id"] == started["recording_id"]
    assert Path(finished["file"]).stat().st_size > 58


async def test_what_a_user_has_begun_and_never_ends_holds_no_stop(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    (tmp_path / "survey.py").write_text(APP)
    async with serving("--app", "survey:app", cwd=tmp_path, env={"FASTAGI_CONFIG": str(config)}) as server:
        await asterisk22.originate("Local/tone@fastagi-testing/n", application="AGI", data=_agi(config, "stubborn"))
        await server.until(lambda: server.logged("will_not_end"))
        assert await server.end() == 0
    assert server.logged("stopped")
    assert server.logged("left_behind")[0]["threads"]


async def test_broken_handler_and_unknown_route_are_lines(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    (tmp_path / "survey.py").write_text(APP)
    async with serving("--app", "survey:app", cwd=tmp_path, env={"FASTAGI_CONFIG": str(config)}) as server:
        for route in ("threaded", "nowhere"):
            await asterisk22.originate("Local/tone@fastagi-testing/n", application="AGI", data=_agi(config, route))
        await server.until(lambda: server.logged("agi_handler_failed") and server.logged("route_unknown"))
        assert await server.end() == 0
    failed = server.logged("agi_handler_failed")[0]
    assert "the handler is broken" in failed["exception"]
    # a thread's lines say which call they belong to, as a task's do
    assert server.logged("asked_in_a_thread")[0]["uniqueid"] == failed["uniqueid"]
    assert "survey" in server.logged("route_unknown")[0]["known"]


async def test_console_lines_for_people_and_words_for_systemd(tmp_path: Path) -> None:
    settings = {"FASTAGI_LOG__JSON": "false", "FASTAGI_AGI__PORT": "0", "FASTAGI_HTTP__PORT": "0"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        process = await start(
            "serve", cwd=tmp_path, env={**settings, **told, "FASTAGI_STORE__URL": f"sqlite:///{tmp_path}/ledger.db"}
        )
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            assert await loop.sock_recv(systemd, 100) == b"READY=1"
            assert await loop.sock_recv(systemd, 100) == b"WATCHDOG=1"
            process.terminate()
            assert await loop.sock_recv(systemd, 100) == b"STOPPING=1"
            log = await process.stderr.read()
            assert await process.wait() == 0
    (line,) = [line for line in log.splitlines() if b" serving " in line]
    with pytest.raises(ValueError):
        json.loads(line)
    assert b"\x1b" not in log, "no colours where nobody looks"


async def test_sigterm_while_it_starts(tmp_path: Path) -> None:
    """A database that takes connections and says nothing holds the start, not the stop."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.setblocking(False)
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        process = await start("serve", cwd=tmp_path, env={"FASTAGI_STORE__URL": url, "FASTAGI_HTTP__PORT": "0"})
        async with asyncio.timeout(30):
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            process.terminate()
            _, err = await process.communicate()
            connection.close()
    assert process.returncode == 0, err
    assert b"Traceback" not in err


async def test_wrong_settings_are_a_line_each(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text(
        '[agi]\nport = "many"\nprt = 1\n[[asterisk]]\nname = "a b"\nsecret = "hunter2"\nspool = "relative"\n'
        '[log]\nlevel = "loud"\n'
    )
    done = await command("serve", "--config", str(config))
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    for key, value, allowed in (
        ("agi.port", "'many'", "TCP port"),
        ("agi.prt", "", "allowed are host, port"),
        ("asterisk[0].name", "'a b'", "letters, digits"),
        ("asterisk[0].spool", "'relative'", "must be an absolute path"),
        ("log.level", "'loud'", "'debug', 'info', 'warning' or 'error'"),
    ):
        (line,) = [line for line in lines if key in line]
        assert value in line
        assert allowed in line
        assert str(config) in line
    assert len(lines) == 5
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


async def test_an_option_of_a_sink_that_is_missing_is_one_line_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "fastagi.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/l.db"\n[[sinks]]\nname = "crm"\ntype = "webhook"\n')
    done = await command("serve", "--config", str(config))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert "sinks[crm].url: is missing" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "--config", "nowhere.toml"), "nowhere.toml: No such file or directory"),
        (("serve", "--app", "broken:app"), "broken.py, line 2: ZeroDivisionError"),
        (("serve", "--bogus"), "No such option: --bogus"),
    ],
)
async def test_misuse_is_one_line_and_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "broken.py").write_text("x = 0\ny = 1 / x\n")
    done = await command(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


async def test_taken_port_and_taken_ledger(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    port = tomllib.loads(config.read_text())["agi"]["port"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        done = await command("serve", "--config", str(config))
    assert done.code == 2
    assert f"fastagi: agi: cannot listen on 127.0.0.1:{port}" in done.err
    assert "Traceback" not in done.err
    async with serving("--config", str(config)):
        ports = {"FASTAGI_AGI__PORT": str(free_port()), "FASTAGI_HTTP__PORT": str(free_port())}
        second = await command("serve", "--config", str(config), env=ports)
    assert second.code == 1
    assert "uses this store; one server per SQLite store" in second.err
    assert "Traceback" not in second.err


async def test_master_key_that_cannot_be_made_and_one_that_is_another(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    config = write_settings(asterisk22, tmp_path)
    done = await command("serve", "--config", str(config), env={"FASTAGI_RECORDINGS__KEY_FILE": "/proc/no/master.key"})
    assert done.code == 2
    (fault,) = done.err.splitlines()
    assert "recordings.key_file = '/proc/no/master.key'" in fault
    ledger = open_store(load(config, {}).store.url, node="test")
    await ledger.start()
    key = MasterKey(bytes(32)).wrap(AesGcmCipher(bytes(32)).to_secret(), b"rec-1")
    await ledger.run(keys.put, "rec-1", "aes-256-gcm", key)
    await ledger.stop()
    async with serving("--config", str(config)) as server:
        (told,) = server.logged("master_key_is_another")
        assert told["file"] == str(tmp_path / "master.key")
        assert "key_file" in told["hint"]
