"""Servers as processes that are killed, and the accounts kept of every call meanwhile.

`Serving` is `fastagi serve` on a folder of its own; `Receiver` is the sink it delivers to; `Calls` makes calls to it on
a real Asterisk and remembers when each began and ended; `account` holds ledger, files and deliveries against that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile
from aiohttp import web

from fastagi.testing import AsteriskServer
from fastagi.testing.ami_session import AmiSession
from fastagi.testing.ports import free_port
from support.finished_files import below

DIALPLAN = """
; A call that is recorded for ${HOLD} seconds. While the server is away it asks again: a call is to be recorded.
[lost]
exten => s,1,Set(TRIES=0)
 same => n(again),AGI(${SERVER}/record/start?filename=calls/${UNIQUEID}${MORE})
 same => n,GotoIf($["${RECORDING_STATE}" = "RECORDING"]?on)
 same => n,Set(TRIES=$[${TRIES} + 1])
 same => n,GotoIf($[${TRIES} > 1000]?off)
 same => n,Wait(0.2)
 same => n,Goto(again)
 same => n(on),Wait(${HOLD})
 same => n(off),Hangup()
"""

TOLERANCE_SECONDS = 1.5
"""Between the wall clock and the audio: when a start was seen, when the last frame came."""

TOLERANCE_SHARE = 0.05
"""An Asterisk that does not get its share of the processor makes fewer frames than the clock has room for."""


async def until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> None:
    """Wait until it is true (or awaits to true).

    :raises AssertionError: it never was
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"not so within {seconds} s: {what or condition}"
        await asyncio.sleep(0.03)


class Receiver:
    """Takes webhooks and remembers them; refuses while `down`."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.refused = 0
        self.down = False
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Receiver:
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = json.loads(await request.read())
        if self.down:
            self.refused += 1
            return web.Response(status=503)
        self.got.append((request.headers["webhook-id"], body))
        return web.Response()

    def ids(self) -> dict[str, set[str]]:
        """Delivery ids by recording: more than one is a recording that was delivered as two."""
        found: dict[str, set[str]] = defaultdict(set)
        for delivery, body in self.got:
            found[body["extra"]["recording_id"]].add(delivery)
        return dict(found)

    def uniqueids(self) -> set[str]:
        """Calls that it was told of."""
        return {body["extra"]["uniqueid"] for _, body in self.got}

    def told(self, uniqueid: str) -> list[dict[str, Any]]:
        """What it was told of that call, each recording once, in order."""
        seen: dict[str, dict[str, Any]] = {}
        for _, body in self.got:
            if body["extra"]["uniqueid"] == uniqueid:
                seen.setdefault(body["extra"]["recording_id"], body)
        return list(seen.values())


class Serving:
    """`fastagi serve` as a process, with everything it writes below `folder`.

    :param ami_port: where it finds the manager interface; the Asterisk's own when None
    :param sections: what differs, as in the TOML file
    :param script: a Python file to run instead, called with the path of the settings
    """

    def __init__(
        self,
        asterisk: AsteriskServer,
        folder: Path,
        /,
        *,
        sink: str = "",
        ami_port: int | None = None,
        script: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **sections: dict[str, Any],
    ) -> None:
        self.asterisk = asterisk
        self.folder = folder
        self.port = int(sections.get("agi", {}).get("port", 0)) or free_port()
        self.spool = Path(sections.get("asterisk", {}).get("spool", folder / "spool"))
        self.directory = Path(sections.get("recordings", {}).get("directory", folder / "recordings"))
        url = str(sections.get("store", {}).get("url", f"sqlite:///{folder}/ledger.db"))
        self.database = Path(url.removeprefix("sqlite:///"))
        self.log = folder / "server.log"
        self.config = folder / "fastagi.json"
        self.script = script
        self.environ = dict(environ or {})
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        for made in (folder, self.spool, self.directory):
            made.mkdir(parents=True, exist_ok=True)
            made.chmod(0o777)
        pbx = {
            "name": "pbx",
            "port": ami_port or asterisk.ami_port,
            "username": asterisk.ami_user,
            "secret": asterisk.ami_secret,
            "spool": str(self.spool),
        }
        data: dict[str, dict[str, Any]] = {
            "agi": {"port": self.port},
            "recordings": {"directory": str(self.directory)},
            "store": {"url": url, "node": "one"},
            "http": {"enabled": False},
        }
        for name, section in sections.items():
            if name != "asterisk":
                data[name] = {**data.get(name, {}), **section}
        self.settings: dict[str, Any] = {**data, "asterisk": [{**pbx, **sections.get("asterisk", {})}]}
        if sink:
            self.settings["sinks"] = [{"name": "crm", "type": "webhook", "url": sink}]
        self.config = folder / "fastagi.toml"
        self.config.write_text(_toml(self.settings))

    @property
    def url(self) -> str:
        return f"agi://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        command = [sys.executable, str(self.script)] if self.script else [sys.executable, "-m", "fastagi", "serve"]
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.config)] if self.script else [*command, "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )

    async def start(self, seconds: float = 40.0) -> None:
        """Start it and wait until dialplans can call."""
        self.launch()
        await until(self.answers, seconds, "the server serves")

    def answers(self) -> bool:
        assert self.running, f"the server ended by itself:\n{self.tail()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    async def kill(self) -> None:
        """SIGKILL."""
        await self.end(signal.SIGKILL)

    async def end(self, by: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send it a signal and wait: its return code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(by)
        return await asyncio.to_thread(self._process.wait, seconds)

    async def wait(self, seconds: float = 30.0) -> int:
        """Its return code, once it has ended by itself."""
        assert self._process is not None
        try:
            return await asyncio.to_thread(self._process.wait, seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {seconds:g} s:\n{self.tail()}") from None

    async def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            await self.kill()

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log with that event."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if f'"{name}"' in line:
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return [line for line in found if line.get("event") == name]

    def rows(self, statement: str = "select * from recording order by id") -> list[dict[str, Any]]:
        """What the ledger says; of one that is not there or locked, nothing."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as conn:
            conn.row_factory = sqlite3.Row
            try:
                return [dict(row) for row in conn.execute(statement)]
            except sqlite3.OperationalError:
                return []

    def recordings(self) -> list[dict[str, Any]]:
        return self.rows() if self.database.exists() else []

    def unsettled(self) -> list[str]:
        """What is not over: recordings that are open, deliveries that are not made."""
        found = [f"{r['id']} {r['phase']}" for r in self.recordings() if r["phase"] not in ("finished", "failed")]
        return found + [
            f"{d['id']} {d['status']}" for d in self.rows("select * from delivery where status<>'delivered'")
        ]


@dataclass
class Call:
    """One call as Asterisk saw it. Times are unix seconds.

    :param cause: what its recording is to end with; :param limit: seconds after which it is to end before that
    """

    uniqueid: str
    hold: float
    made_at: float
    ended_at: float | None = None
    cause: str = "HANGUP"
    limit: float | None = None


@dataclass
class Calls:
    """Makes calls and watches when they end, through a manager connection of its own."""

    asterisk: AsteriskServer
    ami: AmiSession
    made: dict[str, Call] = field(default_factory=dict)

    async def one(self, server: Serving, hold: float, *, more: str = "", context: str = "lost") -> Call:
        """A call that asks `server` to record it, then lasts `hold` seconds.

        :param more: further arguments of `record/start`, each with a & in front; :param context: of the dialplan
        """
        originated = await self.asterisk.originate(
            "Local/tone@fastagi-testing/n",
            context=context,
            variables={"SERVER": server.url, "HOLD": f"{hold:.2f}", "MORE": more},
            wait=False,
        )
        call = self.made[originated.uniqueid] = Call(originated.uniqueid, hold, time.time())
        return call

    @property
    def up(self) -> int:
        """How many are not over."""
        return sum(call.ended_at is None for call in self.made.values())

    async def watch(self) -> None:
        """For ever: note when calls end."""
        while True:
            for row in list(self.ami.events):
                call = self.made.get(row.get("Uniqueid", "")) if row["Event"] == "Hangup" else None
                if call is not None and call.ended_at is None:
                    call.ended_at = time.time()
            self.ami.events.clear()
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def watched_calls(asterisk: AsteriskServer) -> AsyncIterator[Calls]:
    """`Calls` that are watched as long as the block lasts."""
    async with asterisk.ami(events="call") as ami:
        calls = Calls(asterisk, ami)
        watching = asyncio.create_task(calls.watch())
        try:
            yield calls
        finally:
            watching.cancel()


def account(
    calls: Mapping[str, Call], server: Serving, receiver: Receiver, *, behind: float = TOLERANCE_SECONDS
) -> dict[str, Any]:
    """Hold the books: every call has a recording, a file that fits it, one delivery. Gives figures.

    :param behind: seconds by which Asterisk's Hangup events may be behind the hangups
    :raises AssertionError: something was lost, with what
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in server.recordings():
        rows[row["uniqueid"]].append(row)
    delivered = receiver.ids()
    faults: list[str] = []
    salvaged = failed = 0
    late = short = 0.0
    for call in calls.values():
        whole = [r for r in rows[call.uniqueid] if r["phase"] == "finished"]
        failed += sum(r["phase"] == "failed" for r in rows[call.uniqueid])
        if len(whole) != 1:
            faults.append(f"{call}: {len(whole)} finished recordings: {rows[call.uniqueid]}")
            continue
        row = whole[0]
        salvaged += bool(json.loads(row["facts"]).get("salvaged"))
        if len(delivered.get(row["id"], ())) != 1:
            faults.append(f"{row['id']}: delivered under {delivered.get(row['id'], 'no id')}")
        if row["cause"] != call.cause:
            faults.append(f"{row['id']}: cause {row['cause']}")
        faults += file_faults(row)
        assert call.ended_at is not None
        late = max(late, row["started_at"] - call.made_at)
        ended = call.ended_at if call.limit is None else row["started_at"] + call.limit
        missing = ended - row["started_at"] - row["audio_seconds"]
        short = max(short, missing)
        if abs(missing) > TOLERANCE_SECONDS + TOLERANCE_SHARE * (ended - row["started_at"]):
            faults.append(f"{row['id']}: {row['audio_seconds']} s of audio, {missing:.2f} s too short")
        if not -behind <= row["ended_at"] - ended <= TOLERANCE_SECONDS:
            faults.append(f"{row['id']}: ended {row['ended_at'] - ended:.2f} s after its call")
    ours = {d["extra"]["recording_id"] for call in calls for d in receiver.told(call)}
    strangers = ours - {r["id"] for found in rows.values() for r in found}
    if strangers:
        faults.append(f"delivered and not in the ledger: {strangers}")
    left = [p.name for p in server.spool.iterdir() if p.name.startswith("rec-")]
    if left:
        faults.append(f"left in the spool: {left}")
    temporary = [p.name for p in below(server.directory) if p.name.startswith(".")]
    if temporary:
        faults.append(f"left beside the finished files: {temporary}")
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
    return {
        "calls": len(calls),
        "deliveries": len(receiver.got),
        "told_twice": len(receiver.got) - len(delivered),
        "salvaged": salvaged,
        "failed_starts": failed,
        "latest_start_seconds": round(late, 2),
        "most_missing_seconds": round(short, 2),
    }


def file_faults(row: Mapping[str, Any]) -> list[str]:
    path = Path(row["file_path"])
    if not path.is_file():
        return [f"{row['id']}: {path} is not there"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
        return [f"{row['id']}: {path} is not what was finished"]
    seconds = soundfile.info(path).duration
    if abs(seconds - row["audio_seconds"]) > 0.05:
        return [f"{row['id']}: {path} has {seconds} s, the ledger says {row['audio_seconds']}"]
    return []


async def killing(server: Serving, kills: int, seed: int, *, longest: float = 3.0) -> list[float]:
    """Kill and start the server so many times, each at a random moment of its life.

    Every other life is counted from its launch, so that its start is killed too; the rest serves for a while.

    :returns: how long each life lasted, seconds
    """
    moments = random.Random(seed)
    lives = []
    for number in range(kills):
        if not server.running:
            server.launch()
        if number % 2:
            await until(server.answers, 60)
        life = moments.uniform(0.0, longest)
        await asyncio.sleep(life)
        assert server.running, f"the server ended by itself:\n{server.tail()}"
        await server.kill()
        lives.append(life)
    return lives


def _toml(data: Mapping[str, Any]) -> str:
    """These settings as TOML; JSON's strings, numbers, lists are TOML's too."""
    lines: list[str] = []
    for name, section in data.items():
        for table in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"
