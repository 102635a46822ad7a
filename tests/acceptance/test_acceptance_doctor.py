"""`fastagi doctor` against a real Asterisk: well, and with each fault provoked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from fastagi.app.doctor import Finding, Status, examine
from fastagi.cipher import AesGcmCipher, MasterKey
from fastagi.delivery.sinks.signing import new_secret
from fastagi.settings import Settings, load
from fastagi.store import open_store
from fastagi.store.queries import keys
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi
from support.cli_process import command, serving, write_settings

pytestmark = pytest.mark.asterisk

SHIPPED = Path(__file__).parents[2] / "dialplan" / "manager.conf"

USERS = {
    # name: (read, write)
    "without_system": ("system,call,user", "call,reporting,user,command"),
    "without_call": ("system,call,user", "system,reporting,user,command"),
    "without_user": ("system,call,user", "system,call,reporting,command"),
    "without_command": ("system,call,user", "system,call,reporting,user"),
    "deaf": ("user", "system,call,reporting,user,command"),
    "deaf_without_command": ("call", "system,call,reporting,user"),
}


@pytest.fixture
async def users(asterisk22: AsteriskServer) -> AsyncIterator[None]:
    """The shipped manager user, and some that lack a right."""
    custom = asterisk22.folder / "etc" / "custom" / "manager.conf"
    text = SHIPPED.read_text().replace("[fastagi]", "[shipped]")
    for name, (read, write) in USERS.items():
        text += f"\n[{name}]\nsecret = s3cret\npermit = 127.0.0.1/255.255.255.255\nread = {read}\nwrite = {write}\n"
    custom.write_text(text)
    await asterisk22.cli("manager reload")
    yield
    custom.unlink()
    await asterisk22.cli("manager reload")


async def _examined(config: Path, **environment: str) -> list[Finding]:
    return await _all(load(config, environment))


async def _all(settings: Settings) -> list[Finding]:
    return [finding async for finding in examine(settings)]


def _failed(findings: list[Finding]) -> list[str]:
    return [f"{f.area}/{f.check}" for f in findings if f.status is Status.FAIL]


def _one(findings: list[Finding], area: str, check: str) -> Finding:
    (found,) = [f for f in findings if (f.area, f.check) == (area, check)]
    return found


async def test_all_is_well_before_and_beside_the_server(
    asterisk22: AsteriskServer, users: None, tmp_path: Path
) -> None:
    """With exactly the rights that dialplan/manager.conf gives."""
    config = write_settings(asterisk22, tmp_path, username="shipped", secret="change-me")
    complaints = asterisk22.complaints()
    done = await command("doctor", "--config", str(config))
    assert done.code == 0, done.out
    assert "fail" not in done.out.replace("0 failed", "")
    assert "Asterisk read a file there and wrote one" in done.out
    assert done.out.count(" is free: the server does not run") == 2
    assert asterisk22.version in done.out
    async with serving("--config", str(config)) as server:
        done = await command("doctor", "--config", str(config), "--json")
        assert done.code == 0, done.out
        assert done.json["ok"] is True
        checks = {(c["area"], c["check"]): c for c in done.json["checks"]}
        assert {c["status"] for c in checks.values()} <= {"ok", "warn"}
        for port in ("agi", "http"):
            assert checks[port, "port"]["text"].endswith("fastagi answers there")
        assert checks["server", "ready"]["status"] == "ok"
        assert str(server.process.pid) in checks["store", "server"]["text"]
        assert "up to date" in checks["store", "schema"]["text"]
        # the server took no harm from being asked
        assert not server.logged("route_unknown")
        assert not server.logged("agi_handler_failed")
    assert [p.name for p in (tmp_path / "spool").iterdir()] == []
    assert asterisk22.complaints() == complaints


@pytest.mark.parametrize(
    ("user", "failed", "said"),
    [
        ("without_system", ["rights"], "add system to `write`"),
        ("without_call", ["rights"], "add call to `write`"),
        ("without_user", ["rights"], "add user to `write`"),
        ("deaf", ["events"], "add call, system to `read`"),
        ("deaf_without_command", ["events"], "add system, user to `read`"),
        ("without_command", [], "add command to `write`"),
    ],
)
async def test_missing_rights(
    asterisk22: AsteriskServer, users: None, tmp_path: Path, user: str, failed: list[str], said: str
) -> None:
    config = write_settings(asterisk22, tmp_path, username=user, secret="s3cret")
    findings = await _examined(config)
    assert _failed(findings) == [f"asterisk pbx/{check}" for check in failed]
    assert any(said in f.remedy for f in findings)
    assert [p.name for p in (tmp_path / "spool").iterdir()] == []


async def test_login(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    findings = await _examined(write_settings(asterisk22, tmp_path, secret="wrong"))
    assert _failed(findings) == ["asterisk pbx/login"]
    assert "refused" in _one(findings, "asterisk pbx", "login").text
    findings = await _examined(write_settings(asterisk22, tmp_path), FASTAGI_ASTERISK__0__PORT=str(free_port()))
    assert "Connection refused" in _one(findings, "asterisk pbx", "login").text
    settings = load(write_settings(asterisk22, tmp_path))
    section = settings.asterisk[0].model_copy(update={"secret": None, "secret_file": tmp_path / "nowhere"})
    findings = await _all(settings.model_copy(update={"asterisk": [section]}))
    assert "nowhere" in _one(findings, "asterisk pbx", "login").text
    section = settings.asterisk[0].model_copy(update={"spool": tmp_path / "nowhere", "port": free_port()})
    findings = await _all(settings.model_copy(update={"asterisk": [section]}))
    assert "does not exist" in _one(findings, "asterisk pbx", "spool").text, "seen though Asterisk is away"
    findings = await _all(settings.model_copy(update={"asterisk": []}))
    assert "asterisk/settings" in _failed(findings)


async def test_way_back_of_a_distant_asterisk(tmp_path: Path, asterisk22: AsteriskServer) -> None:
    """192.0.2.0/24 is nobody's: nothing answers there, and what is judged are addresses."""
    settings = load(write_settings(asterisk22, tmp_path), {})
    here = settings.asterisk[0]

    async def way_back(agi: dict[str, object], **pbx: object) -> list[str]:
        section = here.model_copy(update=pbx)
        changed = {"asterisk": [section], "agi": settings.agi.model_copy(update=agi)}
        findings = await _all(settings.model_copy(update=changed))
        return [f.remedy for f in findings if f.check == "way back"]

    assert await way_back({}) == []
    assert await way_back({"allow": ["192.0.2.0/24"]}) == ["add 127.0.0.1 to agi.allow"]
    assert await way_back({"allow": ["192.0.2.0/24"]}, agi_hosts=["192.0.2.7"]) == [
        "let agi.host be this machine's address on their network"
    ]
    assert await way_back({"allow": ["192.0.2.0/24"], "host": "0.0.0.0"}, agi_hosts=["192.0.2.7"]) == []


async def test_equal_system_names_are_warned(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """Two Asterisks that call from one address: their uniqueids can be equal."""
    settings = load(write_settings(asterisk22, tmp_path), {})
    here = settings.asterisk[0]
    (tmp_path / "two").mkdir()

    async def warned(second: ScriptedAmi, host: str) -> list[str]:
        changed = {"name": "second", "host": host, "port": second.port, "spool": tmp_path / "two"}
        secret = {"username": second.user, "secret": SecretStr(second.secret), "secret_file": None}
        both = [here, here.model_copy(update={**changed, **secret})]
        findings = await _all(settings.model_copy(update={"asterisk": both}))
        return [f"{f.text}: {f.remedy}" for f in findings if f.check == "system names"]

    async with ScriptedAmi(spool=tmp_path / "two") as nameless:
        (line,) = await warned(nameless, "localhost")
    assert f"{here.name} and second call from one address" in line
    assert "systemname in asterisk.conf" in line
    async with ScriptedAmi(spool=tmp_path / "two", system_name="second") as named:
        assert await warned(named, "127.0.0.1") == []


async def test_agi_key_is_examined(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """The doctor has the key, so that it knows a server that asks for one, and does not show it."""
    config = write_settings(asterisk22, tmp_path)
    settings = load(config, {})

    async def key(**agi: object) -> Finding:
        changed = settings.model_copy(update={"agi": settings.agi.model_copy(update=agi)})
        return _one(await _all(changed), "agi", "key")

    assert (await key()).status is Status.OK
    assert (await key(allow=["10.0.0.0/8"])).status is Status.WARN
    assert (await key(allow=["10.0.0.7"])).status is Status.OK
    file = tmp_path / "agi-key"
    assert (await key(key_file=file)).status is Status.FAIL
    file.write_text("0123456789abcdef\n")
    file.chmod(0o644)
    assert "everybody here can read it" in (await key(key_file=file)).text
    file.chmod(0o640)
    assert (await key(key_file=file, allow=["10.0.0.0/8"])).status is Status.OK
    environ = {"FASTAGI_AGI__KEY_FILE": str(file)}
    async with serving("--config", str(config), env=environ):
        done = await command("doctor", "--config", str(config), env=environ)
    assert done.out.count("fastagi answers there") == 2
    assert "0123456789abcdef" not in done.out


async def test_modules(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    await asterisk22.cli("module unload app_mixmonitor.so")
    try:
        findings = await _examined(config)
    finally:
        await asterisk22.cli("module load app_mixmonitor.so")
    assert "asterisk pbx/modules" in _failed(findings)
    assert "app_mixmonitor" in _one(findings, "asterisk pbx", "modules").text
    assert "load app_mixmonitor" in _one(findings, "asterisk pbx", "rights").remedy


async def test_spool_that_asterisk_sees_otherwise(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """Two folders of one name, as in two containers: what is written here is not there."""
    config = write_settings(asterisk22, tmp_path)
    # Asterisk's own working directory is its folder, ours is another: /proc/self/cwd is two folders of one name
    for folder in (Path.cwd(), asterisk22.folder):
        (folder / "fastagi-doctor-test").mkdir()
    try:
        findings = await _all(_with_spool(config, Path("/proc/self/cwd/fastagi-doctor-test")))
    finally:
        for folder in (Path.cwd(), asterisk22.folder):
            left = [p.name for p in (folder / "fastagi-doctor-test").iterdir()]
            assert left == []
            (folder / "fastagi-doctor-test").rmdir()
    assert _failed(findings) == ["asterisk pbx/spool"]
    assert "Asterisk does not see a file" in _one(findings, "asterisk pbx", "spool").text


def _with_spool(config: Path, spool: Path) -> Settings:
    settings = load(config, {})
    section = settings.asterisk[0].model_copy(update={"spool": spool})
    return settings.model_copy(update={"asterisk": [section]})


async def test_spool_missing_or_no_folder(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    missing = await _all(_with_spool(config, tmp_path / "nowhere"))
    assert "does not exist" in _one(missing, "asterisk pbx", "spool").text
    assert "install -d" in _one(missing, "asterisk pbx", "spool").remedy
    (tmp_path / "file").touch()
    no_folder = await _all(_with_spool(config, tmp_path / "file"))
    assert "is no directory" in _one(no_folder, "asterisk pbx", "spool").text


@asynccontextmanager
async def _another_program(port: int) -> AsyncIterator[None]:
    """Has the port and answers, but not as fastagi."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nServer: another\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", port):
        yield


async def test_places_of_this_machine(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path, "[recordings.defaults]\n")
    settings = load(config, {})
    key = tmp_path / "master.key"
    MasterKey.load_or_create(key)
    key.chmod(0o644)
    (tmp_path / "plain").touch()
    recordings = settings.recordings.model_copy(
        update={"directory": tmp_path / "plain" / "below", "min_free_mb": 10**9}
    )
    async with _another_program(settings.agi.port), _another_program(settings.http.port):
        findings = await _all(settings.model_copy(update={"recordings": recordings}))
    assert set(_failed(findings)) == {
        "spool/room", "recordings/room", "recordings/writable", "agi/port", "http/port", "key/master key",
    }  # fmt: skip
    assert "min_free_mb is 1000000000" in _one(findings, "spool", "room").remedy
    assert f"sport = :{settings.agi.port}" in _one(findings, "agi", "port").remedy
    assert "chmod 600" in _one(findings, "key", "master key").remedy
    key.chmod(0o600)
    key.write_text("no key")
    assert "is not a master key" in _one(await _all(settings), "key", "master key").text


async def test_ledger(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    settings = load(write_settings(asterisk22, tmp_path), {})
    (tmp_path / "ledger.db").write_text("this is no database " * 100)
    findings = await _all(settings)
    assert _failed(findings) == ["store/damaged"]
    assert "not a database" in _one(findings, "store", "damaged").text
    (tmp_path / "ledger.db").unlink()
    # keys of encrypted recordings, and no master key: nobody may make a new one over that
    store = open_store(settings.store.url, node="test")
    await store.start()
    await store.run(keys.put, "rec-1", "aes-256-gcm", AesGcmCipher(os.urandom(32)).to_secret())
    await store.stop()
    findings = await _all(settings)
    lost = [f for f in findings if f.status is Status.FAIL]
    assert [f.text for f in lost] == [
        f"{tmp_path}/master.key is not there, but the ledger has the keys of 1 encrypted recordings"
    ]
    MasterKey.load_or_create(tmp_path / "master.key")  # another one
    (lost_key,) = [f for f in await _all(settings) if f.status is Status.FAIL]
    assert "is not the key that the ledger's 1 encrypted recordings need" in lost_key.text
    assert "key_file" in lost_key.remedy
    gone = settings.store.model_copy(update={"url": f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x"})
    findings = await _all(settings.model_copy(update={"store": gone}))
    assert _failed(findings) == ["store/reachable"]
    assert "hunter2" not in str(findings)


async def test_sinks(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.method)
        return web.Response(status=int(request.match_info["status"]))

    app = web.Application()
    app.router.add_route("*", "/{status}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    sinks = {
        "well": f'type = "webhook"\nurl = "{url}/405"',
        "moved": f'type = "webhook"\nurl = "{url}/301"',
        "ill": f'type = "webhook"\nurl = "{url}/503"',
        "stranger": f'type = "webhook"\nurl = "{url}/401"\nsigning_secret = "hunter2"',
        "forbidden": f'type = "vcon"\ntarget = "{url}/403"',
        "nowhere": f'type = "webhook"\nurl = "{url}/404"',
        "gone": f'type = "webhook"\nurl = "http://127.0.0.1:{free_port()}/x"\nsigning_secret = "hunter2"',
        "unknown": f'type = "webhook"\nurl = "{url}/200"\nsigning_sceret = "x"',
        "program": 'type = "command"\nargv = ["true", "{file_path}"]',
        "no-program": 'type = "command"\nargv = ["fastagi-no-such-program"]',
        "folder": f'type = "objectstore"\nurl = "file://{tmp_path}"',
        "vcon": f'type = "vcon"\ntarget = "{tmp_path}/vcons"',
        "kept": 'type = "local"',
    }
    more = "\n".join(f'[[sinks]]\nname = "{name}"\n{text}' for name, text in sinks.items())
    try:
        findings = await _examined(write_settings(asterisk22, tmp_path, more))
    finally:
        await runner.cleanup()
    by = {f.area.removeprefix("sink "): f for f in findings if f.area.startswith("sink ")}
    assert list(by) == list(sinks)
    assert {name: by[name].status.value for name in sinks} == {
        "well": "ok", "moved": "warn", "ill": "warn",
        "stranger": "fail", "forbidden": "fail", "nowhere": "fail", "gone": "fail", "unknown": "fail", "program": "ok",
        "no-program": "fail", "folder": "ok", "vcon": "ok", "kept": "ok",
    }  # fmt: skip
    assert set(seen) == {"HEAD"}, "a doctor delivers nothing"
    assert "signing_sceret" in by["unknown"].text
    assert "signing_secret" in by["stranger"].remedy
    assert "--send-ping" in by["nowhere"].remedy
    assert "hunter2" not in str(findings)


async def test_a_ping_proves_the_secret(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """A wrong secret or path was green until the first call."""
    pings: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            pings.append(Webhook(secrets[request.match_info["which"]]).verify(body, dict(request.headers)))
        except WebhookVerificationError:
            return web.Response(status=401, text="wrong signature")
        return web.Response(status=204)

    secrets = {"right": new_secret(), "wrong": new_secret()}
    right = secrets["right"]
    app = web.Application()
    app.router.add_post("/hook/{which}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    sinks = {"right": "hook/right", "wrong": "hook/wrong", "astray": "hok/right"}
    more = "\n".join(
        f'[[sinks]]\nname = "{name}"\ntype = "webhook"\nurl = "{url}/{path}"\nsigning_secret = "{right}"'
        for name, path in sinks.items()
    )
    config = write_settings(asterisk22, tmp_path, more)
    try:
        done = await command("doctor", "--config", str(config), "--send-ping", "--json")
    finally:
        await runner.cleanup()
    found = {c["area"]: c for c in done.json["checks"] if c["area"].startswith("sink ")}
    assert {area: (c["check"], c["status"]) for area, c in found.items()} == {
        "sink right": ("ping", "ok"),
        "sink wrong": ("ping", "fail"),
        "sink astray": ("ping", "fail"),
    }
    assert "401: wrong signature" in found["sink wrong"]["text"]
    assert "whether signing_secret is the receiver's" in found["sink wrong"]["remedy"]
    assert "answered 404" in found["sink astray"]["text"]
    assert done.code == 1
    [ping] = pings
    assert (ping["type"], ping["data"]) == ("ping", {})
    assert right not in done.out


async def test_server_that_runs_and_cannot_record(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path)
    async with serving("--config", str(config)) as server:
        (tmp_path / "spool").rename(tmp_path / "away")
        findings = await _examined(config)
        assert server.process.returncode is None
    assert "server/ready" in _failed(findings)
    assert any(f.area == "server" and "spool" in f.text and f.remedy for f in findings)


async def test_failure_is_code_1_and_both_forms_say_so(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    config = write_settings(asterisk22, tmp_path, spool=str(tmp_path / "nowhere"))
    done = await command("doctor", "--config", str(config))
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert "does not exist → install -d -o asterisk" in line
    assert "1 failed" in done.out
    done = await command("doctor", "--config", str(config), "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    wrong = await command("doctor", "--config", str(tmp_path / "nowhere.toml"))
    assert wrong.code == 2
