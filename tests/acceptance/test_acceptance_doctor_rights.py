"""`fastagi doctor` as root, for a server that is another user's: red for what that user may not do, and `--fix`."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from fastagi.testing import AsteriskServer
from support.cli_process import Done, Serving, command, serving, start, write_settings

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that another user may not use"),
]

USER = "nobody"
NOBODY = pwd.getpwnam(USER)
AS_NOBODY: dict[str, Any] = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}


def _python() -> str:
    """One that nobody can run: this one may lie in a home that is closed to others; empty where there is none."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        try:
            subprocess.run([python, "-c", "import encodings"], check=True, timeout=30, capture_output=True, **AS_NOBODY)
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return ""


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """Options of `start` with which it runs for nobody, too."""
    python = _python()
    if not python:
        pytest.skip("no Python of this version that another user may run")
    found = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
    return {"python": python, "env": {"PYTHONPATH": os.pathsep.join(found)}}


class Site:
    """A server's folders, all of them nobody's, as a unit with `User=nobody` would leave them."""

    def __init__(self, folder: Path, config: Path, program: dict[str, Any]) -> None:
        self.folder, self.config, self.program = folder, config, program
        self.directory = folder / "recordings"
        self.home = folder / "state"

    async def doctor(self, *args: str, env: dict[str, str] | None = None) -> Done:
        options = {**self.program, "env": {**self.program["env"], **(env or {})}}
        return await command("doctor", "--config", str(self.config), *args, **options)

    def serving(self, **user: Any) -> AbstractAsyncContextManager[Serving]:
        return serving("--config", str(self.config), **self.program, **user)

    async def as_nobody(self, *args: str) -> tuple[int | None, str]:
        """Run ``fastagi ARGS``; the code and standard error."""
        process = await start(*args, "--config", str(self.config), **self.program, **AS_NOBODY)
        async with asyncio.timeout(60):
            _, err = await process.communicate()
        return process.returncode, err.decode()

    async def served(self) -> None:
        """A server of nobody's has run, and made all of its files."""
        async with self.serving(**AS_NOBODY) as server:
            await server.end()


@pytest.fixture
def site(asterisk22: AsteriskServer, program: dict[str, Any]) -> Iterator[Site]:
    """Below a folder that everybody may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="fastagi-doctor-"))
    folder.chmod(0o755)
    made = Site(folder, write_settings(asterisk22, folder), program)
    text = made.config.read_text().replace(f"{folder}/ledger.db", f"{folder}/state/ledger.db")
    made.config.write_text(text)
    made.config.chmod(0o644)
    made.home.mkdir(mode=0o700)
    made.directory.chmod(0o750)
    for path in (made.home, made.directory):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    yield made
    shutil.rmtree(folder)


def failed(done: Done) -> dict[str, dict[str, Any]]:
    return {f"{c['area']}/{c['check']}": c for c in done.json["checks"] if c["status"] == "fail"}


def todays_folder(site: Site) -> Path:
    path = site.directory / "2026" / "11" / "30"
    path.mkdir(parents=True)
    return path


def roots(name: str) -> Callable[[Site], Path]:
    def make(site: Site) -> Path:
        path = site.home / name
        path.touch()
        os.chown(path, 0, 0)
        path.chmod(0o600)
        return path

    return make


def roots_home(site: Site) -> Path:
    os.chown(site.home, 0, 0)
    return site.home


def roots_directory(site: Site) -> Path:
    os.chown(site.directory, 0, 0)
    return site.directory


def no_directory(site: Site) -> Path:
    shutil.rmtree(site.directory)
    return site.directory


def no_home(site: Site) -> Path:
    shutil.rmtree(site.home)
    return site.home


def open_key(site: Site) -> Path:
    path = site.home / "master.key"
    path.chmod(0o644)
    return path


def roots_side_files(site: Site) -> Path:
    path = site.directory / ".side-files"
    path.mkdir(mode=0o700, exist_ok=True)
    os.chown(path, 0, 0)
    return path


RIGHTS = {
    "today": (todays_folder, "recordings/folders", f"chown {USER}:"),
    "lock": (roots("ledger.db.lock"), "store/writable", f"chown {USER}:"),
    "ledger": (roots("ledger.db"), "store/writable", f"chown {USER}:"),
    "key": (roots("master.key"), "key/master key", f"chown {USER}:"),
    "home": (roots_home, "store/writable", f"-o {USER}"),
    "directory": (roots_directory, "recordings/writable", f"-o {USER}"),
    "no directory": (no_directory, "recordings/writable", f"-o {USER} -m 2750"),
    "no home": (no_home, "store/writable", f"-o {USER} -m 700"),
    "open key": (open_key, "key/master key", "chmod 600"),
    "side files": (roots_side_files, "side files/folder", f"chown {USER}:"),
}

SINKS = {
    "lost path": ('type = "webhook"\nurl = "{url}/lost"', "reachable", "answered HEAD with 404", "path"),
    "wrong secret": (
        'type = "webhook"\nurl = "{url}/hook"\nsigning_secret = "not-the-receivers"',
        "ping",
        "answered 401",
        "signing_secret",
    ),
    "no bucket": (
        'type = "objectstore"\nurl = "s3://nowhere/calls"\n'
        'options = {{ endpoint = "{url}", allow_http = true, access_key_id = "a", secret_access_key = "b" }}',
        "reachable",
        "there is no such bucket",
        "bucket",
    ),
}
"""Of a sink: its section, the check that is red, and what text and remedy say."""


class Receiver(BaseHTTPRequestHandler):
    """Takes what is signed with its secret at ``/hook``; has no other path, and no bucket."""

    SECRET = "the-receivers"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = hmac.new(self.SECRET.encode(), body, hashlib.sha256).hexdigest()
        self._answer(204 if self.headers["X-Voxtra-Signature"] == signed else 401)

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_GET(self) -> None:
        self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    """Serve as a receiver; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("mistake", list(SINKS))
async def test_dead_sink_is_red(site: Site, receiver: str, mistake: str) -> None:
    """Each of them was green until the first call."""
    section, check, text, remedy = SINKS[mistake]
    settings = site.config.read_text()
    site.config.write_text(f'{settings}\n[[sinks]]\nname = "crm"\n{section.format(url=receiver)}\n')
    done = await site.doctor("--user", USER, "--json", *(["--send-ping"] if check == "ping" else []))
    assert done.code == 1, done.out
    assert list(failed(done)) == [f"sink crm/{check}"]
    found = failed(done)[f"sink crm/{check}"]
    assert (text in found["text"], remedy in found["remedy"]) == (True, True), found


@pytest.mark.parametrize("mistake", list(RIGHTS))
async def test_mistake_is_red_and_fixed(site: Site, mistake: str) -> None:
    """Each of them was green as root while every call of the unit failed, or had a remedy that did not help."""
    make, check, said = RIGHTS[mistake]
    await site.served()
    wrong = make(site)
    done = await site.doctor("--user", USER, "--json")
    assert done.code == 1, done.out
    assert check in failed(done), done.out
    found = failed(done)[check]
    assert str(wrong) in found["text"] + found["remedy"]
    assert said in found["remedy"]
    assert "backup" not in found["remedy"]
    repaired = await site.doctor("--user", USER, "--fix", "--json")
    assert repaired.code == 0, repaired.out
    assert all(fix["done"] for fix in repaired.json["fixes"])
    await site.served()


async def test_trial_as_root_is_handed_over(site: Site) -> None:
    """One command from "as root, for a trial" to the unit's user: then that one serves."""
    for path in (site.home, site.directory):
        shutil.rmtree(path)
    async with site.serving() as server:
        todays_folder(site)
        (site.directory / "2026" / "11" / "30" / "a.wav").touch(0o600)
        sides = site.directory / ".side-files"
        sides.mkdir(mode=0o755, exist_ok=True)
        (sides / "rec-1.journal").touch(0o600)
        await server.end()
    assert (await site.doctor("--user", USER)).code == 1
    done = await site.doctor("--user", USER, "--fix")
    assert done.code == 0, done.out
    assert f"chown {USER}: {site.home}/master.key" in done.out
    assert "Examined again" in done.out
    assert {p.stat().st_uid for p in (sides, *sides.iterdir())} == {NOBODY.pw_uid}
    assert sides.stat().st_mode & 0o777 == 0o700
    await site.served()


async def test_running_servers_user_is_found(site: Site) -> None:
    async with site.serving(**AS_NOBODY):
        assert (await site.doctor()).code == 0
        todays_folder(site)
        done = await site.doctor("--json")
        assert f"with the rights of {USER}, by the server that runs" in done.json["checks"][0]["text"]
        assert list(failed(done)) == ["recordings/folders"]


async def test_units_user_is_found(site: Site) -> None:
    """Doctor finds the unit's user by `systemctl show`; here a program of that name answers."""
    programs = site.folder / "bin"
    programs.mkdir()
    told = programs / "systemctl"
    told.write_text(f"#!/bin/sh\nprintf 'LoadState=loaded\\nUser={USER}\\nSupplementaryGroups=daemon\\nMainPID=0\\n'\n")
    told.chmod(0o755)
    done = await site.doctor("--json", env={"PATH": f"{programs}:{os.environ['PATH']}"})
    assert f"with the rights of {USER}, by User= of fastagi.service" in done.json["checks"][0]["text"]
    assert done.code == 0, done.out


@pytest.mark.parametrize("name", ["ledger.db.lock", "master.key", "ledger.db"])
async def test_serve_names_owner_and_remedy(site: Site, name: str) -> None:
    await site.served()
    wrong = roots(name)(site)
    code, err = await site.as_nobody("serve")
    assert code == 1
    (line,) = [text for text in err.splitlines() if text.startswith("fastagi: ")]
    assert f"{wrong}: Permission denied: {wrong} belongs to root, this runs as {USER}: chown {USER}: {wrong}" in line
    assert f"fastagi doctor --user {USER} --fix" in line


async def test_serve_names_the_folder_it_lacks(site: Site) -> None:
    shutil.rmtree(site.home)
    code, err = await site.as_nobody("serve")
    assert code == 2
    (line,) = err.splitlines()
    assert f"{site.folder} belongs to root, this runs as {USER}: install -d -o {USER} -m 0700 {site.home}" in line


async def test_user_is_checked(site: Site) -> None:
    unknown = await site.doctor("--user", "no-such-user")
    assert (unknown.code, "no such user" in unknown.err) == (2, True)
    code, err = await site.as_nobody("doctor", "--user", "root")
    assert (code, "only root can" in err) == (2, True)


async def test_failed_start_is_not_ready(site: Site, asterisk22: AsteriskServer) -> None:
    """A folder of today that root has made: /readyz was green while every call failed."""
    settings = tomllib.loads(site.config.read_text())
    route = f"agi://127.0.0.1:{settings['agi']['port']}/record/start?filename=2026/11/30/{{uniqueid}}"

    async def ready() -> tuple[int, dict[str, Any]]:
        async with ClientSession() as http, http.get(f"http://127.0.0.1:{settings['http']['port']}/readyz") as answer:
            return answer.status, await answer.json()

    async def until(status: int) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while (found := await ready())[0] != status:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
        return found[1]

    async with site.serving(**AS_NOBODY) as server:
        await until(200)
        folder = todays_folder(site)
        await asterisk22.originate("Local/tone@fastagi-testing/n", application="AGI", data=route)
        await server.until(lambda: server.logged("recording_failed"))
        (problem,) = (await until(503))["problems"]
        assert problem["what"] == f"recordings {site.directory}"
        assert f"in a folder there: {USER} may not write into it" in problem["problem"]
        assert "doctor --fix" in problem["do"]
        done = await site.doctor("--json")
        assert {"recordings/folders", "server/ready"} <= set(failed(done))
        assert str(folder) in failed(done)["recordings/folders"]["text"]
        assert (await site.doctor("--fix", "--json")).code == 0
        await until(200)
        await asterisk22.originate("Local/tone@fastagi-testing/n", application="AGI", data=route)
        await server.until(lambda: server.logged("recording_started"))


async def test_root_serving_for_another_is_told(site: Site) -> None:
    """Ledger, lock and key of a trial as root become the folder owner's; the folders of the day would not."""
    async with site.serving() as server:
        await server.until(lambda: server.logged("root_serves_for_another"))
        (told,) = server.logged("root_serves_for_another")
        assert (told["owner"], told["path"]) == (USER, str(site.directory))
        await server.end()
    assert {path.stat().st_uid for path in site.home.iterdir()} == {NOBODY.pw_uid}
    await site.served()
