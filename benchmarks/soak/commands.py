"""Everything that may be done to recorded calls, in random order: paused, muted, stopped, started again, moved, parked,
hung up, by several at once; while the server is killed and its manager connection cut. Then the books are held.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastagi.testing import AsteriskServer
from fastagi.testing.ami_session import AmiSession, Row
from support.ami_gate import AmiGate
from support.crash_harness import Receiver, Serving, file_faults, until

DIALPLAN = """
[commanded]
exten => s,1,Answer()
 same => n,Set(TRIES=0)
 same => n(again),AGI(${SERVER}/record/start?filename=calls/${UNIQUEID}${MORE})
 same => n,GotoIf($["${RECORDING_STATE}" = "RECORDING"]?on)
 same => n,Set(TRIES=$[${TRIES} + 1])
 same => n,GotoIf($[${TRIES} > 100]?on)
 same => n,Wait(0.2)
 same => n,Goto(again)
 same => n(on),ExecIf(1?${THEN})
 same => n,Goto(elsewhere,1)
exten => elsewhere,1,Wait(${RAND(1,8)})
 same => n,Goto(elsewhere,1)
exten => played,1,Playback(demo-congrats)
 same => n,Goto(elsewhere,1)
exten => talk,1,Dial(Local/tone@fastagi-testing/n,20)
 same => n,Goto(elsewhere,1)
exten => meet,1,ConfBridge(soak)
 same => n,Goto(elsewhere,1)
exten => park,1,Park()
 same => n,Goto(elsewhere,1)
"""

THEN = (
    "NoOp()",
    "Dial(Local/tone@fastagi-testing/n,20)",
    "Dial(Local/echo@fastagi-testing,20)",
    "ConfBridge(soak)",
    "Playback(demo-congrats)",
)

MORE = (
    "",
    "&recording_mode=separate&file_format=ulaw",
    "&file_format=s16bit&pause_mode=cut",
    "&file_format=flac&dtmf_elim=no",
    "&milliseconds_max_silence=6000",
    "&max_bytes=120000&dtmf_elim=no",
    "&beep_stop=yes&dtmf_elim=no",
)

PLACES = ("elsewhere", "played", "talk", "meet", "park")
"""Where a redirected call goes on."""

SILENCE_SECONDS = 2.0
"""Of a plain recording's wall clock that may have no audio: starts seen late, moves, ends told late."""


async def commands(folder: Path, seconds: float, at_once: int, seed: int, version: int) -> dict[str, Any]:
    """Let so many calls live through it for so many seconds; the figures.

    :raises AssertionError: something was lost, or is not what the ledger says
    """
    dice = random.Random(seed)
    done: Counter[str] = Counter()
    log = (folder / "commands.log").open("w")
    async with (
        AsteriskServer(version, dialplan=DIALPLAN) as asterisk,
        Receiver() as receiver,
        AmiGate(asterisk.ami_port) as gate,
        asterisk.ami(events="off") as ami,
    ):
        server = Serving(asterisk, folder, sink=receiver.url, ami_port=gate.port, log={"level": "info"})
        made: set[str] = set()
        stopped: set[str] = set()
        try:
            await server.start()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                channels = await ami.listing("CoreShowChannels")
                up = [row for row in channels if row["Uniqueid"] in made]
                if len(up) < at_once:
                    made.add(await _call(asterisk, server, dice))
                if channels:
                    row = dice.choice(up or channels)
                    at = time.time()
                    name = await _command(ami, server, gate, dice, row)
                    done[name.split()[0]] += 1
                    if name == "foreign":
                        stopped.add(row["Uniqueid"])
                    print(f"{at:.3f} {row['Uniqueid']} {row['Application']} {name}", file=log)
                await asyncio.sleep(dice.uniform(0.0, 0.1))
            gate.open()
            if not server.running:
                await server.start()
            await until(server.answers, 60)
            await asterisk.cli("channel request hangup all", timeout=60)
            await until(lambda: not server.unsettled(), 120, "all is finished and delivered")
            return {**_account(made, stopped, server, receiver), "done": dict(sorted(done.items()))}
        finally:
            log.close()
            await server.close()


async def _call(asterisk: AsteriskServer, server: Serving, dice: random.Random) -> str:
    originated = await asterisk.originate(
        "Local/prompt@fastagi-testing/n",
        context="commanded",
        variables={"SERVER": server.url, "MORE": dice.choice(MORE), "THEN": dice.choice(THEN)},
        wait=False,
    )
    return str(originated.uniqueid)


async def _command(ami: AmiSession, server: Serving, gate: AmiGate, dice: random.Random, row: Row) -> str:
    """Do something to that channel, or to the server; says what."""
    channel, one = row["Channel"], row["Uniqueid"]
    what = dice.choices(
        ("pause", "resume", "stop", "start", "redirect", "hangup", "foreign", "mute", "cut", "kill", "term"),
        (12, 12, 5, 8, 10, 8, 3, 4, 1, 1, 1),
    )[0]
    if what in ("pause", "resume", "stop", "start"):
        event = {"UserEvent": "FastAGIRecord", "Command": what, "Channel": dice.choice((channel, one))}
        if what == "pause" and dice.random() < 0.5:
            event["seconds"] = f"{dice.uniform(0.1, 3):.1f}"
        await ami.action("UserEvent", event)
    elif what == "redirect":
        place = dice.choice(PLACES)
        await ami.action("Redirect", Channel=channel, Context="commanded", Exten=place, Priority="1")
        return f"redirect to {place}"
    elif what == "hangup":
        await ami.action("Hangup", Channel=channel)
    elif what == "foreign":
        await ami.action("StopMixMonitor", Channel=channel)
    elif what == "mute":
        await ami.action("MixMonitorMute", Channel=channel, Direction="both", State=dice.choice("01"))
    elif what == "cut":
        gate.shut()
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        gate.open()
    else:
        if server.running:
            if what == "kill":
                await server.kill()
            else:
                code = await server.end()
                # -15: it had not begun to run anything of ours yet
                assert code in (0, -15), f"SIGTERM ended in {code}:\n{server.tail()}"
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        server.launch()
        if dice.random() < 0.8:
            await until(server.answers, 60)
    return what


def _account(made: set[str], stopped: set[str], server: Serving, receiver: Receiver) -> dict[str, Any]:
    """:param stopped: calls of which somebody else stopped a recording: who is hung up right after is taken for that"""
    faults: list[str] = []
    by_call: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    causes: Counter[str] = Counter()
    delivered = receiver.ids()
    errors: list[str] = []
    missing = 0.0
    for row in server.recordings():
        by_call[row["uniqueid"]].append(row)
        facts = json.loads(row["facts"])
        causes[row["cause"]] += 1
        if len(delivered.get(row["id"], ())) != (row["phase"] == "finished"):
            faults.append(f"{row['id']} {row['phase']}: delivered under {delivered.get(row['id'], 'no id')}")
        if row["phase"] == "failed":
            if not row["error"]:
                faults.append(f"{row['id']}: failed for no reason")
            errors.append(row["error"])
            continue
        faults += file_faults(row)
        lasted = row["ended_at"] - row["started_at"]
        plain = row["cause"] in ("HANGUP", "ABORTED") and json.loads(row["spec"])["pause_mode"] == "silence"
        if plain and row["uniqueid"] not in stopped:
            missing = max(missing, lasted - row["audio_seconds"])
            if lasted - row["audio_seconds"] > SILENCE_SECONDS + 0.05 * lasted:
                faults.append(f"{row['id']}: {lasted:.2f} s and {row['audio_seconds']} s of audio: {facts}")
    left = [p.name for p in server.spool.iterdir() if p.name.startswith("rec-")]
    if left:
        faults.append(f"left in the spool: {left}")
    crashed = [line for line in server.log.read_text(errors="replace").splitlines() if "Traceback" in line]
    faults += [f"in the log: {line[:2000]}" for line in crashed]
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
    return {
        "calls": len(made),
        "recordings": sum(map(len, by_call.values())),
        "causes": dict(causes),
        "errors": errors,
        "told_twice": len(receiver.got) - len(delivered),
        "most_missing_seconds": round(missing, 2),
    }
