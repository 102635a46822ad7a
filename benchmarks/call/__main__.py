"""A finished and delivered call, in CPU: fastagi against `MixMonitor(file,,script)` with sox and curl.

    python -m benchmarks.call [--calls N] [--at-once N] [--json] [--check]

Like for like: the same calls on the same Asterisk, an A-law WAV at the end of each, one POST of JSON to the same
receiver. Counted are the script with all it starts (Asterisk's children) and, for fastagi, its server; Asterisk's own
work is the same in both and left out. The target is a third.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_data, write_settings

TARGET = 1 / 3
TICK = os.sysconf("SC_CLK_TCK")
CALL_SECONDS = 3

SCRIPT = """#!/bin/sh
# what people write: recode, then tell
sox "$1" -e a-law "$2/$(basename "$1")" && rm -f "$1"
curl -s -o /dev/null -X POST -H 'Content-Type: application/json' -d "{\\"file_path\\":\\"$2/$(basename "$1")\\"}" "$3"
"""

DIALPLAN = """
[peer]
exten => s,1,Set(RAW={folder}/raw/${{UNIQUEID}}.wav)
 same => n,MixMonitor(${{RAW}},,{folder}/finish.sh ${{RAW}} {folder}/done {url})
 same => n,Wait({seconds})
[ours]
exten => s,1,AGI(agi://127.0.0.1:{agi}/record/start,dtmf_elim=no)
 same => n,Wait({seconds})
"""


def cpu_seconds(pid: int, *, children: bool) -> float:
    """User and system time of a process, or of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    first = 13 if children else 11
    return (int(fields[first]) + int(fields[first + 1])) / TICK


async def receive(told: list[str]) -> tuple[web.AppRunner, str]:
    async def take(request: web.Request) -> web.Response:
        told.append(json.loads(await request.read())["file_path"])
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}/"


async def calls(asterisk: AsteriskServer, context: str, count: int, at_once: int, told: list[str]) -> None:
    """Place them, and wait until each has been told."""
    told.clear()
    gate = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with gate:
            await asterisk.originate("Local/tone@fastagi-testing/n", context=context)
            await asyncio.sleep(CALL_SECONDS)

    await asyncio.gather(*(one() for _ in range(count)))
    deadline = time.monotonic() + 60
    while len(told) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{context}: {len(told)} of {count} calls were delivered")
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def measure(count: int, at_once: int) -> dict[str, Any]:
    told: list[str] = []
    runner, url = await receive(told)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in ("raw", "done"):
            (folder / made).mkdir()
        script = folder / "finish.sh"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        agi = free_port()
        dialplan = DIALPLAN.format(folder=folder, url=url, agi=agi, seconds=CALL_SECONDS)
        async with AsteriskServer(22, dialplan=dialplan) as asterisk:
            sinks = [{"name": "receiver", "type": "webhook", "url": url}]
            data = settings_data(asterisk, folder, agi={"port": agi}, sinks=sinks, log={"level": "warning"})
            write_settings(folder / "fastagi.toml", data)
            server = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("fastagi")), "serve", "--config", str(folder / "fastagi.toml")
            )
            try:
                for _ in range(200):
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", agi)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
                await calls(asterisk, "ours", at_once, at_once, told)  # warm: pages, caches, connections
                assert asterisk.pid is not None
                spent: dict[str, list[float]] = {"script": [], "fastagi": []}
                for _ in range(2):
                    before = cpu_seconds(asterisk.pid, children=True)
                    await calls(asterisk, "peer", count, at_once, told)
                    spent["script"].append((cpu_seconds(asterisk.pid, children=True) - before) / count)
                    before = cpu_seconds(server.pid, children=False)
                    await calls(asterisk, "ours", count, at_once, told)
                    spent["fastagi"].append((cpu_seconds(server.pid, children=False) - before) / count)
            finally:
                server.send_signal(signal.SIGTERM)
                await server.wait()
                await runner.cleanup()
    script_ms, ours_ms = (round(1000 * min(spent[n]), 2) for n in ("script", "fastagi"))
    return {
        "calls": count,
        "script_ms_per_call": script_ms,
        "fastagi_ms_per_call": ours_ms,
        "ratio": round(ours_ms / script_ms, 3),
        "target": round(TARGET, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    options = parser.parse_args()
    found = asyncio.run(measure(options.calls, options.at_once))
    if options.json:
        print(json.dumps(found))
    else:
        print(f"script {found['script_ms_per_call']} ms, fastagi {found['fastagi_ms_per_call']} ms of CPU a call")
        print(f"ratio {found['ratio']} (target {found['target']})")
    return int(options.check and found["ratio"] > TARGET)


if __name__ == "__main__":
    sys.exit(main())
