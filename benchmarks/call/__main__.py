"""A finished and delivered call, in CPU: fastagi against `MixMonitor(file,,script)` with sox and curl.

    python -m benchmarks.call [--calls N] [--at-once N] [--rounds N] [--json] [--check]

Like for like: the same calls on the same Asterisk, an A-law WAV at the end of each, one POST of JSON to the same
receiver. Counted are the script with all it starts (Asterisk's children) and, for fastagi, its server. The target is a
third; the ratio is the median of the rounds, in each of which both take their turn.

Beside it stands the same with Asterisk's own share, which is not equal: it forks itself for each script, and answers
AGI and AMI for fastagi. That share is what its process spends more than for the same call recorded and left lying; it
is a small difference of large figures. And not counted at all: a script that promises what fastagi does (the file
synced before it gets its name, its SHA-256 and a signature in the POST; still no journal and no second try).
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
from statistics import median
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

CAREFUL = """#!/bin/sh
# the same, and nothing is told of a file that a power cut could take back
out="$2/$(basename "$1")"
sox "$1" -t wav -e a-law "$out.tmp" && sync "$out.tmp" && mv "$out.tmp" "$out" && sync "$2" && rm -f "$1"
hash=$(sha256sum "$out")
body="{\\"file_path\\":\\"$out\\",\\"sha256\\":\\"${hash%% *}\\"}"
signature=$(printf %s "$body" | openssl dgst -sha256 -hmac please-rotate-me)
curl -s -o /dev/null -X POST -H 'Content-Type: application/json' -H "X-Signature: ${signature##* }" -d "$body" "$3"
"""

DIALPLAN = """
[script]
exten => s,1,Set(RAW={folder}/raw/${{UNIQUEID}}.wav)
 same => n,MixMonitor(${{RAW}},,{folder}/script.sh ${{RAW}} {folder}/done {url})
 same => n,Wait({seconds})
[bare]
exten => s,1,MixMonitor({folder}/raw/${{UNIQUEID}}.wav)
 same => n,Wait({seconds})
[careful]
exten => s,1,Set(RAW={folder}/raw/${{UNIQUEID}}.wav)
 same => n,MixMonitor(${{RAW}},,{folder}/careful.sh ${{RAW}} {folder}/done {url})
 same => n,Wait({seconds})
[fastagi]
exten => s,1,AGI(agi://127.0.0.1:{agi}/record/start,dtmf_elim=no)
 same => n,Wait({seconds})
"""


VARIANTS = ("bare", "script", "fastagi", "careful")


def spent_by(name: str, asterisk: int, server: int) -> float:
    """CPU seconds so far of who finishes and delivers: our server, or what Asterisk has started and waited for."""
    return cpu_seconds(server) if name == "fastagi" else cpu_seconds(asterisk, children=True)


def cpu_seconds(pid: int, *, children: bool = False) -> float:
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
    """Place them, and wait until each has been told (bare ones tell nobody)."""
    told.clear()
    gate = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with gate:
            await asterisk.originate("Local/tone@fastagi-testing/n", context=context)
            await asyncio.sleep(CALL_SECONDS)

    await asyncio.gather(*(one() for _ in range(count)))
    deadline = time.monotonic() + 60
    while len(told) < count and context != "bare":
        if time.monotonic() > deadline:
            raise SystemExit(f"{context}: {len(told)} of {count} calls were delivered")
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def measure(count: int, at_once: int, rounds: int = 3) -> dict[str, Any]:
    told: list[str] = []
    spent: dict[str, list[float]] = {name: [] for name in VARIANTS}
    inside: dict[str, list[float]] = {name: [] for name in VARIANTS}
    runner, url = await receive(told)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for made in ("raw", "done"):
            (folder / made).mkdir()
        for name, text in (("script", SCRIPT), ("careful", CAREFUL)):
            script = folder / f"{name}.sh"
            script.write_text(text)
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
                await calls(asterisk, "fastagi", at_once, at_once, told)  # warm: pages, caches, connections
                assert asterisk.pid is not None
                for _ in range(rounds):
                    for name in VARIANTS:
                        before, own = spent_by(name, asterisk.pid, server.pid), cpu_seconds(asterisk.pid)
                        await calls(asterisk, name, count, at_once, told)
                        after = spent_by(name, asterisk.pid, server.pid)
                        spent[name].append(1000 * (after - before) / count)
                        inside[name].append(1000 * (cpu_seconds(asterisk.pid) - own) / count)
            finally:
                server.send_signal(signal.SIGTERM)
                await server.wait()
                await runner.cleanup()
    ratios = sorted(ours / script for ours, script in zip(spent["fastagi"], spent["script"], strict=True))

    def whole(name: str) -> float:
        return median(spent[name]) + median(inside[name]) - median(inside["bare"])

    return {
        "calls": count,
        "rounds": rounds,
        "ms_per_call": {name: round(median(times), 2) for name, times in spent.items()},
        "asterisk_ms_per_call": {name: round(median(times), 2) for name, times in inside.items()},
        "ratio": round(median(ratios), 3),
        "ratio_with_asterisk": round(whole("fastagi") / whole("script"), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target": round(TARGET, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when the target is missed")
    options = parser.parse_args()
    found = asyncio.run(measure(options.calls, options.at_once, options.rounds))
    if options.json:
        print(json.dumps(found))
    else:
        ms, asterisk = found["ms_per_call"], found["asterisk_ms_per_call"]
        print(f"script {ms['script']} ms, fastagi {ms['fastagi']} ms of CPU a call")
        print(f"ratio {found['ratio']} (target {found['target']}); by round {found['ratios']}")
        print(
            f"with Asterisk's own share: ratio {found['ratio_with_asterisk']}; Asterisk itself, ms a call: {asterisk}"
        )
        print(f"not counted: a script with our promises costs {ms['careful']} ms")
    return int(options.check and found["ratio"] > TARGET)


if __name__ == "__main__":
    sys.exit(main())
